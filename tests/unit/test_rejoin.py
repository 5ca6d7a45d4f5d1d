"""A stream that tells an answer anew, joined to what another process told of it."""

from __future__ import annotations

import pytest

from isochrone.api.errors import UpstreamFailed
from isochrone.upstream.rejoin import Rejoin
from tests.flights import STREAM
from tests.tellings import text_of
from tests.upstream import DONE, KEEP_ALIVE, REASONING, TEXT, chunk, event, words

WHOLE = b"".join(STREAM)


@pytest.mark.parametrize("told", range(len(STREAM) + 1))
@pytest.mark.parametrize("together", [True, False])
def test_what_was_told_and_what_is_new_make_one_answer(told: int, together: bool) -> None:
    beginning = b"".join(STREAM[:told])
    rejoin = Rejoin(beginning)
    rest = rejoin(WHOLE) if together else b"".join(map(rejoin, STREAM))
    assert text_of(beginning + rest) == TEXT
    assert (beginning + rest).count(DONE) == (beginning + rest).count(b'"usage"') == 1
    assert (beginning + rest).count(b'"finish_reason": "stop"') + rest.count(b'"finish_reason":"stop"') == 1


def test_other_cuts_of_the_same_text_are_joined_too() -> None:
    pieces = [TEXT[at : at + 5] for at in range(0, len(TEXT), 5)]
    beginning = b"".join(STREAM[:4])
    rest = Rejoin(beginning)(b"".join([*words(pieces), *STREAM[-3:]]))
    assert text_of(beginning + rest) == TEXT


def test_comments_between_the_words_do_not_matter() -> None:
    beginning = KEEP_ALIVE.join(STREAM[:4])
    assert text_of(beginning + Rejoin(beginning)(KEEP_ALIVE + WHOLE)) == TEXT


def test_thoughts_are_joined_as_well_as_words() -> None:
    whole = [*words(REASONING, "reasoning_content"), *STREAM[1:]]
    beginning = b"".join(whole[:3])
    rest = Rejoin(beginning)(b"".join(whole))
    assert text_of(beginning + rest, "reasoning_content") == "".join(REASONING)


@pytest.mark.parametrize(
    "other", [[*words(("Another ", "answer.")), *STREAM[-3:]], [*words(("An ",)), *STREAM[-3:]]], ids=["other", "short"]
)
def test_another_answer_is_refused(other: list[bytes]) -> None:
    with pytest.raises(UpstreamFailed, match="not complete"):
        Rejoin(b"".join(STREAM[:4]))(b"".join(other))


@pytest.mark.parametrize(
    "told",
    [event({"error": {"message": "cut"}}), b"data: {\n\n", chunk({"content": "a"}) + chunk({"content": "b"}, index=1)],
    ids=["error", "garbage", "two choices"],
)
def test_nothing_is_joined_to_what_is_no_beginning_of_one_text(told: bytes) -> None:
    with pytest.raises(UpstreamFailed, match="not complete"):
        Rejoin(told)
