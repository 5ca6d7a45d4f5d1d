"""Whoever tells an answer and wherever each one dies: the client gets it once, or a part of it and one error."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from isochrone.api.controls import Recovery
from isochrone.api.errors import NothingAlive
from isochrone.api.requests import CHAT, Ask
from isochrone.api.sse import DONE_EVENT
from isochrone.upstream.assembly import assemble
from isochrone.upstream.attempt import BodyAnswer
from isochrone.upstream.delivery import Delivery
from tests.tellings import FIELDS, STOP, Tellers, events_of, text_of, usage, usages_of
from tests.upstream import chunk

TEXT = "An isochrone joins places equally far 🌍 in time, and this answer says so twice: equally far in time."


class Teller(Struct, frozen=True):
    """One backend: its text, cut into tokens at `places`; how many events it lives; what it does with a beginning."""

    places: frozenset[int]
    lives: int | None
    prefill: bool
    retells: bool
    text: str = TEXT

    def tell(self, ask: Ask) -> Sequence[bytes]:
        """What it says to this request."""
        given_text = ask.fields["messages"][-1]["content"] if ask.continues and not self.retells else ""
        edges = [len(given_text), *sorted(at for at in self.places if len(given_text) < at < len(self.text))]
        tokens = [self.text[a:b] for a, b in pairwise([*edges, len(self.text)])]
        pieces = [chunk({"role": "assistant", "content": ""}), *(chunk({"content": token}) for token in tokens), STOP]
        whole = [*pieces, usage(100, len(tokens)), DONE_EVENT]
        return whole if self.lives is None else [*whole[:2], *whole[2 : 2 + self.lives]][: len(pieces) - 1]


# A text of fewer letters can be said twice by intent: nobody can tell whether a server retells it.
CLEARLY_RETOLD = 16

tellers = st.builds(
    Teller,
    places=st.frozensets(st.integers(CLEARLY_RETOLD, len(TEXT) - 1), max_size=12),
    lives=st.none() | st.integers(0, 14),
    prefill=st.booleans(),
    retells=st.booleans(),
)
others = st.builds(
    Teller,
    places=st.frozensets(st.integers(1, 30), max_size=4),
    lives=st.none(),
    prefill=st.just(False),
    retells=st.booleans(),
    text=st.sampled_from(["Another answer altogether.", "An isochrone is a line of equal time.", "An isochrone"]),
)
fleets = st.lists(tellers | others, min_size=1, max_size=5)


def scene_of(fleet: Sequence[Teller], *, stream: bool) -> Tellers:
    ask = Ask(CHAT, "m", stream=True, include_usage=stream, fields=FIELDS)
    takes_prefill = [i for i, teller in enumerate(fleet) if teller.prefill]
    return Tellers(*(teller.tell for teller in fleet), prefill=takes_prefill, ask=ask)


async def delivered(scene: Tellers) -> bytes:
    delivery = Delivery(
        await scene.open(0),
        scene.again,
        recovery=Recovery.SPLICE,
        include_usage=True,
        on_complete=lambda *_: None,
        on_broken=lambda: None,
    )
    told = b"".join([data async for data in delivery])
    await delivery.aclose()
    return told


@given(fleets)
@settings(max_examples=250, deadline=None)
def test_stream_is_one_answer_or_a_part_of_it_and_one_error(fleet: list[Teller]) -> None:
    scene = scene_of(fleet, stream=True)
    told = asyncio.run(delivered(scene))
    first, last = fleet[0].text, events_of(told)[-1]
    if last == "[DONE]":
        assert text_of(told) == first
        assert len(usages_of(told)) == 1
    else:
        assert first.startswith(text_of(told))
        assert last["error"]["code"] == "stream_incomplete"
    assert told.count(DONE_EVENT) == (last == "[DONE]")
    assert set(scene.in_flight) == {0}
    assert scene.closed == len(scene.asked)


@given(fleets)
@settings(max_examples=250, deadline=None)
def test_body_is_one_whole_answer_of_the_fleet_or_an_error(fleet: list[Teller]) -> None:
    async def body() -> str | None:
        scene = scene_of(fleet, stream=False)
        try:
            won = await assemble(await scene.open(0), scene.again, scene.ask)
        except NothingAlive:
            return None
        finally:
            assert set(scene.in_flight) == {0}
        assert isinstance(won.answer, BodyAnswer)
        said: str = won.answer.body["choices"][0]["message"]["content"]
        return said

    said = asyncio.run(body())
    assert (said is None) == all(teller.lives is not None for teller in fleet)
    assert said is None or said in {teller.text for teller in fleet}
