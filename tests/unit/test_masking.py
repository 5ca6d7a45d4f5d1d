"""A backend's words lose the key that it was sent, and nothing else."""

from __future__ import annotations

import pytest

from isochrone.api.sse import Event
from isochrone.upstream.masking import NOTHING, Mask

SECRET = "sk-" + "0a1b2c3d" * 5
MASK = Mask({"Authorization": f"Bearer {SECRET}"})


def test_a_key_goes_from_errors_and_answers() -> None:
    said = f'{{"headers": "Bearer {SECRET}, {SECRET}"}}'.encode()
    assert MASK.error(said) == MASK.body(said) == b'{"headers": "Bearer [key], [key]"}'


def test_a_key_goes_from_events_and_their_comments() -> None:
    raw, data = f": {SECRET}\ndata: x {SECRET}\n\n".encode(), f"x {SECRET}".encode()
    assert MASK.event(Event(raw, data)) == Event(b": [key]\ndata: x [key]\n\n", b"x [key]")
    assert MASK.event(Event(f": {SECRET}\n\n".encode(), None)) == Event(b": [key]\n\n", None)


def test_what_holds_no_key_passes_as_the_object_that_it_is() -> None:
    event = Event(b"data: {}\n\n", b"{}")
    assert MASK.event(event) is event
    assert MASK.body(event.raw) is event.raw


@pytest.mark.parametrize("key", ["EMPTY", "sk-no-key-required"])
def test_a_stand_in_for_a_key_may_be_a_word_of_an_answer(key: str) -> None:
    mask, said = Mask({"Authorization": f"Bearer {key}"}), f"Pass {key} to llama.cpp".encode()
    assert mask.body(said) == said
    assert mask.event(Event(said, said)) == Event(said, said)
    assert mask.error(said) == b"Pass [key] to llama.cpp"


def test_without_a_key_nothing_is_looked_for() -> None:
    assert NOTHING.error(b"x") == NOTHING.body(b"x") == b"x"
