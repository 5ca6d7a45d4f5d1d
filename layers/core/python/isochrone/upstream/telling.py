"""One answer, told by one attempt after the other: who tells it now, what was told of it, and what it cost.

told by A  ──── cut ────▶  B is given what was told, where it takes a prefill, and tells the rest
                                 │
                                 └── else B is asked again for the whole
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from isochrone.api.requests import Ask
from isochrone.ledger.usage import estimate
from isochrone.routing.plan import Step
from isochrone.upstream.attempt import BodyAnswer
from isochrone.upstream.failure import AttemptFailed, Cause
from isochrone.upstream.prefill import continued
from isochrone.upstream.pursuit import Won
from isochrone.upstream.splice import Continuation
from isochrone.upstream.stream import StreamAnswer
from isochrone.upstream.tally import tokens_heard, usage_heard, usage_of_whole
from isochrone.upstream.transcript import Transcript
from isochrone.upstream.verdict import is_final, refusal_of

Again = Callable[[int, Sequence[AttemptFailed], Callable[[Step], Ask]], Awaitable[Won]]


class Telling:
    """`again(attempts made, their failures, what to ask each step)` gives the next attempt, or raises ApiError.

    `asked` is what a step is asked that is to tell the whole. `is_shown`: the client has already seen what was told, so
    that the next one has to agree with it.

    `told` is what was said so far by field, in `told_tokens`; another attempt can join to it while it is `spliceable`.
    `continuation` says how the attempt of now goes on from it, None when that tells the answer anew.
    """

    def __init__(
        self, won: Won, again: Again, *, asked: Callable[[Step], Ask] | None = None, is_shown: bool = True
    ) -> None:
        self.won = won
        self.failures = list(won.failures)
        self.told: dict[str, str] = {}
        self.told_tokens = 0
        self.spliceable = True
        self.continuation: Continuation | None = None
        self._ask = ask = won.ask
        self._asked = asked or (lambda _: ask)
        self._is_shown = is_shown
        self._again = again
        self._storable = True

    @property
    def answer(self) -> StreamAnswer:
        """The stream of the attempt that tells it now."""
        assert isinstance(self.won.answer, StreamAnswer)
        return self.won.answer

    @property
    def transcript(self) -> Transcript:
        """What that attempt has said."""
        return self.answer.transcript

    @property
    def is_refused(self) -> bool:
        """Has its backend said, in the middle of it, that nobody is to tell this answer?"""
        return bool(self.failures) and is_final(self.failures[-1], self._ask.model)

    async def fail(self, failure: AttemptFailed) -> None:
        """The attempt of now ends with this failure; what it told stays told."""
        self.won.visit.failed(failure, usage_heard(self.transcript, self.won.ask))
        self.failures.append(failure)
        await self.answer.release()
        # Of an answer that disagreed nothing was let through, nor of one that may have been about to tell all anew.
        if failure.cause is not Cause.DIVERGED and not (self.continuation and self.continuation.is_pending):
            self._remember()

    def _remember(self) -> None:
        said, tokens = self.transcript.texts(), tokens_heard(self.transcript)
        if not (self._is_shown or self._is_rest()):
            self.told, self.told_tokens, self.spliceable, self._storable = {}, 0, True, True
        if self._is_rest():
            said = {field: self.told.get(field, "") + said.get(field, "") for field in {**self.told, **said}}
            tokens += self.told_tokens
        for field, text in said.items():
            self.told[field] = max(self.told.get(field, ""), text, key=len)
        self.told_tokens = max(self.told_tokens, tokens)
        self.spliceable = self.spliceable and self.transcript.spliceable
        # What another model told belongs to no answer of the one that was asked for.
        is_its_own = self.won.visit.step.model == self._ask.model
        self._storable = self._storable and self.transcript.storable and is_its_own

    def _is_rest(self) -> bool:
        return self.continuation is not None and not self.continuation.retold

    async def go_on(self, *, may_continue: bool) -> None:
        """The next attempt takes over. Raises ApiError when there is none, or may be none."""
        if self.is_refused:
            raise refusal_of(self.failures[-1])
        ask_for = self._asked_to_go_on if may_continue and self.spliceable else self._asked
        self.won = await self._again(self.won.made, self.failures, ask_for)
        self.failures += self.won.failures[len(self.failures) :]
        self.continuation = Continuation(self.told, tokens=self.told_tokens) if self.won.ask.continues else None

    def _asked_to_go_on(self, step: Step) -> Ask:
        facts = step.backend.facts
        rest = continued(self._ask, self.told, facts.engine, tokens=self.told_tokens) if facts.prefill else None
        return rest or self._asked(step)

    def usage(self) -> dict[str, Any]:
        """The usage of the whole answer: of its prompt once, and of what it consists of."""
        own, is_rest = self.transcript, self._is_rest()
        if own.usage:
            return usage_of_whole(own.usage, told_before=self.told_tokens) if is_rest else own.usage
        said, tokens = "".join(own.texts().values()), own.tokens
        if is_rest:
            said, tokens = "".join(self.told.values()) + said, self.told_tokens + tokens
        return estimate(self._ask.fields, said, events=tokens)

    def succeed(self, *, heard_out: bool) -> None:
        """The attempt of now told the answer to its end: from here on, its transcript is that of the whole answer.

        Not `heard_out`: nobody waited for what the engine says of usage behind its last word.
        """
        usage = self.usage()
        offer = self.won.visit.step.offer
        offer.gives_reasons = offer.gives_reasons or bool(self.transcript.finish_reason)
        self.won.visit.succeeded(usage_heard(self.transcript, self.won.ask))
        if self._is_rest():
            self.transcript.begin_with(self.told, storable=self._storable)
        if heard_out or self.transcript.usage:
            self.transcript.usage = usage

    async def let_go(self) -> None:
        """However it ended: the attempt of now is over, its connection given back. Does nothing the second time."""
        if isinstance(self.won.answer, BodyAnswer):
            return
        self.won.visit.abandoned(usage_heard(self.transcript, self.won.ask))
        await self.answer.release()
