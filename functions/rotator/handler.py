"""The rotator function: each call is one step of the rotation of one pool's key. Its parts are built when the module is
loaded, so a broken configuration fails at once.

Environment: ISOCHRONE_CONFIG (the TOML file), AWS_REGION, and what the configuration names.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping

from isochrone.rotator_function import Call, Rotator, build_rotator
from isochrone.settings import load


async def _build() -> Rotator:
    return build_rotator(load(os.environ["ISOCHRONE_CONFIG"]), region=os.environ["AWS_REGION"], environ=os.environ)


_runner = asyncio.Runner()
_rotator = _runner.run(_build())


def handler(event: Mapping[str, str], _context: object) -> None:
    """As Secrets Manager calls it. What it raises ends the rotation; Secrets Manager tries the step again."""
    _runner.run(_rotator.carry_out(Call(event["Step"], event["SecretId"], event["ClientRequestToken"])))
