"""A body for a caller who wants no stream, told by one: so a backend that falls silent or dies is noticed in time.

Nothing of it is shown before it is whole, so whoever takes over may simply tell it anew.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec

from isochrone.api.requests import Ask
from isochrone.ledger.usage import usage_in
from isochrone.routing.plan import Step
from isochrone.upstream.attempt import BodyAnswer, comes_soon
from isochrone.upstream.failure import AttemptFailed
from isochrone.upstream.gathering import Gathering, can_be_gathered
from isochrone.upstream.pursuit import Won
from isochrone.upstream.relay import HEARTBEAT_SECONDS
from isochrone.upstream.splice import Join
from isochrone.upstream.stream import Read, StreamAnswer
from isochrone.upstream.telling import Again, Telling
from isochrone.upstream.transcript import Reading


def asked_of(ask: Ask, step: Step) -> Ask:
    """What this step is asked: for a stream also where the caller wants a body that may take long there."""
    if ask.stream or comes_soon(step.offer) or not step.backend.facts.assemble or not can_be_gathered(ask):
        return ask
    return ask._replace(stream=True, fields={**ask.fields, "stream": True})


async def assemble(won: Won, again: Again, ask: Ask) -> Won:
    """The attempt that told the whole answer to `ask`, with it as a body that says its usage. If it came as a stream,
    its visit has ended.

    Raises ApiError when nobody tells it to its end. Lets go of the backend whatever happens.
    """
    if isinstance(won.answer, BodyAnswer):
        return _with_usage(won, won.answer, ask)
    telling = Telling(won, again, asked=partial(asked_of, ask), is_shown=False)
    gathering = Gathering()
    try:
        while isinstance(telling.won.answer, StreamAnswer):
            try:
                await _gather(telling.answer, gathering, telling.continuation)
            except AttemptFailed as failure:
                await telling.fail(failure)
                await telling.go_on(may_continue=True)
                gathering = gathering if telling.continuation else Gathering()
            else:
                return telling.won._replace(answer=_settled(telling, gathering, ask))
        return _with_usage(telling.won, telling.won.answer, ask)
    finally:
        await telling.let_go()


async def _gather(answer: StreamAnswer, gathering: Gathering, join: Join | None) -> None:
    """All that the stream still says. Raises AttemptFailed."""
    events: Sequence[Read] | None = answer.first
    while events is not None:
        for read in join.join(events) if join else events:
            gathering.add(_chunk_of(read))
        events = await answer.next_events(HEARTBEAT_SECONDS)


def _with_usage(won: Won, answer: BodyAnswer, ask: Ask) -> Won:
    """A body passes through as it came, unless its engine does not count its tokens."""
    if answer.body.get("usage"):
        return won
    body = {**answer.body, "usage": usage_in(answer.body, ask.fields)}
    return won._replace(answer=BodyAnswer(msgspec.json.encode(body), body))


def _chunk_of(read: Read) -> dict[str, Any]:
    event, reading = read
    data = (event.data or b"").strip() if reading is not Reading.DONE else b""
    return (msgspec.json.decode(data) if data else None) or {}


def _settled(telling: Telling, gathering: Gathering, ask: Ask) -> BodyAnswer:
    telling.succeed(heard_out=True)
    usage = telling.transcript.usage or {}
    body = gathering.body(ask.operation, model=ask.model, usage=usage, now=int(time.time()))
    return BodyAnswer(msgspec.json.encode(body), body)
