"""The prober function: each call is one round of probes. Its parts are built when the module is loaded, so a broken
configuration fails at once.

Environment: ISOCHRONE_CONFIG (the TOML file), AWS_REGION, and what the configuration names.
"""

from __future__ import annotations

import asyncio
import os

from isochrone.prober_function import RegionProber, build_prober
from isochrone.settings import load


async def _build() -> RegionProber:
    return build_prober(load(os.environ["ISOCHRONE_CONFIG"]), region=os.environ["AWS_REGION"], environ=os.environ)


_runner = asyncio.Runner()
_prober = _runner.run(_build())


def handler(_event: object, _context: object) -> dict[str, str]:
    """How each backend was found; empty when another process has the duty to probe."""
    return _runner.run(_prober.look())
