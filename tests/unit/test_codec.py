from __future__ import annotations

import zlib
from typing import Any

import pytest

from isochrone.answers import codec
from isochrone.answers.codec import COMPRESS_FROM, from_bytes, to_bytes
from isochrone.answers.completion import Answer


def answer(text: str = "Not far.", **more: Any) -> Answer:
    body = {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}
    return Answer("chat", "pool-eu", 1_800_000_000.0, body, **more)


@pytest.mark.parametrize("text", ["", "Not far.", "🌍" * 1000, "\x00\u2028" * 9000], ids=len)
def test_answer_survives_its_packed_form(text: str) -> None:
    known = answer(text, model="m", question="How far?", fresh_until=2e9, seconds=1.5, cost=0.01, request={"n": 1})
    assert from_bytes(to_bytes(known)) == known


def test_small_answer_is_kept_as_it_is_and_is_small() -> None:
    packed = to_bytes(answer())
    assert packed[:1] == b"\x03"
    assert len(packed) < 150


def test_long_answer_is_compressed() -> None:
    packed = to_bytes(answer("It depends on where you start from. " * 100))
    assert packed[:1] == b"\x04"
    assert len(packed) < COMPRESS_FROM


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\x00",
        b"\x03",
        b"\x04",
        b"\xc1",
        b"{}",
        b"\xff" * 100,
        b"\x02" + to_bytes(answer())[1:],
        b"\x05" + to_bytes(answer())[1:],
        b"\x04" + to_bytes(answer())[1:],
        to_bytes(answer())[:-2],
        to_bytes(answer())[1:],
        to_bytes(answer("🌍" * 1000))[:-2],
        to_bytes(answer("🌍" * 1000))[:40] + b"\x00" * 40,
        b"\x04" + zlib.compress(b"\x91\xa4chat"),
    ],
    ids=lambda value: repr(value[:8]),
)
def test_damaged_bytes_and_those_of_another_version_are_no_answer(value: bytes) -> None:
    assert from_bytes(value) is None


def test_few_bytes_that_claim_to_be_many_are_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "MAX_UNPACKED_BYTES", 20_000)
    bomb = b"\x04" + zlib.compress(bytes(5_000_000))
    assert len(bomb) < 20_000
    assert from_bytes(bomb) is None
    with pytest.raises(ValueError, match="more than 20000"):
        to_bytes(answer("x" * 20_000))
    assert from_bytes(to_bytes(answer("x" * 19_000))) == answer("x" * 19_000)


@pytest.mark.parametrize(
    ("value", "why"), [(2**64, "2\\*\\*64"), ("\ud800", "surrogates"), (object(), "type object")], ids=lambda value: ""
)
def test_what_has_no_packed_form_is_a_value_error(value: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        to_bytes(answer(request={"x": value}))
