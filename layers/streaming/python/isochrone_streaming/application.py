"""The function's own module, found as Lambda finds it: through _HANDLER.

The module must have `async def stream(request: Request) -> Reply`. It may have `async def start()`, awaited once in the
loop before the first request (after a restore, when there is a snapshot, so that no socket gets into it);
`async def flush()`, awaited after every reply, before Lambda may freeze the process; and `async def close()`, awaited
at the end.
"""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import NamedTuple

from isochrone.api.exchange import Reply, Request
from isochrone.settings import SettingsError
from isochrone_streaming.faults import Fault

Hook = Callable[[], Awaitable[None]]
Handle = Callable[[Request], Awaitable[Reply]]


class InitFailed(Exception):
    """The function cannot be started; `fault` tells the operator why."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


async def _nothing() -> None:
    """A function that needs no start or no close."""


class Application(NamedTuple):
    """What the loop calls."""

    stream: Handle
    start: Hook = _nothing
    flush: Hook = _nothing
    close: Hook = _nothing


def load(handler: str) -> Application:
    """Import the module of `handler` ("handler.handler": module, function). Raises InitFailed."""
    path, dot, _ = handler.rpartition(".")
    if not dot:
        raise InitFailed(Fault("Runtime.MalformedHandlerName", f"_HANDLER is {handler!r}, not module.function"))
    module = _import(path.replace("/", "."))
    stream = getattr(module, "stream", None)
    if stream is None:
        raise InitFailed(
            Fault("Runtime.HandlerNotFound", f"module {path} has no `stream`, which the streaming loop calls")
        )
    hooks = (getattr(module, name, _nothing) for name in ("start", "flush", "close"))
    return Application(stream, *hooks)


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise _init_failed(error, "Runtime.ImportModuleError", f"cannot import {name}: {error}") from error
    except SyntaxError as error:
        raise _init_failed(error, "Runtime.UserCodeSyntaxError", f"cannot import {name}: {error}") from error
    except SettingsError as error:
        raise InitFailed(Fault("SettingsError", str(error))) from error  # the line in the file is all there is to say
    except Exception as error:
        # Before the first request there is no prompt and no caller's key that a message could hold.
        raise _init_failed(error, type(error).__name__, str(error)) from error


def _init_failed(error: Exception, kind: str, message: str) -> InitFailed:
    return InitFailed(Fault.of(error, message, kind=kind))
