"""One answer on its way to all who asked this process for it: generated here, or heard from the process that does.

take ─▶ lease ─────────▶ generate ─▶ land ─▶ keep ─▶ end
  │       ▲                 ▲
  │       │ dead, or failed │ over, and nothing to be had of it
  └─▶ held elsewhere: follow ─▶ land
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing
from functools import partial
from typing import Any

from isochrone.answers.completion import Answer
from isochrone.answers.flight_broadcast import INSIDE, Asker, Broadcast, Generation, Head, is_final
from isochrone.answers.flight_text import Cursor
from isochrone.answers.generation_parts import Following, Part, Telling
from isochrone.answers.generations import Claim, Ended, Generations, Held, Lease, Outcome
from isochrone.api.errors import ApiError, NothingAlive, UpstreamFailed, UpstreamRefused, status_of
from isochrone.api.sse import DONE_EVENT
from isochrone.faults import wordless

log = logging.getLogger("isochrone.answers")

_ERROR_BYTES = 16 * 1024

Rejoin = Callable[[bytes], Callable[[bytes], bytes]]


class Flight:
    """For `lead` first of all; `generations` are those of all processes, None where nobody else hears of it.

    `turn` counts the generations that failed before it. One that `is_last` has no second one behind it.
    """

    def __init__(
        self, lead: Asker, generations: Generations | None, rejoin: Rejoin, *, turn: int = 0, is_last: bool = False
    ) -> None:
        self.mark = lead.mark
        self.second: Flight | None = None
        self.is_lost = False
        self.shown = Broadcast(is_last=is_last, on_deserted=self._notice)
        self._lead = lead
        self._generations = generations
        self._rejoin = rejoin
        self._turn = turn
        self._last_turn = turn if is_last else None
        self._loop = asyncio.get_running_loop()
        self._outcome = Outcome.UNKEPT
        self._is_called_off = False
        self._is_torn = False
        self._attention: asyncio.Future[None] = self._loop.create_future()

    def suits(self, asker: Asker) -> bool:
        """May this asker rely on it? Not behind a less urgent one, nor where that has much less time."""
        now = self._loop.time()
        lasts = self._lead.ends_at - now >= (asker.ends_at - now) / 2
        has_begun = self.shown.head is not None
        return self.shown.is_over or (lasts and (has_begun or asker.priority <= self._lead.priority))

    def succeed(self, asker: Asker) -> Flight:
        """The second flight, for all who move on. After a failure it is led by whoever has the most time."""
        failed = self.shown.failure is not None
        heirs = [asker, *(self.shown.present - {self.shown.own} if failed else ())]
        lead = max(heirs, key=lambda heir: heir.ends_at)
        generations = self._generations if failed else None
        self.second = Flight(lead, generations, self._rejoin, turn=self._turn + 1, is_last=True)
        return self.second

    @property
    def is_deserted(self) -> bool:
        """It was given up because nobody was left."""
        return self.is_lost and self.shown.failure is None

    def call_off(self) -> None:
        """The process ends: other ones go on without it."""
        self._is_called_off = True
        self.shown.present.clear()
        self._notice()

    def _notice(self) -> None:
        if not self._attention.done():
            self._attention.set_result(None)

    async def fly(self) -> None:
        """From the claim to the last word. Whatever happens, nobody is left waiting."""
        try:
            await self._go()
        except ApiError as failure:
            self._fail(failure)
        except Exception as error:
            log.error("sharing an answer failed inside the edge", exc_info=wordless(error))
            self._fail(ApiError(INSIDE))
        finally:
            if not self.shown.is_over:
                self._fail(_closing())

    async def _go(self) -> None:
        claim = await self._take(self._turn)
        while isinstance(claim, Held):
            claim = await self._follow(claim)
        if self.shown.is_over:
            return
        if isinstance(claim, Ended):
            self._fail(_error_of(claim))
        else:
            await self._generate(claim)

    def _fail(self, failure: ApiError) -> None:
        self.is_lost = True
        self.shown.land(failure=failure, share=True)

    # -- who generates it

    async def _take(self, turn: int, version: int = 0) -> Claim:
        if self._generations is None:
            return None
        seconds = self._lead.ends_at - self._loop.time()
        claim = await self._generations.take(self.mark, seconds=seconds, turn=turn, version=version)
        if isinstance(claim, Lease | Held):
            self._turn = claim.turn
            self._last_turn = claim.turn + 1 if self._last_turn is None else self._last_turn
        # Somebody had it before, perhaps between our look into the store and now.
        if isinstance(claim, Lease) and claim.fence > 1 and (answer := await self._lead.recall()):
            try:
                self._land_known(answer)
            finally:
                await self._generations.end(claim, Outcome.LEFT)
        return claim

    # -- heard from another process

    async def _follow(self, held: Held) -> Claim:
        """Pass on what its holder says, until there is another claim to be made, or it has landed."""
        assert self._generations
        following = Following(self._generations, held, clock=self._loop.time)
        if self.shown.is_awaited:
            await following.begin()
        new_in = self._joining()
        while self.shown.is_awaited:
            heard = await following.hear()
            if isinstance(heard, Part):
                self._pass_on(heard, new_in)
            elif isinstance(heard, Held):
                return heard
            elif isinstance(heard, Ended):
                return await self._after(heard, is_heard_out=following.is_heard_out)
            elif following.is_silent:
                return await self._take_over(Ended(Outcome.FAILED, held.fence, held.turn, version=held.fence))
            else:
                await asyncio.sleep(following.interval)
        return Ended(Outcome.LEFT, held.fence, held.turn, 0)

    def _joining(self) -> Callable[[bytes], bytes]:
        """What is new in a stream that tells the answer anew."""
        return self._rejoin(self.shown.text.whole()) if self.shown.text.size else _all_of_it

    def _pass_on(self, part: Part, new_in: Callable[[bytes], bytes]) -> None:
        if part.headers:
            self.shown.begin(Head(200, part.headers))
        if part.said:
            self.shown.say(new_in(part.said))
        if part.said.endswith(DONE_EVENT):
            self.shown.told()

    async def _after(self, ended: Ended, *, is_heard_out: bool) -> Claim:
        """The holder has ended. If nothing is to be had of it every process goes on by itself: no queue behind it."""
        if ended.outcome is Outcome.FAILED:
            return await self._take_over(ended)
        if ended.outcome is Outcome.REFUSED:
            return ended
        is_told = self.shown.text.is_complete or is_heard_out
        if answer := await self._recall(ended):
            self._land_known(answer, is_told=is_told)
        elif is_told:
            self.shown.land(is_told=True)
        elif ended.outcome is Outcome.LEFT:
            return await self._take(ended.turn, ended.version)
        return None

    async def _recall(self, ended: Ended) -> Answer | None:
        """A holder that keeps its answer may leave nothing else behind."""
        return await self._lead.recall() if ended.outcome in (Outcome.KEPT, Outcome.LEFT) else None

    def _land_known(self, answer: Answer, *, is_told: bool = False) -> None:
        """It is known by now; who has heard the beginning of it gets the rest."""
        if self.shown.text.size and not is_told:
            self._tell_rest(answer)
        self.shown.land(answer, is_told=True)

    def _tell_rest(self, answer: Answer) -> None:
        readers = [asker for asker in self.shown.present if asker.stream]
        if readers:
            teller = max(readers, key=lambda asker: asker.include_usage)
            self.shown.say(self._joining()(teller.replay(answer).body))
        else:
            self.is_lost = True  # nobody may board what stays a beginning

    async def _take_over(self, ended: Ended) -> Claim:
        """It died, or failed: one goes on in its place, and nobody after that one."""
        if self._last_turn is not None and ended.turn >= self._last_turn:
            return ended
        return await self._take(ended.turn + 1, ended.version)

    # -- generated here

    async def _generate(self, lease: Lease | None) -> None:
        lead = self._next_lead()
        if lead is None:
            self.is_lost = True
            await self._end(lease, Outcome.LEFT)
            return
        self._lead = self.shown.own = lead
        # Who wants a body cannot tell the rest of a stream; nobody here reads that any more.
        self.is_lost = self._is_torn = not lead.stream and self.shown.text.size > 0
        generation = Generation(lease.fence if lease else None)
        telling = asyncio.create_task(self._tell(lead, generation))
        telling.add_done_callback(partial(self._land, generation))
        teller = self._teller(lease)
        try:
            await self._attend(telling, teller)
        finally:
            telling.cancel()
        self._land(generation, telling)
        await self._settle(generation, lease, teller)

    def _next_lead(self) -> Asker | None:
        """Whoever came first, or the one with the most time of those who are still here."""
        present = self.shown.present
        if self._lead in present and not self.shown.text.size:
            return self._lead
        streams = [asker for asker in present if asker.stream]
        return max(streams or present, key=lambda asker: asker.ends_at, default=None)

    async def _tell(self, lead: Asker, generation: Generation) -> None:
        reply = await lead.generate(generation)
        self.shown.begin(Head(reply.status, reply.headers, None if reply.stream else reply.body))
        if reply.stream is None:
            return
        async with aclosing(reply.stream):
            new_in = self._joining()
            async for piece in reply.stream:
                self.shown.say(new_in(piece))
                if self.shown.is_ahead:
                    await self.shown.room()

    def _land(self, generation: Generation, telling: asyncio.Task[None]) -> None:
        """Once, and at once: for what comes behind it nobody here has to wait."""
        if self.shown.is_over:
            return
        failure = None if telling.cancelled() else telling.exception()
        if failure and not isinstance(failure, ApiError):
            log.error("a shared answer failed inside the edge", exc_info=wordless(failure))
        self._outcome = _outcome(generation, failure, was_left=telling.cancelled(), has_text=self.shown.text.size > 0)
        self.is_lost = self.is_lost or self._outcome is not Outcome.UNKEPT
        self._notice()
        if self._outcome is Outcome.LEFT and self._is_called_off:
            self._fail(_closing())
        else:
            is_told = self._is_torn or (failure is None and not telling.cancelled())
            self.shown.land(generation.answer, failure, is_told=is_told)

    def _teller(self, lease: Lease | None) -> Telling | None:
        if lease is None or self._generations is None:
            return None
        text = Cursor(self.shown.text, usage=True)
        return Telling(self._generations, lease, text, self._headers, clock=self._loop.time)

    def _headers(self) -> dict[str, str] | None:
        head = self.shown.head
        return head.headers if head and head.body is None else None

    async def _attend(self, telling: asyncio.Task[None], teller: Telling | None) -> None:
        """Tell other processes, and call it off when nobody is left anywhere."""
        while not telling.done():
            await self._notified(teller.interval if teller else None)
            if teller and not telling.done():
                await teller.go_on(is_deserted=not self.shown.present)
                self.shown.heard_elsewhere(teller.is_wanted)
            if not self._is_wanted() and not telling.done():
                self.is_lost = True
                telling.cancel()
                await asyncio.wait((telling,))

    async def _notified(self, within: float | None) -> None:
        """Wait until it has landed or everybody has left, or for so many seconds."""
        alarm = self._loop.call_later(within, self._notice) if within else None
        await self._attention
        self._attention = self._loop.create_future()
        if alarm:
            alarm.cancel()

    def _is_wanted(self) -> bool:
        return bool(self.shown.present) or (self.shown.is_heard_elsewhere and not self._is_called_off)

    async def _settle(self, generation: Generation, lease: Lease | None, teller: Telling | None) -> None:
        """Others may ask for it again only when they would find what was kept."""
        if await _kept(generation):
            self._outcome = Outcome.KEPT
        if teller is None:
            return
        if teller.is_wanted or self._outcome in (Outcome.UNKEPT, Outcome.BROKEN):
            await teller.go_on()
        await self._end(lease, self._outcome, parts=0 if self._is_torn else teller.parts)

    async def _end(self, lease: Lease | None, outcome: Outcome, *, parts: int = 0) -> None:
        if lease and self._generations:
            error = _told(self.shown.failure) if self.shown.failure else None
            await self._generations.end(lease, outcome, parts=parts, error=error)


def _all_of_it(said: bytes) -> bytes:
    return said


async def _kept(generation: Generation) -> bool:
    try:
        return await generation.keep()
    except Exception as error:
        log.error("an answer could not be kept", exc_info=wordless(error))
        return False


def _outcome(generation: Generation, failure: BaseException | None, *, was_left: bool, has_text: bool) -> Outcome:
    """UNKEPT until it is kept."""
    if generation.answer:
        return Outcome.UNKEPT
    if was_left:
        return Outcome.LEFT
    if failure is None:
        return Outcome.BROKEN if generation.is_broken else Outcome.UNKEPT
    if has_text:
        return Outcome.BROKEN
    return Outcome.REFUSED if is_final(failure) else Outcome.FAILED


def _closing() -> ApiError:
    return NothingAlive("The edge is closing.")


def _told(failure: BaseException) -> dict[str, Any]:
    """A failure as its callers heard of it, for those of another process."""
    error = failure if isinstance(failure, ApiError) else ApiError(INSIDE)
    body = error.body()
    if len(body) > _ERROR_BYTES:
        body = UpstreamFailed("The error is too long to be passed on.").body()
    return {"status": status_of(error), "body": body.decode(), "retry_after": error.retry_after}


def _error_of(ended: Ended) -> ApiError:
    if not ended.error:
        return NothingAlive("The processes that were to generate this answer have died.")
    error = UpstreamRefused(ended.error["status"], ended.error["body"].encode())
    error.retry_after = ended.error["retry_after"]
    return error
