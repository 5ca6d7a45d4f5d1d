"""The warmer function: each call is one run. Its parts are built when the module is loaded, so a broken configuration
fails at once.

Environment: ISOCHRONE_CONFIG (the TOML file), AWS_REGION, and what the configuration names.
"""

from __future__ import annotations

import asyncio
import atexit
import os
from typing import Any, Protocol

from isochrone.settings import load
from isochrone.warmer_function import RegionWarmer, build_warmer

# Seconds that are kept for what a run leaves to the background.
_RESERVE = 20.0


class Context(Protocol):
    """The part of Lambda's context object that is used here."""

    def get_remaining_time_in_millis(self) -> int: ...


async def _open() -> RegionWarmer:
    warmer = build_warmer(load(os.environ["ISOCHRONE_CONFIG"]), region=os.environ["AWS_REGION"], environ=os.environ)
    await warmer.start()
    return warmer


def _close() -> None:
    _runner.run(_warmer.close())
    _runner.close()


_runner = asyncio.Runner()
_warmer = _runner.run(_open())
atexit.register(_close)


def handler(_event: object, context: Context) -> dict[str, Any]:
    """How the run ended, how many answers it made and for how many dollars; no word of what was asked."""
    seconds = max(0.0, context.get_remaining_time_in_millis() / 1000 - _RESERVE)
    run = _runner.run(_warmer.run(seconds=seconds))
    made = sum(one.outcome == "made" for one in run.made)
    return {"state": run.state, "due": len(run.made), "made": made, "dollars": round(run.cost, 6)}
