"""The process that Lambda would start: through the exec wrapper, with unpacked layers and Lambda's own environment."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from local.errors import LocalError
from local.gateway.environment import Environment, Sandbox
from local.gateway.invocation import FunctionFailed
from local.gateway.runtime_api import LocalRuntimeApi
from tests.lambda_.harness import ROOT, rest_event, whole

WRAPPER = "isochrone-streaming"
FUNCTION = """
import asyncio, gc, json, os, sys
from pathlib import Path
from isochrone.api.exchange import Reply

COLLECTED_WHILE_LOADED = gc.isenabled()

async def close():
    Path("closed").touch()

async def stream(request):
    if request.path == "/exit":
        os._exit(7)
    if request.path == "/block":
        while True:  # holds the loop itself, so that only Lambda's timeout can end it
            pass
    collecting = {"loading": COLLECTED_WHILE_LOADED, "serving": gc.isenabled(), "left_alone": gc.get_freeze_count()}
    process = {"pid": os.getpid(), "path": sys.path, "cwd": os.getcwd(), "environ": dict(os.environ)}
    facts = {**process, "collecting": collecting}
    return Reply(status=200, headers={"content-type": "application/json"}, body=json.dumps(facts).encode())
"""


@asynccontextmanager
async def started(
    folder: Path, code: str = FUNCTION, *, lambda_timeout: float = 60.0
) -> AsyncIterator[tuple[LocalRuntimeApi, Environment, Sandbox, asyncio.Task[None]]]:
    function = folder / "function"
    function.mkdir()
    (function / "handler.py").write_text(code)
    layers = [ROOT / "layers/core", ROOT / "layers/streaming"]
    sandbox = Sandbox(function=function, layers=layers, files={})
    api = LocalRuntimeApi(region="eu-west-1", timeout=lambda_timeout)
    await api.start()
    environment = Environment(api, sandbox, {"COLOUR": "blue"}, wrapper=WRAPPER)
    task = asyncio.create_task(environment.run())
    try:
        yield api, environment, sandbox, task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, LocalError):
            await task
        await api.stop()
        sandbox.remove()


async def facts(api: LocalRuntimeApi) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((await whole(api.submit(rest_event())))[2])
    return found


async def test_wrapper_runs_the_function_where_lambda_puts_it(tmp_path: Path) -> None:
    async with started(tmp_path) as (api, _, sandbox, _task):
        seen = await facts(api)
        assert seen["cwd"] == str(sandbox.task)
        found = [
            entry for entry in seen["path"] if entry in {str(sandbox.task), str(sandbox.opt / "python"), "/var/runtime"}
        ]
        assert list(dict.fromkeys(found)) == [str(sandbox.task), str(sandbox.opt / "python"), "/var/runtime"]
        assert seen["environ"]["COLOUR"] == "blue"
        assert seen["environ"]["AWS_REGION"] == "eu-west-1"
        assert "HOME" not in seen["environ"]
        assert api.violations == []


async def test_one_process_answers_event_after_event(tmp_path: Path) -> None:
    async with started(tmp_path) as (api, *_):
        assert len({(await facts(api))["pid"] for _ in range(3)}) == 1


async def test_garbage_is_looked_for_while_serving_only_and_not_in_what_was_loaded(tmp_path: Path) -> None:
    async with started(tmp_path) as (api, *_):
        collecting = (await facts(api))["collecting"]
        assert (collecting["loading"], collecting["serving"]) == (False, True)
        assert collecting["left_alone"] > 10_000


async def test_process_that_dies_fails_its_event_and_the_next_gets_a_fresh_one(tmp_path: Path) -> None:
    async with started(tmp_path) as (api, *_):
        first = await facts(api)
        with pytest.raises(FunctionFailed) as failure:
            await api.submit(rest_event(path="/exit")).prelude()
        assert failure.value.type == "Runtime.ExitError"
        assert (await facts(api))["pid"] != first["pid"]


async def test_function_that_holds_the_loop_is_killed_at_its_timeout(tmp_path: Path) -> None:
    async with started(tmp_path, lambda_timeout=2.0) as (api, *_):
        with pytest.raises(FunctionFailed, match=r"timed out after 2\.00 seconds"):
            await api.submit(rest_event(path="/block")).prelude()
        assert (await facts(api))["pid"]


async def test_sigterm_closes_the_function(tmp_path: Path) -> None:
    async with started(tmp_path) as (api, environment, sandbox, _task):
        await facts(api)
        assert environment.pid is not None
        os.kill(environment.pid, signal.SIGTERM)
        while not (sandbox.task / "closed").exists():  # noqa: ASYNC110  (a file is all that the process leaves)
            await asyncio.sleep(0.02)


async def test_function_that_cannot_start_is_one_line_with_the_reason(tmp_path: Path) -> None:
    async with started(tmp_path, "raise ValueError('isochrone.toml:3: key: unknown key')") as (*_, task):
        with pytest.raises(
            LocalError, match=r"^the function did not start: ValueError: isochrone\.toml:3: key: unknown"
        ):
            await task


def test_wrapper_without_an_interpreter_says_what_to_set() -> None:
    wrapper = ROOT / "layers/streaming" / WRAPPER
    run = subprocess.run([wrapper], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "AWS_LAMBDA_EXEC_WRAPPER" in run.stderr


def test_runtime_without_a_runtime_api_is_one_line(tmp_path: Path) -> None:
    wrapper = ROOT / "layers/streaming" / WRAPPER
    (tmp_path / "handler.py").write_text(FUNCTION)
    environ = {
        "AWS_LAMBDA_RUNTIME_API": "127.0.0.1:1",
        "_HANDLER": "handler.handler",
        "LAMBDA_TASK_ROOT": str(tmp_path),
        "PYTHONPATH": str(ROOT / "layers/core/python"),
    }
    command = [str(wrapper), sys.executable, "x"]
    run = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "cannot connect to 127.0.0.1:1" in run.stderr
    assert len(run.stderr.splitlines()) == 1
