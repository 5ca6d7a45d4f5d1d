"""Loads the edge function as for a snapshot, forks it into copies, and lets each live: `snapshot_copies.py FOLDER`.

A fork is what a restore is: memory, generators and open objects as they were. Each copy writes what it calls itself to
FOLDER/<number>.json.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import random
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from isochrone.api.exchange import Request
from isochrone_streaming import snapstart

COPIES = 2


async def _load() -> ModuleType:
    """Inside the loop, as the streaming loop does."""
    return importlib.import_module("handler")


async def _live(function: Any) -> dict[str, Any]:
    """What a copy does from its restore to its end, and the names that it has."""
    snapstart.after_restore()
    await function.start()
    reply = await function.stream(Request(method="GET", path="/v1/models", headers={}, body=b"", peer="192.0.2.1"))
    means = function._edge.pipeline.rooms.means
    names = {
        "request": reply.headers["x-request-id"],
        "holder": means.places.holder,
        "jitter": random.random(),
        "chance": means.chance(),
    }
    await function.flush()
    await function.close()
    return names


def main() -> None:
    """Photograph, then one copy after the other."""
    folder = Path(sys.argv[1])
    loop = asyncio.new_event_loop()
    function = loop.run_until_complete(_load())
    for number in range(COPIES):
        if (child := os.fork()) == 0:
            (folder / f"{number}.json").write_text(json.dumps(loop.run_until_complete(_live(function))))
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    os._exit(0)  # the photograph itself was never started


if __name__ == "__main__":
    main()
