"""Before the first event and after the last: init errors, SnapStart, start and close."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from isochrone.api.exchange import Reply, Request
from isochrone_streaming.application import Application, InitFailed, load
from isochrone_streaming.loop import serve
from local.gateway.runtime_api import LocalRuntimeApi
from tests.lambda_.harness import rest_event, whole

SNAP_START = {"AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start"}


class Diary:
    """An application, and hooks, that write down when they are called."""

    def __init__(self) -> None:
        self.entries: list[str] = []

    def application(self, _: str = "") -> Application:
        self.entries.append("load")
        return Application(self.stream, self.start, self.flush, self.close)

    async def stream(self, _: Request) -> Reply:
        self.entries.append("stream")
        return Reply(status=200, headers={})

    async def start(self) -> None:
        self.entries.append("start")

    async def flush(self) -> None:
        self.entries.append("flush")

    async def close(self) -> None:
        self.entries.append("close")


@asynccontextmanager
async def environment(load: Any, **environ: str) -> AsyncIterator[tuple[LocalRuntimeApi, asyncio.Task[Any]]]:
    api = LocalRuntimeApi()
    await api.start()
    variables = {"AWS_LAMBDA_RUNTIME_API": api.address, "_HANDLER": "handler.handler", **environ}
    task = asyncio.create_task(serve(variables, load=load))
    try:
        yield api, task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, InitFailed):
            await task
        await api.stop()


def register(monkeypatch: pytest.MonkeyPatch, *, before: list[Any], after: list[Any]) -> None:
    """The module that the managed runtime brings, with hooks in the order of their registration."""
    registry = SimpleNamespace(
        get_before_snapshot=lambda: [(hook, args, {}) for hook, *args in before],
        get_after_restore=lambda: [(hook, args, {}) for hook, *args in after],
    )
    monkeypatch.setitem(__import__("sys").modules, "snapshot_restore_py", registry)


async def test_started_before_the_first_event_flushed_after_each_and_closed_after_the_last() -> None:
    diary = Diary()
    async with environment(diary.application) as (api, _):
        await whole(api.submit(rest_event()))
        await whole(api.submit(rest_event()))
        await whole(api.submit(rest_event()))
    assert diary.entries[:6] == ["load", "start", "stream", "flush", "stream", "flush"]
    assert diary.entries[-1] == "close"


async def test_flush_that_fails_or_hangs_does_not_take_the_next_event(caplog: pytest.LogCaptureFixture) -> None:
    async def fails() -> None:
        raise ValueError("secret prompt")

    async with environment(lambda _: Application(Diary().stream, flush=fails)) as (api, _):
        for _round in range(2):
            assert (await whole(api.submit(rest_event())))[0] == 200
    async with environment(lambda _: Application(Diary().stream, flush=partial(asyncio.sleep, 3600))) as (api, _):
        api.timeout = 0.6
        for _round in range(2):
            assert (await whole(api.submit(rest_event())))[0] == 200
        assert not api.timed_out.is_set()
    assert "secret" not in caplog.text


async def test_snapshot_hooks_run_in_the_order_of_awss_own_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    diary = Diary()
    write = diary.entries.append
    register(
        monkeypatch,
        before=[(write, "before 1"), (write, "before 2")],
        after=[(write, "after 1"), (write, "after 2")],
    )
    async with environment(diary.application, **SNAP_START) as (api, _):
        await api.photographed.wait()
        assert diary.entries == ["load", "before 2", "before 1"]
        api.restored.set()
        await whole(api.submit(rest_event()))
    assert diary.entries[:7] == ["load", "before 2", "before 1", "after 1", "after 2", "start", "stream"]


async def test_restored_copy_uses_no_connection_from_before_the_snapshot() -> None:
    async with environment(Diary().application, **SNAP_START) as (api, _):
        await api.photographed.wait()
        before = api.connections
        api.restored.set()
        await whole(api.submit(rest_event()))
        assert api.connections == before + 1


async def test_restored_copies_draw_different_random_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    for _ in range(2):
        random.seed(1)  # both copies wake with the generator of the one snapshot
        async with environment(Diary().application, **SNAP_START) as (api, _task):
            await api.photographed.wait()
            api.restored.set()
            await api.ready.wait()
            drawn.append(random.random())
    assert drawn[0] != drawn[1]


async def test_hook_that_fails_before_the_snapshot_fails_the_deployment(monkeypatch: pytest.MonkeyPatch) -> None:
    def hook() -> None:
        raise OSError("no disk")

    register(monkeypatch, before=[(hook,)], after=[])
    async with environment(Diary().application, **SNAP_START) as (api, task):
        with pytest.raises(InitFailed):
            await task
        assert api.init_error is not None
        assert api.init_error["errorType"] == "Runtime.BeforeSnapshotError"
        assert api.init_error["errorMessage"] == "hook hook: no disk"


async def test_hook_that_fails_after_the_restore_is_a_restore_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def hook() -> None:
        raise OSError("no disk")

    register(monkeypatch, before=[], after=[(hook,)])
    async with environment(Diary().application, **SNAP_START) as (api, task):
        api.restored.set()
        with pytest.raises(InitFailed):
            await task
        assert (api.init_error, (api.restore_error or {})["errorType"]) == (None, "Runtime.AfterRestoreError")


async def test_start_that_fails_is_an_init_error_with_its_reason() -> None:
    async def start() -> None:
        raise ValueError("isochrone.toml:3: region: is missing")

    async with environment(lambda _: Application(Diary().stream, start)) as (api, task):
        with pytest.raises(InitFailed):
            await task
        assert api.init_error is not None
        assert api.init_error["errorType"] == "ValueError"
        assert "isochrone.toml:3: region: is missing" in api.init_error["errorMessage"]
        assert api.init_error["stackTrace"]


@pytest.mark.parametrize(
    ("handler", "kind", "words"),
    [
        ("handler", "Runtime.MalformedHandlerName", "'handler', not module.function"),
        ("no_such_module_here.handler", "Runtime.ImportModuleError", "no_such_module_here"),
        ("json.handler", "Runtime.HandlerNotFound", "module json has no `stream`"),
    ],
)
async def test_function_that_cannot_be_found_is_an_init_error(handler: str, kind: str, words: str) -> None:
    async with environment(load, _HANDLER=handler) as (api, task):
        with pytest.raises(InitFailed):
            await task
        assert api.init_error is not None
        assert api.init_error["errorType"] == kind
        assert words in api.init_error["errorMessage"]
