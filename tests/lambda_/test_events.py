"""Lambda's events become requests, and replies what Lambda may send back."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.api.errors import Saturated
from isochrone.api.exchange import Reply, Request
from isochrone.doors.events import (
    DELIMITER,
    MAX_PRELUDE,
    EventError,
    PreludeTooLarge,
    buffered,
    convert,
    decode,
    error_reply,
    prelude,
    request_of,
)

REST: dict[str, Any] = {
    "resource": "/{proxy+}",
    "httpMethod": "POST",
    "path": "/v1/chat/completions",
    "headers": {"Host": "api.example.com", "X-Twice": "b"},
    "multiValueHeaders": {"Host": ["api.example.com"], "X-Twice": ["a", "b"]},
    "queryStringParameters": {"limit": "3"},
    "multiValueQueryStringParameters": {"limit": ["3"]},
    "body": '{"model": "深"}',
    "isBase64Encoded": False,
    "requestContext": {"stage": "live", "identity": {"sourceIp": "203.0.113.7", "userAgent": "x"}},
}
HTTP_V1 = {**REST, "version": "1.0"}
FUNCTION_URL: dict[str, Any] = {
    "version": "2.0",
    "rawPath": "/v1/chat/completions",
    "rawQueryString": "limit=3",
    "headers": {"host": "api.example.com", "x-twice": "a, b"},
    "body": '{"model": "深"}',
    "isBase64Encoded": False,
    "requestContext": {"stage": "$default", "http": {"method": "POST", "path": "/x", "sourceIp": "203.0.113.7"}},
}
ALB: dict[str, Any] = {
    "httpMethod": "POST",
    "path": "/v1/chat/completions",
    "headers": {"host": "api.example.com", "x-twice": "a, b", "x-forwarded-for": "198.51.100.7, 203.0.113.7"},
    "queryStringParameters": {"limit": "3"},
    "body": '{"model": "深"}',
    "isBase64Encoded": False,
    "requestContext": {"elb": {"targetGroupArn": "arn:aws:elasticloadbalancing:eu-west-1:1:targetgroup/edge/1"}},
}
HTTP_V2_NAMED_STAGE = {
    **FUNCTION_URL,
    "rawPath": "/live/v1/chat/completions",
    "requestContext": {**FUNCTION_URL["requestContext"], "stage": "live"},
}
BASE64 = {**REST, "body": "eyJtb2RlbCI6ICLmt7EifQ==", "isBase64Encoded": True}
HEADERS_ONLY = {**REST, "multiValueHeaders": None, "headers": {"HOST": "api.example.com", "X-Twice": "a, b"}}
SPLIT_CASE = {**REST, "multiValueHeaders": {"Host": ["api.example.com"], "X-Twice": ["a"], "x-twice": ["b"]}}


def request(event: dict[str, Any]) -> Request:
    return request_of(convert(event), time_left=None)


@pytest.mark.parametrize(
    "event",
    [REST, HTTP_V1, FUNCTION_URL, HTTP_V2_NAMED_STAGE, BASE64, HEADERS_ONLY, SPLIT_CASE],
    ids=["rest", "http-v1", "function-url", "named-stage", "base64", "headers-only", "split-case"],
)
def test_every_shape_of_event_gives_the_same_request(event: dict[str, Any]) -> None:
    expected = Request(
        method="POST",
        path="/v1/chat/completions",
        headers={"host": "api.example.com", "x-twice": "a, b"},
        body='{"model": "深"}'.encode(),
        peer="203.0.113.7",
        query={"limit": "3"},
        trust_forwarded=False,
        time_left=2.5,
    )
    assert request_of(convert(event), time_left=2.5) == expected
    assert request_of(decode(json.dumps(event).encode()), time_left=2.5) == expected


@pytest.mark.parametrize("header", ["X-Forwarded-For", "X-Real-IP", "Forwarded", "CF-Connecting-IP", "True-Client-IP"])
@pytest.mark.parametrize("event", [REST, FUNCTION_URL], ids=["rest", "function-url"])
def test_no_header_changes_the_address(event: dict[str, Any], header: str) -> None:
    forged = {**event, "headers": {header: "133.11.0.1"}, "multiValueHeaders": {header: ["133.11.0.1"]}}
    assert request(forged).peer == "203.0.113.7"
    assert request(forged).trust_forwarded is False


@pytest.mark.parametrize(("sent", "path"), [("/a%20b", "/a%20b"), ("/%2e%2e", "/%2e%2e"), ("", "/")])
def test_path_is_left_as_it_came_for_the_edge_to_read(sent: str, path: str) -> None:
    assert request({**REST, "path": sent}).path == path


def test_stage_is_not_cut_out_of_a_path_that_only_begins_like_it() -> None:
    assert request({**HTTP_V2_NAMED_STAGE, "rawPath": "/lively"}).path == "/lively"


def test_event_without_a_body_has_an_empty_one() -> None:
    assert request({**REST, "body": None}).body == b""


def test_last_one_of_several_values_counts_in_every_shape() -> None:
    several = {"limit": ["9", "3"], "q": ["%26"]}
    rest = {**REST, "queryStringParameters": {"limit": "3", "q": "%26"}, "multiValueQueryStringParameters": several}
    assert request(rest).query == {"limit": "3", "q": "%26"}
    assert request({**FUNCTION_URL, "rawQueryString": "limit=9&limit=3&q=%2526"}).query == {"limit": "3", "q": "%26"}
    assert request({**ALB, "multiValueQueryStringParameters": several}).query == {"limit": "3", "q": "&"}


async def test_balancer_that_sends_lists_gets_lists() -> None:
    reply = Reply(status=200, headers={"a": "b"}, body=b"x")
    assert (await buffered(reply, convert(ALB)))["headers"] == {"a": "b"}
    lists = await buffered(reply, convert({**ALB, "headers": None, "multiValueHeaders": {"host": ["e"]}}))
    assert (lists["multiValueHeaders"], "headers" in lists) == ({"a": ["b"]}, False)
    assert "headers" in await buffered(reply, convert(REST))


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"httpMethod": "GET", "path": "/", "headers": {}, "requestContext": {}},
        {"Records": [{"eventSource": "aws:sqs"}]},
        {"source": "aws.events", "detail": {}},
        {**REST, "path": 7},
        {**REST, "requestContext": {"identity": {}}},
        {**REST, "body": "not base64!", "isBase64Encoded": True},
        {**REST, "body": "深", "isBase64Encoded": True},
        {**REST, "body": "\ud800"},
    ],
    ids=[
        "empty",
        "nobody-named",
        "sqs",
        "schedule",
        "number-as-path",
        "no-address",
        "bad-base64",
        "no-ascii-base64",
        "lone-surrogate",
    ],
)
def test_event_that_is_no_http_request_is_refused(event: dict[str, Any]) -> None:
    with pytest.raises(EventError):
        request(event)


@pytest.mark.parametrize(
    "change",
    [
        {"path": "/v1/\ud800"},
        {"httpMethod": "G\udfff"},
        {"multiValueQueryStringParameters": {"\ud800": ["x"]}},
        {"multiValueQueryStringParameters": {"x": ["\ud800"]}},
    ],
)
def test_half_a_character_is_refused_where_a_reply_or_the_audit_would_say_it(change: dict[str, Any]) -> None:
    with pytest.raises(EventError, match="lone surrogate"):
        request({**REST, **change})


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"null", b"\xff"])
def test_bytes_that_are_no_event_are_refused(raw: bytes) -> None:
    with pytest.raises(EventError):
        decode(raw)


texts = st.text(st.characters(), max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
)


@given(st.dictionaries(st.sampled_from([*REST, *FUNCTION_URL]), json_values), st.sampled_from([REST, FUNCTION_URL]))
def test_event_bent_in_any_way_is_a_request_or_refused(change: dict[str, Any], event: dict[str, Any]) -> None:
    for read in (convert, lambda bent: decode(json.dumps(bent).encode())):
        with suppress(EventError):
            assert request_of(read({**event, **change}), time_left=None).trust_forwarded is False


def test_prelude_is_json_and_eight_nul_bytes() -> None:
    head = prelude(Reply(status=201, headers={"x-request-id": "r1", "transfer-encoding": "chunked"}))
    assert head.endswith(DELIMITER)
    assert json.loads(head.removesuffix(DELIMITER)) == {"statusCode": 201, "headers": {"x-request-id": "r1"}}


def test_prelude_may_fill_16_kb_with_its_delimiter_and_not_a_byte_more() -> None:
    def head(size: int) -> bytes:
        return prelude(Reply(status=200, headers={"x": "y" * size}))

    room = MAX_PRELUDE - len(head(0))
    assert len(head(room)) == 16_384
    with pytest.raises(PreludeTooLarge, match="16385"):
        head(room + 1)


async def chunks(*parts: bytes) -> AsyncGenerator[bytes, None]:
    for part in parts:
        yield part


async def test_buffered_result_holds_the_whole_stream_as_text() -> None:
    text = "深い".encode()
    result = await buffered(Reply(status=200, headers={"a": "b"}, stream=chunks(text[:2], text[2:])))
    assert result == {"statusCode": 200, "headers": {"a": "b"}, "body": "深い", "isBase64Encoded": False}


async def test_buffered_result_is_in_base64_only_when_it_is_not_text() -> None:
    result = await buffered(Reply(status=200, headers={}, body=b"\xff\x00"))
    assert (result["body"], result["isBase64Encoded"]) == ("/wA=", True)


def test_error_reply_has_the_one_shape() -> None:
    reply = error_reply(Saturated("Every backend is full.", retry_after=1.2))
    assert (reply.status, reply.headers["retry-after"]) == (429, "2")
    assert set(json.loads(reply.body)["error"]) == {"message", "type", "code", "param"}
