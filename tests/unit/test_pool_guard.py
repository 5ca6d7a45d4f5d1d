"""Who is let in at a GPU node: the guard that runs inside vLLM, on its own."""

from __future__ import annotations

from collections.abc import MutableMapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from infra.constructs.pool_guard import Guard

LET_IN = 200


class Engine:
    """The guard with an engine behind it that answers 200 to everybody."""

    def __init__(self, keys: Path) -> None:
        self.keys = keys
        self.sent: list[MutableMapping[str, Any]] = []
        self._guard = Guard(self._app, keys)

    def accept(self, *keys: str) -> None:
        """The node replaces the file, as a whole."""
        new = self.keys.with_suffix(".new")
        new.write_text("".join(sha256(key.encode()).hexdigest() + "\n" for key in keys))
        new.rename(self.keys)

    async def _app(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        await send({"type": f"{scope['type']}.answered", "status": LET_IN})

    async def ask(
        self, *keys: str, path: str = "/v1/models", type_: str = "http", header: str = "authorization"
    ) -> Any:
        self.sent = []
        headers = [(header.encode(), f"Bearer {key}".encode()) for key in keys]
        await self._guard({"type": type_, "path": path, "headers": headers}, self._nothing, self._keep)
        return self.sent[0].get("status", self.sent[0].get("code"))

    async def _nothing(self) -> dict[str, Any]:
        return {}

    async def _keep(self, message: MutableMapping[str, Any]) -> None:
        self.sent.append(message)


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    engine = Engine(tmp_path / "keys")
    engine.accept("current", "pending")
    return engine


@pytest.mark.parametrize("key", ["current", "pending"])
async def test_every_key_that_is_good_now_is_let_in(engine: Engine, key: str) -> None:
    assert await engine.ask(key) == LET_IN


@pytest.mark.parametrize("path", ["/v1/models", "/invocations", "/tokenize", "/pause", "/", "/health/../v1/models"])
@pytest.mark.parametrize("keys", [(), ("other",), ("",), ("current ",), ("current", "current"), ("other", "current")])
async def test_nobody_else_is_let_in_on_any_path(engine: Engine, path: str, keys: tuple[str, ...]) -> None:
    assert await engine.ask(*keys, path=path) == 401
    assert [message["type"] for message in engine.sent] == ["http.response.start", "http.response.body"]


@pytest.mark.parametrize("path", ["/health", "/metrics"])
async def test_what_the_balancer_and_the_prober_look_at_needs_no_key(engine: Engine, path: str) -> None:
    assert await engine.ask(path=path) == LET_IN


async def test_key_in_another_header_is_none(engine: Engine) -> None:
    assert await engine.ask("current", header="x-api-key") == 401


async def test_websocket_without_a_key_is_closed(engine: Engine) -> None:
    assert await engine.ask("other", type_="websocket", path="/v1/realtime") == 1008


async def test_start_and_end_of_the_engine_pass(engine: Engine) -> None:
    assert await engine.ask(type_="lifespan", path="") == LET_IN


async def test_new_keys_count_at_once_and_without_a_restart(engine: Engine) -> None:
    await engine.ask("current")
    engine.accept("pending", "newest")
    assert [await engine.ask(key) for key in ("current", "pending", "newest")] == [401, LET_IN, LET_IN]


async def test_without_the_file_nobody_is_let_in(engine: Engine) -> None:
    await engine.ask("current")
    engine.keys.unlink()
    assert await engine.ask("current") == 401
    engine.accept("current")
    assert await engine.ask("current") == LET_IN


async def test_refusal_holds_no_key(engine: Engine) -> None:
    await engine.ask("canary-key")
    assert "canary" not in str(engine.sent)
