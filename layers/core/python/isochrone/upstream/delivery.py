"""An answer on its way to the client. When its stream dies, another attempt goes on telling it, if one can.

told by A  ──── cut ────▶  asked again: B  ──── agrees with what the client has ────▶  the rest is passed on
                                 │
                                 └── says something else, or nobody answers ────▶  one error event, no [DONE]
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence

from isochrone.api.controls import Recovery
from isochrone.api.errors import ApiError, UpstreamFailed
from isochrone.upstream.failure import AttemptFailed
from isochrone.upstream.pursuit import Won
from isochrone.upstream.relay import relay
from isochrone.upstream.splice import Splice
from isochrone.upstream.stream import StreamAnswer
from isochrone.upstream.transcript import Transcript

# An event without choices: OpenAI clients skip it, and whoever asked for restarts finds out where the text begins anew.
RESTARTED = b'data: {"object":"chat.completion.chunk","choices":[],"isochrone":{"restarted":true}}\n\n'

Again = Callable[[int, Sequence[AttemptFailed]], Awaitable[Won]]


class Delivery:
    """The byte stream of a reply. `again(attempts made, their failures)` gives the next attempt or raises ApiError;
    `on_complete` hears of the attempt whose telling came to its end, once.

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
        self._won = won
        self._again = again
        self._recovery = recovery
        self._include_usage = include_usage
        self._on_complete = on_complete
        self._on_broken = on_broken
        self._told: dict[str, str] = {}
        self._failures: list[AttemptFailed] = []
        self._splice: Splice | None = None
        self._settled = False
        self._stream = self._tell()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._stream

    async def aclose(self) -> None:
        """The client left, or has all."""
        await self._stream.aclose()
        await self._let_go()

    @property
    def _answer(self) -> StreamAnswer:
        assert isinstance(self._won.answer, StreamAnswer)
        return self._won.answer

    async def _tell(self) -> AsyncGenerator[bytes, None]:
        try:
            while True:
                try:
                    async for data in relay(self._answer, include_usage=self._include_usage, splice=self._splice):
                        yield data
                    self._settle()
                    return
                except AttemptFailed as failure:
                    broken = await self._recover(failure)
                if broken:
                    self._on_broken()
                    yield b"data: " + broken.body() + b"\n\n"
                    return
                if self._recovery is Recovery.RESTART:
                    yield RESTARTED
                else:
                    self._splice = Splice(self._told)
        finally:
            await self._let_go()

    async def _recover(self, failure: AttemptFailed) -> ApiError | None:
        """Another attempt takes over: None. Or what the client is told: then nobody could."""
        visit, transcript = self._won.visit, self._answer.transcript
        failure.backend = visit.step.backend.facts.name
        self._failures.append(failure)
        visit.failed(failure, transcript.usage)
        await self._answer.release()
        if self._recovery is Recovery.ERROR or (self._recovery is Recovery.SPLICE and not transcript.spliceable):
            return self._incomplete()
        for field, text in transcript.texts().items():
            self._told[field] = max(self._told.get(field, ""), text, key=len)
        try:
            self._won = await self._again(visit.number, self._failures)
        except ApiError:
            return self._incomplete()
        return None

    def _incomplete(self) -> ApiError:
        told = "; ".join(f"{failure.backend} {failure.detail}" for failure in self._failures)
        return UpstreamFailed(f"The answer is not complete: {told}.", code="stream_incomplete")

    def _settle(self) -> None:
        if not self._settled:
            self._settled = True
            self._on_complete(self._won, self._answer.transcript)

    async def _let_go(self) -> None:
        """Whatever became of it: a whole answer counts as one also for a client that left before its last byte."""
        if self._answer.transcript.complete and not self._splice:
            self._settle()
        self._won.visit.abandoned(self._answer.transcript.usage)
        await self._answer.release()
