"""The CDK app: `cdk deploy '**' -c config=FILE` (docs/aws.md)."""

from __future__ import annotations

import sys

from infra.app import from_context
from infra.layers import LayerMissing, LayersTooLarge
from isochrone.settings import SettingsError


def main() -> None:
    try:
        from_context().synth()
    except (SettingsError, LayerMissing, LayersTooLarge) as error:
        sys.exit(f"isochrone: {error}")
    except RuntimeError as error:  # what the CDK throws; its own report stands above
        sys.exit(f"isochrone: {str(error).splitlines()[0]}")


if __name__ == "__main__":
    main()
