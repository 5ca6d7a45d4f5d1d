"""The function's process, started the way Lambda starts it: unpacked layers, its environment, the exec wrapper."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from local.errors import LocalError
from local.gateway.runtime_api import LocalRuntimeApi

_TETHER = Path(__file__).parents[1] / "tether.py"
_GRACE = 5.0  # seconds between SIGTERM and SIGKILL


class Sandbox:
    """What Lambda mounts: `opt` with every layer unpacked into it, `task` with the function's code and files."""

    def __init__(self, *, function: Path, layers: Iterable[Path], files: Mapping[str, Path]) -> None:
        """`files` are put beside the function's code under the names given."""
        self._folder = tempfile.TemporaryDirectory(prefix="isochrone-lambda-")
        self.opt, self.task = Path(self._folder.name, "opt"), Path(self._folder.name, "task")
        (self.opt / "python").mkdir(parents=True)
        for layer in layers:
            _link_into(self.opt, layer)
        shutil.copytree(function, self.task, ignore=shutil.ignore_patterns("__pycache__"))
        for name, source in files.items():
            shutil.copyfile(source, self.task / name)

    def remove(self) -> None:
        self._folder.cleanup()


class Environment:
    """One execution environment: one process, one event at a time, a fresh process after a crash or a timeout."""

    def __init__(self, api: LocalRuntimeApi, sandbox: Sandbox, variables: Mapping[str, str], *, wrapper: str) -> None:
        self._api = api
        self._sandbox = sandbox
        self._variables = variables
        self._wrapper = wrapper
        self.pid: int | None = None

    async def run(self) -> None:
        """Run until cancelled. Raises LocalError when the function cannot be started."""
        while True:
            self._api.ready.clear()
            self._api.timed_out.clear()
            process = await self._start()
            try:
                await self._until_end(process)
            finally:
                await _stop(process)
            await self._api.drop("Runtime.ExitError", f"the runtime exited with status {process.returncode}")
            if not self._api.ready.is_set():
                raise LocalError(f"the function did not start: {self._reason(process)}")

    async def _start(self) -> asyncio.subprocess.Process:
        tied = [sys.executable, "-I", "-S", str(_TETHER), str(os.getpid())]
        command = [str(self._sandbox.opt / self._wrapper), sys.executable, "/var/runtime/bootstrap.py"]
        process = await asyncio.create_subprocess_exec(
            *tied,
            *command,
            cwd=self._sandbox.task,
            env=self._environ(),
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        self.pid = process.pid
        return process

    async def _until_end(self, process: asyncio.subprocess.Process) -> None:
        ended = asyncio.create_task(process.wait())
        timed_out = asyncio.create_task(self._api.timed_out.wait())
        try:
            await asyncio.wait({ended, timed_out}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
            timed_out.cancel()
        if self._api.timed_out.is_set():
            process.kill()  # Lambda gives no time to clean up either

    def _environ(self) -> dict[str, str]:
        """Lambda's own variables, and the function's; nothing of this machine's but the search path for programs."""
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "en_US.UTF-8",
            "TZ": ":UTC",
            "_HANDLER": "handler.handler",
            "LAMBDA_TASK_ROOT": str(self._sandbox.task),
            "LAMBDA_RUNTIME_DIR": "/var/runtime",
            "AWS_LAMBDA_RUNTIME_API": self._api.address,
            "AWS_LAMBDA_FUNCTION_NAME": "isochrone-edge",
            "AWS_LAMBDA_FUNCTION_VERSION": "1",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_LAMBDA_EXEC_WRAPPER": f"/opt/{self._wrapper}",
            "AWS_EXECUTION_ENV": f"AWS_Lambda_python3.{sys.version_info.minor}",
            "AWS_REGION": self._api.region,
            "AWS_DEFAULT_REGION": self._api.region,
            **self._variables,
        }

    def _reason(self, process: asyncio.subprocess.Process) -> str:
        error = self._api.init_error or self._api.restore_error
        return f"{error['errorType']}: {error['errorMessage']}" if error else f"exit status {process.returncode}"


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), _GRACE)
        except TimeoutError:
            process.kill()
    await process.wait()


def _link_into(folder: Path, layer: Path) -> None:
    """Unpack a layer: folders merge, files stand side by side. Links save the copying of a hundred megabytes."""
    for entry in layer.iterdir():
        target = folder / entry.name
        if entry.name == "python":
            _link_into(target, entry)
        elif entry.name != "__pycache__" and not target.exists():
            target.symlink_to(entry)
