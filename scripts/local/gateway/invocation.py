"""One event on its way through the function, seen from the caller's side."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

from local.gateway.protocol import Prelude


class FunctionFailed(Exception):
    """The function gave no usable response, or not all of it. `type` is Lambda's error type."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.type = kind


class Invocation:
    """`await prelude()`, then iterate `body()`; both raise FunctionFailed."""

    def __init__(self, event: dict[str, Any]) -> None:
        self.id = str(uuid.uuid4())
        self.event = event
        self.finished = asyncio.Event()
        self._prelude: asyncio.Future[Prelude] = asyncio.get_running_loop().create_future()
        # One chunk in flight: who does not read holds the function back, as the platform does after its first 6 MB.
        self._chunks: asyncio.Queue[bytes | FunctionFailed | None] = asyncio.Queue(maxsize=1)

    async def prelude(self) -> Prelude:
        """Status and headers, as soon as the function has sent them."""
        return await self._prelude

    async def body(self) -> AsyncIterator[bytes]:
        """The body's chunks as they come."""
        while (item := await self._chunks.get()) is not None:
            if isinstance(item, FunctionFailed):
                raise item
            yield item

    def begin(self, prelude: Prelude) -> None:
        self._prelude.set_result(prelude)

    async def put(self, data: bytes) -> None:
        await self._chunks.put(data)

    async def end(self) -> None:
        self.finished.set()
        await self._chunks.put(None)

    async def fail(self, failure: FunctionFailed) -> None:
        """End it with an error, unless it has ended already."""
        if self.finished.is_set():
            return
        self.finished.set()
        if not self._prelude.done():
            self._prelude.set_exception(failure)
            self._prelude.exception()  # the caller may be gone: an error that nobody awaits is no news
        else:
            await self._chunks.put(failure)
