"""The processes of the local edition, where it matters how they end."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from local.processes import Child

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("error", [ProcessLookupError, PermissionError])
async def test_signal_to_a_group_that_is_gone_or_was_taken_over_by_others_is_silent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: type[OSError]
) -> None:
    process = await asyncio.create_subprocess_exec("true")
    await process.wait()
    asked: list[tuple[int, int]] = []

    def refuse(group: int, number: int) -> None:
        asked.append((group, number))
        raise error

    monkeypatch.setattr(os, "killpg", refuse)
    Child("pool", process, tmp_path / "log", 1).signal(signal.SIGKILL)
    assert asked == [(process.pid, signal.SIGKILL)]
