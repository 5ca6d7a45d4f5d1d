"""A streamed answer on its way to the client. When its stream dies, another attempt goes on telling it, if one can.

told by A  ──── cut ────▶  B goes on from there, or tells it again and agrees with what the client has
                                 │                              ────▶  the rest is passed on
                                 │
                                 └── says something else, or nobody answers ────▶  one error event, no [DONE]
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing

import msgspec

from isochrone.api.controls import Recovery
from isochrone.api.errors import ApiError, UpstreamFailed
from isochrone.api.sse import KEEP_ALIVE
from isochrone.upstream.failure import AttemptFailed
from isochrone.upstream.pursuit import Won
from isochrone.upstream.relay import HEARTBEAT_SECONDS, relay
from isochrone.upstream.splice import Join, Splice
from isochrone.upstream.telling import Again, Telling
from isochrone.upstream.transcript import Transcript
from isochrone.upstream.verdict import refusal_of

# An event without choices: OpenAI clients skip it, and whoever asked for restarts finds out where the text begins anew.
RESTARTED = b'data: {"object":"chat.completion.chunk","choices":[],"isochrone":{"restarted":true}}\n\n'


class Delivery:
    """The byte stream of a reply. `on_complete` hears of the attempt whose telling came to its end, and of the
    transcript of the whole answer, once; `on_broken` of an answer that nobody could bring to its end.

    Closing lets go of the backend also when nothing was read, as a bare generator would not.
    """

    def __init__(
        self,
        won: Won,
        again: Again,
        *,
        recovery: Recovery,
        include_usage: bool,
        on_complete: Callable[[Won, Transcript], None],
        on_broken: Callable[[], None],
    ) -> None:
        self._telling = Telling(won, again)
        self._recovery = recovery
        self._include_usage = include_usage
        self._on_complete = on_complete
        self._on_broken = on_broken
        self._join: Join | None = None
        self._settled = False
        self._stream = self._tell()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._stream

    async def aclose(self) -> None:
        """The client left, or has all."""
        await self._stream.aclose()
        await self._let_go()

    async def _tell(self) -> AsyncGenerator[bytes, None]:
        try:
            while True:
                try:
                    async for data in self._relay():
                        yield data
                    self._settle(heard_out=True)
                    return
                except AttemptFailed as failure:
                    await self._telling.fail(failure)
                async with aclosing(self._recover()) as meanwhile:
                    async for data in meanwhile:
                        yield data
        except ApiError as verdict:
            self._on_broken()
            yield b"data: " + self._incomplete(verdict).body() + b"\n\n"
        finally:
            await self._let_go()

    def _relay(self) -> AsyncIterator[bytes]:
        return relay(
            self._telling.answer,
            include_usage=self._include_usage,
            join=self._join,
            afterword=self._missing_usage if self._include_usage else bytes,
        )

    def _missing_usage(self) -> bytes:
        """An engine that does not count its tokens must not cost the caller what he asked for."""
        transcript = self._telling.transcript
        if transcript.usage:
            return b""
        return b"data: " + msgspec.json.encode(transcript.usage_chunk(self._telling.usage())) + b"\n\n"

    async def _recover(self) -> AsyncGenerator[bytes, None]:
        """Another attempt takes over; what the client gets meanwhile. Raises ApiError when there is none."""
        if self._recovery is Recovery.ERROR or (self._recovery is Recovery.SPLICE and not self._telling.spliceable):
            raise UpstreamFailed("No further attempt was made.")
        seeking = asyncio.create_task(self._telling.go_on(may_continue=self._recovery is Recovery.SPLICE))
        try:
            while not (await asyncio.wait([seeking], timeout=HEARTBEAT_SECONDS))[0]:
                yield KEEP_ALIVE
            seeking.result()
        finally:
            await _end(seeking)
        if self._recovery is Recovery.RESTART:
            yield RESTARTED
        else:
            self._join = self._telling.continuation or Splice(self._telling.told)

    def _incomplete(self, verdict: ApiError) -> ApiError:
        """What went wrong, and why nobody went on: the verdict on a further attempt says both. A content filter speaks
        for itself."""
        if self._telling.is_refused:
            return refusal_of(self._telling.failures[-1])
        told = "; ".join(f"{failure.backend} {failure.detail}" for failure in self._telling.failures)
        why = f". {verdict}" if told in str(verdict) else f": {told}. {verdict}"
        return UpstreamFailed(f"The answer is not complete{why}", code="stream_incomplete")

    def _settle(self, *, heard_out: bool) -> None:
        if not self._settled:
            self._settled = True
            self._telling.succeed(heard_out=heard_out)
            self._on_complete(self._telling.won, self._telling.transcript)

    async def _let_go(self) -> None:
        """Whatever became of it: a whole answer counts as one also for a client that left before its last byte."""
        if self._telling.transcript.complete and not self._join:
            self._settle(heard_out=False)
        await self._telling.let_go()


async def _end(task: asyncio.Task[None]) -> None:
    """Leave no task behind, and no exception of it that nobody looked at."""
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()
