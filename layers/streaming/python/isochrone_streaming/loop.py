"""The life of one execution environment: load, perhaps sleep through a snapshot, start, then event after event.

One asyncio loop runs it all, so that connections to the backends stay open from one event to the next.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, MutableMapping
from typing import NoReturn

from isochrone_streaming import snapstart
from isochrone_streaming.application import Application, InitFailed, load
from isochrone_streaming.faults import Fault
from isochrone_streaming.relay import answer
from isochrone_streaming.runtime_api import RuntimeApi, RuntimeApiError

_TRACE = "_X_AMZN_TRACE_ID"
_FLUSH_MARGIN = 0.1  # seconds kept before Lambda's timeout

log = logging.getLogger(__name__)


async def serve(
    environ: MutableMapping[str, str],
    *,
    load: Callable[[str], Application] = load,
    clock: Callable[[], float] = time.time,
) -> NoReturn:
    """Run until cancelled; `load` finds the function that _HANDLER names, `clock` gives epoch seconds.

    Raises InitFailed, after Lambda has been told, and RuntimeApiError when the Runtime API is gone.
    """
    api = RuntimeApi(environ["AWS_LAMBDA_RUNTIME_API"])
    try:
        application = await _initialise(api, environ, load)
        try:
            await _answer_all(api, application, environ, clock)
        finally:
            await application.close()
    finally:
        api.disconnect()


async def _initialise(
    api: RuntimeApi, environ: MutableMapping[str, str], load: Callable[[str], Application]
) -> Application:
    """Load and start the function; before a snapshot it is only loaded, so that no socket is photographed."""
    report = api.init_error
    try:
        application = load(environ["_HANDLER"])
        if snapstart.wanted(environ):
            snapstart.before_snapshot()
            await api.restore_next()
            report = api.restore_error
            snapstart.after_restore()
        await application.start()
    except RuntimeApiError:
        raise
    except InitFailed as failed:
        await report(failed.fault)
        raise
    except Exception as error:
        fault = Fault.of(error, f"start failed: {error}")
        await report(fault)
        raise InitFailed(fault) from error
    return application


async def _answer_all(
    api: RuntimeApi, application: Application, environ: MutableMapping[str, str], clock: Callable[[], float]
) -> NoReturn:
    while True:
        invocation = await api.next()
        _trace(environ, invocation.trace_id)
        await answer(api, invocation, application.stream, now=clock())
        await _flush(application, seconds=invocation.deadline - clock() - _FLUSH_MARGIN)


async def _flush(application: Application, *, seconds: float) -> None:
    """Finish what the reply did not wait for; asking for the next event lets Lambda freeze us for hours."""
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            await application.flush()
    except Exception as error:
        log.error("flush: %s", Fault.of(error, "what was left to the background is not finished"))


def _trace(environ: MutableMapping[str, str], trace_id: str | None) -> None:
    """X-Ray's libraries look for the current trace in the environment."""
    if trace_id is None:
        environ.pop(_TRACE, None)
    else:
        environ[_TRACE] = trace_id
