"""Whatever a stranger or a backend writes, reading it gives a value or an error of ours, never an accident."""

from __future__ import annotations

import json
from itertools import pairwise
from math import isfinite
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from isochrone.admission.address import AddressRule, parse_address
from isochrone.answers.codec import from_bytes
from isochrone.answers.completion import Answer, is_complete
from isochrone.answers.fingerprint import fingerprint
from isochrone.api.errors import ApiError, UpstreamRefused
from isochrone.api.requests import CHAT, parse
from isochrone.api.shape import Guard
from isochrone.api.sse import SseDecoder
from isochrone.settings import Limits
from isochrone.upstream.failure import AttemptFailed, parse_retry_after
from isochrone.upstream.splice import Splice
from isochrone.upstream.transcript import Reading, Transcript
from tests.upstream import chunk

GUARD = Guard(Limits())
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.text() | st.from_regex(r"[A-Z][a-z]{2}, \d{1,2} [A-Z][a-z]{2} \d{1,6} \d\d:\d\d:\d\d ?[A-Z+0-9]{0,5}"))
@settings(max_examples=300)
def test_any_retry_after_is_a_finite_wait_or_none(value: str) -> None:
    wait = parse_retry_after(value, now=1_800_000_000.0)
    assert wait is None or (isfinite(wait) and wait >= 0)


@given(st.text(), st.none() | st.text())
@settings(max_examples=300)
def test_any_forwarded_header_names_an_address_or_nobody(peer: str, forwarded: str | None) -> None:
    found = AddressRule(["0.0.0.0/0", "::/0"]).client_address(peer, forwarded, trust_forwarded=True)
    assert found == "" or str(parse_address(found)) == found


@given(st.binary(max_size=300) | json_values.map(lambda value: json.dumps(value).encode()))
@settings(max_examples=400)
def test_any_body_is_a_request_or_an_error_of_ours(body: bytes) -> None:
    try:
        ask = parse(CHAT, body, None, GUARD)
    except ApiError as error:
        assert error.body()
    else:
        assert fingerprint("t", ask)


@given(json_values)
@settings(max_examples=200)
def test_what_nobody_knows_survives_parsing(value: Any) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x", "extra": value}], "unknown": value}
    assert parse(CHAT, json.dumps(body).encode(), None, GUARD).fields == body


@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
@settings(max_examples=300)
def test_any_event_is_read_or_is_a_failure(data: bytes) -> None:
    transcript = Transcript(capture=True)
    try:
        assert transcript.read(data) in Reading
    except AttemptFailed as failure:
        assert failure.detail


@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
@settings(max_examples=200)
def test_any_refusal_becomes_openais_shape(sent: bytes) -> None:
    error = json.loads(UpstreamRefused(400, sent).body())["error"]
    assert {"message", "type", "code", "param"} <= set(error)


@given(st.binary(max_size=200))
@settings(max_examples=200)
def test_any_stored_bytes_are_an_answer_or_nothing(value: bytes) -> None:
    answer = from_bytes(value)
    assert answer is None or isinstance(answer, Answer)


@given(st.dictionaries(st.text(), json_values, max_size=3), json_values)
@settings(max_examples=200)
def test_any_body_of_a_backend_can_be_judged(body: dict[str, Any], choices: Any) -> None:
    assert is_complete({**body, "choices": choices}) in (True, False)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@given(texts.filter(len), st.integers(0, 60), st.lists(st.integers(0, 60), max_size=10))
@settings(max_examples=300)
def test_spliced_answer_is_exactly_the_rest(text: str, known: int, cuts: list[int]) -> None:
    """The client has the first `known` characters; the second telling comes in pieces cut anywhere."""
    told = text[:known]
    edges = [0, *sorted({cut for cut in cuts if cut < len(text)}), len(text)]
    pieces = [text[a:b] for a, b in pairwise(edges)]
    splice, transcript, decoder = Splice({"content": told}), Transcript(capture=True), SseDecoder()
    raw = b"".join([*(chunk({"content": piece}) for piece in pieces), chunk(finish="stop")])
    fresh = splice.join([(event, transcript.read(event.data)) for event in decoder.feed(raw)])
    rest = b"".join(event.raw for event, _ in fresh)
    heard = Transcript(capture=True)
    for event in SseDecoder().feed(rest):
        heard.read(event.data)
    assert told + heard.texts().get("content", "") == text
    assert heard.complete
