"""What no request may weigh is refused with a name, in every door alike, before any backend is asked.

BAD     bodies that are refused: name -> (body, status, code, param), by route
GOOD    their neighbours that are served, so that nothing is refused for a reason of its own
"""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isochrone.api.errors import ApiError, status_of
from isochrone.api.exchange import Request
from isochrone.api.requests import CHAT, COMPLETION, EMBEDDING, OPERATIONS, Operation, read
from isochrone.api.shape import Guard
from isochrone.doors.events import convert, request_of
from isochrone.settings import Limits, Model
from tests.faults.harness import RunningEdge, backend, running_edge
from tests.upstream import Upstream

JSON = {"content-type": "application/json"}
USER = {"role": "user", "content": "How far?"}
MOST = 200_000  # bytes, of the edge under test
PICTURE = "https://example.com/a.png"


def chat(**more: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [USER], **more}).encode()


def completion(**more: Any) -> bytes:
    return json.dumps({"model": "m", "prompt": "Once", **more}).encode()


def embedding(**more: Any) -> bytes:
    return json.dumps({"model": "m", "input": "Once", **more}).encode()


def spliced(fields: bytes) -> bytes:
    """A chat with these bytes where its last field would stand."""
    return b'{"model": "m", "messages": [{"role": "user", "content": "x"}], ' + fields + b"}"


def nested(depth: int, pair: bytes = b"[]") -> bytes:
    return spliced(b'"x": ' + pair[:1] * depth + pair[1:] * depth)


def objects(depth: int) -> bytes:
    return spliced(b'"x": ' + b'{"a": ' * depth + b"1" + b"}" * depth)


def tool(schema: Any) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": "f", "parameters": schema}}]


def form(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "f", "schema": schema}}


def image(url: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]


def refers(to: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{to}"}


SELF = {"type": "object", "properties": {"next": {"$ref": "#"}}}
TREE = {"$defs": {"node": {"properties": {"left": refers("node"), "right": refers("node")}}}, **refers("node")}
TWO = {"$defs": {"a": {"items": refers("b")}, "b": {"items": refers("a")}}, **refers("a")}
LAUGHS = {"$defs": {f"d{n}": {"anyOf": [refers(f"d{n + 1}")] * 4} for n in range(20)}, **refers("d0")}
ESCAPED = json.dumps(TREE).replace("$ref", "\\u0024r\\u0065f").encode()
SHARED = {"$defs": {"a": {"type": "string"}}, "properties": {"x": refers("a"), "y": refers("a")}}
URL = "messages[0].content[0].image_url.url"

Row = tuple[bytes, int, str, str | None]
BAD_CHATS: dict[str, Row] = {
    "a million choices": (chat(n=10**6), 400, "invalid_value", "n"),
    "nine choices": (chat(n=9), 400, "invalid_value", "n"),
    "no choice": (chat(n=0), 400, "invalid_value", "n"),
    "choices beyond all bounds": (spliced(b'"n": ' + b"9" * 400), 400, "invalid_value", "n"),
    "half a choice": (chat(n=1.5), 400, "invalid_type", "n"),
    "twenty-one alternatives": (chat(logprobs=True, top_logprobs=21), 400, "invalid_value", "top_logprobs"),
    "fewer than no alternatives": (chat(top_logprobs=-1), 400, "invalid_value", "top_logprobs"),
    "alternatives of a prompt": (chat(prompt_logprobs=10**5), 400, "invalid_value", "prompt_logprobs"),
    "alternatives as a text": (chat(top_logprobs="5"), 400, "invalid_type", "top_logprobs"),
    "logprobs as a number": (chat(logprobs=5), 400, "invalid_type", "logprobs"),
    "thousands of stops": (chat(stop=["x"] * 30_000), 400, "invalid_value", "stop"),
    "seventeen stops": (chat(stop=["x"] * 17), 400, "invalid_value", "stop"),
    "a long stop": (chat(stop="x" * 257), 400, "invalid_value", "stop"),
    "a long stop among others": (chat(stop=["a", "x" * 257]), 400, "invalid_value", "stop[1]"),
    "a stop that is no text": (chat(stop=["a", 1]), 400, "invalid_type", "stop[1]"),
    "too many stopping tokens": (chat(stop_token_ids=[1] * 1025), 400, "invalid_value", "stop_token_ids"),
    "too many biases": (chat(logit_bias={str(n): 1 for n in range(1025)}), 400, "invalid_value", "logit_bias"),
    "tokens beyond all bounds": (chat(max_tokens=10**12), 400, "invalid_value", "max_tokens"),
    "more tokens than the model holds": (chat(max_tokens=8193), 400, "invalid_value", "max_tokens"),
    "the same by its newer name": (chat(max_completion_tokens=8193), 400, "invalid_value", "max_completion_tokens"),
    "at least as many": (chat(min_tokens=8193), 400, "invalid_value", "min_tokens"),
    "no tokens": (chat(max_tokens=0), 400, "invalid_value", "max_tokens"),
    "messages without end": (chat(messages=[USER] * 51), 400, "invalid_value", "messages"),
    "an army of tools": (chat(tools=tool({}) * 129), 400, "invalid_value", "tools"),
    "an army of functions": (chat(functions=[{"name": "f"}] * 129), 400, "invalid_value", "functions"),
    "a tool that refers to itself": (chat(tools=tool(SELF)), 400, "invalid_value", "tools[0]"),
    "a tool that is a tree": (chat(tools=tool(TREE)), 400, "invalid_value", "tools[0]"),
    "two definitions in a circle": (chat(tools=tool({}) + tool(TWO)), 400, "invalid_value", "tools[1]"),
    "a tool that unfolds without measure": (chat(tools=tool(LAUGHS)), 400, "invalid_value", "tools[0]"),
    "a tool that refers to another place": (
        *(chat(tools=tool({"$ref": "http://169.254.169.254/schema"})), 400, "invalid_value", "tools[0]"),
    ),
    "a circle in disguise": (
        *(spliced(b'"tools": [{"function": {"parameters": ' + ESCAPED + b"}}]"), 400, "invalid_value", "tools[0]"),
    ),
    "a tool that is a book": (*(chat(tools=tool({"description": "x" * 70_000})), 400, "invalid_value", "tools[0]"),),
    "an old function in a circle": (
        *(chat(functions=[{"name": "f", "parameters": SELF}]), 400, "invalid_value", "functions[0]"),
    ),
    "a form in a circle": (chat(response_format=form(TREE)), 400, "invalid_value", "response_format"),
    "vLLM's form in a circle": (chat(guided_json=SELF), 400, "invalid_value", "guided_json"),
    "its newer form in a circle": (
        *(chat(structured_outputs={"json": SELF}), 400, "invalid_value", "structured_outputs"),
    ),
    "a picture in a file": (chat(messages=image("file:///etc/passwd")), 400, "invalid_value", URL),
    "a picture at the metadata": (chat(messages=image("http://169.254.169.254/x")), 400, "invalid_value", URL),
    "a picture at home": (chat(messages=image("http://localhost/x")), 400, "invalid_value", URL),
    "a picture in the VPC": (chat(messages=image("http://db.eu-west-1.compute.internal/x")), 400, "invalid_value", URL),
    "a picture at a number": (chat(messages=image("http://2852039166/x")), 400, "invalid_value", URL),
    "a picture at a hexadecimal number": (
        chat(messages=image("http://0xa9.0xfe.0xa9.0xfe/")),
        400,
        "invalid_value",
        URL,
    ),
    "a picture at IPv6's loopback": (chat(messages=image("http://[::1]/x")), 400, "invalid_value", URL),
    "a picture at a mapped address": (chat(messages=image("http://[::ffff:10.0.0.1]/")), 400, "invalid_value", URL),
    "a picture by another protocol": (chat(messages=image("gopher://example.com/")), 400, "invalid_value", URL),
    "a picture that is no text": (chat(messages=image(5)), 400, "invalid_type", URL),
    "a film in the VPC": (
        chat(messages=[{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "http://10.0.0.1/"}}]}]),
        *(400, "invalid_value", "messages[0].content[0].video_url.url"),
    ),
    "65 lists deep": (nested(64), 400, "body_too_complex", None),
    "65 objects deep": (objects(64), 400, "body_too_complex", None),
    "50,000 lists deep": (nested(50_000), 400, "invalid_json", None),
    "30,000 objects deep": (objects(25_000), 400, "invalid_json", None),
    "a model twice": (spliced(b'"model": "n"'), 400, "duplicate_field", "model"),
    "a model twice in disguise": (spliced(b'"m\\u006fdel": "n"'), 400, "duplicate_field", "model"),
    "messages twice": (spliced(b'"messages": []'), 400, "duplicate_field", "messages"),
    "an unknown field twice": (spliced(b'"x": 1, "x": 1'), 400, "duplicate_field", "x"),
    "an integer of 5,000 digits": (spliced(b'"seed": ' + b"9" * 5000), 400, "invalid_json", None),
    "NaN": (spliced(b'"temperature": NaN'), 400, "invalid_json", None),
    "infinity": (spliced(b'"temperature": -Infinity'), 400, "invalid_json", None),
    "a number beyond all bounds": (spliced(b'"temperature": 1e999'), 400, "invalid_json", None),
    "a number with a leading zero": (spliced(b'"seed": 01'), 400, "invalid_json", None),
    "half a character": (spliced(b'"user": "\\ud800"'), 400, "invalid_json", None),
    "half a character in a message": (b'{"model": "m", "messages": ["\\udfff"]}', 400, "invalid_json", None),
    "a control character": (spliced(b'"user": "\x00"'), 400, "invalid_json", None),
    "a model with a NUL": (chat(model="m\0"), 404, "model_not_found", "model"),
    "no UTF-8": (spliced(b'"user": "\xff"'), 400, "invalid_json", None),
    "a comment": (spliced(b'"user": "x" /* hidden */'), 400, "invalid_json", None),
    "something behind the end": (chat() + b"{}", 400, "invalid_json", None),
    "a byte order mark": (b"\xef\xbb\xbf" + chat(), 400, "invalid_json", None),
    "too many bytes": (chat(user="x" * MOST), 413, "body_too_large", None),
    "a completion's prompt": (chat(prompt="x"), 400, "unknown_parameter", "prompt"),
    "an embedding's input": (chat(input=None), 400, "unknown_parameter", "input"),
}
BAD_COMPLETIONS: dict[str, Row] = {
    "the best of a million": (completion(best_of=10**6), 400, "invalid_value", "best_of"),
    "alternatives": (completion(logprobs=21), 400, "invalid_value", "logprobs"),
    "a crowd of prompts": (completion(prompt=["x"] * 51), 400, "invalid_value", "prompt"),
    "some prompts, each many times": (completion(prompt=["x"] * 10, n=8), 400, "invalid_value", "prompt"),
    "more tokens than the model holds": (completion(max_tokens=8193), 400, "invalid_value", "max_tokens"),
    "a chat's messages": (completion(messages=[USER]), 400, "unknown_parameter", "messages"),
    "fewer than no tokens by a chat's name": (
        *(completion(max_completion_tokens=-9, max_tokens=99), 400, "invalid_value", "max_completion_tokens"),
    ),
    "a bound that is no number": (completion(max_completion_tokens="9"), 400, "invalid_type", "max_completion_tokens"),
}
BAD_EMBEDDINGS: dict[str, Row] = {
    "a chat's messages": (embedding(messages="x"), 400, "unknown_parameter", "messages"),
    "a crowd of inputs": (embedding(input=["x"] * 51), 400, "invalid_value", "input"),
    "a crowd of lists of tokens": (embedding(input=[[1]] * 51), 400, "invalid_value", "input"),
}
BAD = [
    pytest.param(operation, *row, id=f"{operation.name}-{name}")
    for operation, rows in ((CHAT, BAD_CHATS), (COMPLETION, BAD_COMPLETIONS), (EMBEDDING, BAD_EMBEDDINGS))
    for name, row in rows.items()
]
GOOD = {
    "eight choices": chat(n=8, max_tokens=16),
    "twenty alternatives": chat(logprobs=True, top_logprobs=20),
    "sixteen stops": chat(stop=["x" * 256] * 16),
    "all the tokens that the model holds": chat(max_tokens=8192),
    "many tools": chat(tools=tool({"type": "object"}) * 128),
    "shared definitions": chat(tools=tool(SHARED)),
    "a property called $ref": chat(tools=tool({"properties": {"$ref": {"type": "string"}}})),
    "a picture by URL": chat(messages=image(PICTURE)),
    "a picture in the body": chat(messages=image("data:image/png;base64,AAAA")),
    "64 levels": nested(63),
    "fields of a message that another message has too": chat(messages=[USER, USER], user="user"),
    "a NUL in a text": chat(messages=[{"role": "user", "content": "a\0b"}]),
    "dollars": chat(messages=[{"role": "user", "content": '"$ref": "#" costs $5'}]),
}


@pytest.fixture
async def strict(upstream: Upstream) -> AsyncIterator[RunningEdge]:
    limits = {"body_bytes": MOST, "messages": 50}
    async with running_edge(
        backend(upstream, assemble=False),
        limits=limits,
        model=[{"name": "m", "context": 8192}],
        answers={"exact": False},
    ) as edge:
        yield edge


def as_event(operation: Operation, body: bytes, headers: dict[str, str]) -> Request:
    """The same by way of API Gateway, in base64, as it sends what is not text."""
    event = {
        "httpMethod": "POST",
        "path": "/v1" + operation.path,
        "headers": headers,
        "body": base64.b64encode(body).decode(),
        "isBase64Encoded": True,
        "requestContext": {"identity": {"sourceIp": "203.0.113.7"}},
    }
    return request_of(convert(event), time_left=10.0)


@pytest.mark.parametrize(("operation", "body", "status", "code", "param"), BAD)
async def test_bad_shape_is_refused_by_name_in_every_door_before_any_backend_is_asked(
    strict: RunningEdge,
    upstream: Upstream,
    operation: Operation,
    body: bytes,
    status: int,
    code: str,
    param: str | None,
) -> None:
    answer = await strict.request("POST", "/v1" + operation.path, data=body, headers=JSON)
    assert (answer.status, answer.error["code"], answer.error["param"]) == (status, code, param)
    assert len(answer.body) < 1000
    reply = await strict.edge.handle(as_event(operation, body, JSON))
    assert (reply.status, reply.body) == (answer.status, answer.body)
    assert upstream.requests == []


@pytest.mark.parametrize("body", GOOD.values(), ids=GOOD)
async def test_neighbour_of_a_bad_shape_is_served_as_it_was_sent(
    strict: RunningEdge, upstream: Upstream, body: bytes
) -> None:
    answer = await strict.request("POST", "/v1/chat/completions", data=body, headers=JSON)
    assert answer.status == 200
    (received,) = upstream.requests
    assert received.fields == json.loads(body) | {"model": "ok"}


async def test_backend_gets_the_canonical_form_and_not_the_bytes_that_came(
    strict: RunningEdge, upstream: Upstream
) -> None:
    body = b'{ "m\\u006fdel":"m" ,\n"messages":[ {"role":"user","content":"\\u4f60"} ],"seed":1e2 }'
    assert (await strict.request("POST", "/v1/chat/completions", data=body, headers=JSON)).status == 200
    (received,) = upstream.requests
    assert received.body == '{"model":"ok","messages":[{"role":"user","content":"你"}],"seed":100.0}'.encode()


async def test_pictures_by_url_can_be_refused_and_those_in_the_body_stay(upstream: Upstream) -> None:
    async with running_edge(backend(upstream), limits={"images": "refuse"}) as edge:
        refused = await edge.chat(messages=image(PICTURE))
        assert (refused.status, refused.error["param"]) == (400, URL)
        assert (await edge.chat(messages=image("data:image/png;base64,AAAA"))).status == 200
        assert len(upstream.requests) == 1


async def test_operators_limit_of_tokens_holds_for_both_names(upstream: Upstream) -> None:
    async with running_edge(backend(upstream), limits={"max_tokens": 100}) as edge:
        for name in ("max_tokens", "max_completion_tokens"):
            above, at = ({"model": "m", "messages": [USER], name: tokens} for tokens in (101, 100))
            assert (await edge.request("POST", "/v1/chat/completions", json=above)).error["param"] == name
            assert (await edge.request("POST", "/v1/chat/completions", json=at)).status == 200


def test_larger_model_that_may_stand_in_raises_the_limit_of_tokens() -> None:
    small, large = Model(name="small", context=100, fallback=("large",)), Model(name="large", context=1000)
    unknown = Model(name="unknown", context=100, fallback=("nobody-knows",))
    guard = Guard(Limits(), (small, large, unknown))

    def is_taken(model: str, tokens: int) -> bool:
        try:
            guard.check({"model": model, "max_tokens": tokens}, b"")
        except ApiError:
            return False
        return True

    asked = [("small", 1000), ("small", 1001), ("large", 1000), ("large", 1001), ("unknown", 10**6)]
    assert [is_taken(*one) for one in asked] == [True, False, True, False, True]


# -- packed bodies ----------------------------------------------------------------------------------------------------


def bare(data: bytes) -> bytes:
    packing = zlib.compressobj(wbits=-15)
    return packing.compress(data) + packing.flush()


BOMB = gzip.compress(chat(user="x" * 50_000_000))
PACKED: dict[str, tuple[str, bytes, int, str | None]] = {
    "gzip": ("gzip", gzip.compress(chat()), 200, None),
    "gzip by its old name": ("X-GZIP", gzip.compress(chat()), 200, None),
    "deflate": ("deflate", zlib.compress(chat()), 200, None),
    "deflate without a frame": ("deflate", bare(chat()), 200, None),
    "not packed, and said so": ("identity", chat(), 200, None),
    "a bomb": ("gzip", BOMB, 413, "body_too_large"),
    "a bomb in a bomb": ("gzip", gzip.compress(BOMB), 400, "invalid_json"),
    "a bomb without a frame": ("deflate", bare(b"x" * 50_000_000), 413, "body_too_large"),
    "a body that is packed twice": ("gzip, gzip", gzip.compress(gzip.compress(chat())), 415, "unsupported_encoding"),
    "brotli": ("br", b"x", 415, "unsupported_encoding"),
    "zstandard": ("zstd", b"x", 415, "unsupported_encoding"),
    "an unknown way": ("rot13", chat(), 415, "unsupported_encoding"),
    "no gzip at all": ("gzip", chat(), 400, "invalid_body"),
    "nothing": ("gzip", b"", 400, "invalid_body"),
    "a gzip that breaks off": ("gzip", gzip.compress(chat())[:-9], 400, "invalid_body"),
    "a gzip with a wrong sum": ("gzip", gzip.compress(chat())[:-8] + bytes(8), 400, "invalid_body"),
    "something behind a gzip": ("gzip", gzip.compress(chat()) + b"{}", 400, "invalid_body"),
}


@pytest.mark.parametrize(("coding", "body", "status", "code"), PACKED.values(), ids=PACKED)
async def test_packed_body_is_read_up_to_its_limit_in_every_door_alike(
    strict: RunningEdge, upstream: Upstream, coding: str, body: bytes, status: int, code: str | None
) -> None:
    headers = {**JSON, "content-encoding": coding}
    answer = await strict.request("POST", "/v1/chat/completions", data=body, headers=headers)
    reply = await strict.edge.handle(as_event(CHAT, body, headers))
    assert (answer.status, reply.status) == (status, status)
    assert code is None or (answer.error["code"], reply.body) == (code, answer.body)
    assert len(upstream.requests) == (2 if status == 200 else 0)


async def test_stranger_cannot_make_an_edge_unpack_anything(upstream: Upstream) -> None:
    async with running_edge(backend(upstream), auth={"required": True}) as edge:
        headers = {**JSON, "content-encoding": "gzip"}
        answer = await edge.request("POST", "/v1/chat/completions", data=b"no gzip at all", headers=headers)
        assert answer.status == 401


# -- any body ---------------------------------------------------------------------------------------------------------

LIMITED = Guard(Limits(body_bytes=5000, depth=8), (Model(name="m", context=100),))
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
NAMES = (
    *("model", "messages", "prompt", "input", "n", "best_of", "stop", "tools", "functions", "max_tokens", "min_tokens"),
    *("logprobs", "top_logprobs", "prompt_logprobs", "response_format", "guided_json", "structured_outputs", "stream"),
    *("logit_bias", "stop_token_ids", "json_schema", "max_completion_tokens", "stream_options"),
)
parts = st.dictionaries(st.sampled_from(["type", "image_url", "text", "$ref", "parameters", "function"]), anything)
bodies = st.fixed_dictionaries(
    {},
    optional={
        **{name: anything | st.just("m") | st.just("$ref") for name in NAMES},
        "messages": st.lists(st.fixed_dictionaries({"role": st.text()}, optional={"content": st.lists(parts)})),
        "tools": st.lists(parts, max_size=3),
    },
)
packings = st.sampled_from([None, "gzip", "deflate", "identity", "br", "\x00"])


@given(st.binary(max_size=200) | bodies.map(lambda body: json.dumps(body).encode()), packings, st.booleans())
@settings(max_examples=400, deadline=None)
def test_any_body_is_a_request_or_an_error_of_ours(body: bytes, packing: str | None, packed: bool) -> None:
    sent = gzip.compress(body) if packed and packing == "gzip" else body
    headers = {"content-encoding": packing} if packing else {}
    for operation in OPERATIONS:
        request = Request(method="POST", path="/", headers=headers, body=sent, peer="")
        try:
            assert read(operation, request, LIMITED).choices >= 0
        except ApiError as error:
            assert 400 <= status_of(error) < 500


def test_a_recursive_schema_is_told_that_it_is_one_and_what_to_do() -> None:
    with pytest.raises(ApiError, match=r"refers to itself \('#'\): recursive schemas are not taken here.*levels that"):
        read(CHAT, Request(method="POST", path="", headers=JSON, body=chat(tools=tool(SELF)), peer=""), Guard(Limits()))
