"""What the wrapper starts: `python -m isochrone_streaming`, with the environment that Lambda gives a runtime."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys

from isochrone_streaming.application import Application, InitFailed, load
from isochrone_streaming.loop import serve
from isochrone_streaming.runtime_api import RuntimeApiError


async def _serve_until_told() -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await serve(os.environ, load=_load_without_collecting)


def _load_without_collecting(handler: str) -> Application:
    """What a start makes is no garbage: to look for some costs it 5 to 10 %, and again a pause whenever all is looked
    through later."""
    gc.disable()
    try:
        return load(handler)
    finally:
        gc.freeze()
        gc.enable()


def main() -> int:
    """Gives the exit status: 0 after SIGTERM, 1 with one line on stderr otherwise."""
    level = os.environ.get("AWS_LAMBDA_LOG_LEVEL", "INFO")
    logging.basicConfig(
        level=logging.getLevelNamesMapping().get(level, logging.INFO), format="%(levelname)s %(message)s"
    )
    try:
        asyncio.run(_serve_until_told())
    except asyncio.CancelledError:
        return 0
    except (InitFailed, RuntimeApiError) as error:
        logging.getLogger("isochrone_streaming").critical("%s", error)
    return 1


if __name__ == "__main__":
    sys.exit(main())
