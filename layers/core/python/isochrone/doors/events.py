"""Lambda's HTTP events to a Request, and a Reply to what Lambda may send back. Pure: no socket, no clock.

| event | from | address |
|---|---|---|
| payload 1.0 | REST API (our edition), HTTP API | `requestContext.identity.sourceIp` |
| payload 2.0 | HTTP API, Function URL | `requestContext.http.sourceIp` |
| target group | ALB | the last hop in X-Forwarded-For, which the ALB itself puts there |

That of an ALB holds while its attribute routing.http.xff_header_processing.mode is "append", as it is unless somebody
changes it. Where the header came in several lines nobody can tell which one the ALB went on with, so it names nobody.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

import msgspec
from msgspec import Struct

from isochrone.api.errors import ApiError, status_of
from isochrone.api.exchange import ByteStream, Reply, Request

DELIMITER = b"\0" * 8
MAX_PRELUDE = 16_384  # API Gateway looks for the delimiter in the first 16 KB and gives up after that

# What describes one connection, not the reply: the platform sets its own, and refuses ours.
_HOP_BY_HOP = frozenset({"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"})


class EventError(ValueError):
    """The event is not an HTTP request in a shape that the platform sends; the message says what is missing."""


class PreludeTooLarge(ValueError):
    """The reply's headers do not fit into the 16 KB that API Gateway reads before the body."""


class _Identity(Struct, rename="camel"):
    source_ip: str


class _Http(Struct, rename="camel"):
    method: str
    source_ip: str


class _Context(Struct, rename="camel"):
    identity: _Identity | None = None
    http: _Http | None = None
    stage: str | None = None
    elb: dict[str, Any] | None = None


class HttpEvent(Struct, rename="camel"):
    """The fields of all three shapes that make a request; everything else in an event is skipped."""

    request_context: _Context
    http_method: str = ""
    path: str = ""
    raw_path: str = ""
    raw_query_string: str = ""
    headers: dict[str, str] | None = None
    multi_value_headers: dict[str, list[str]] | None = None
    query_string_parameters: dict[str, str] | None = None
    multi_value_query_string_parameters: dict[str, list[str]] | None = None
    body: str | None = None
    is_base64_encoded: bool = False


def decode(event: bytes) -> HttpEvent:
    """An event as the Runtime API sends it. Raises EventError."""
    try:
        return msgspec.json.decode(event, type=HttpEvent)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EventError(f"not an HTTP event: {error}") from None


def convert(event: Mapping[str, Any]) -> HttpEvent:
    """An event as a buffered handler receives it. Raises EventError."""
    try:
        return msgspec.convert(event, HttpEvent)
    except msgspec.ValidationError as error:
        raise EventError(f"not an HTTP event: {error}") from None


def request_of(event: HttpEvent, *, time_left: float | None) -> Request:
    """The request that an event carries; its address is the platform's own word. Raises EventError."""
    context, headers = event.request_context, _headers_of(event)
    if context.http is not None:
        method, path, peer = context.http.method, _without_stage(event.raw_path, context.stage), context.http.source_ip
        query = dict(parse_qsl(event.raw_query_string, keep_blank_values=True))
    elif context.identity is not None and event.http_method:
        method, path, peer = event.http_method, event.path, context.identity.source_ip
        query = _query_of(event)
    elif context.elb is not None and event.http_method:
        method, path, peer = event.http_method, event.path, _seen_by_balancer(event)
        query = {unquote_plus(name): unquote_plus(value) for name, value in _query_of(event).items()}
    else:
        raise EventError("not an HTTP event: no method, or nothing in requestContext that names the caller")
    _check_text(method, path, *query, *query.values())
    return Request(
        method=method,
        path=path or "/",
        headers=headers,
        body=_body_of(event),
        peer=peer,
        query=query,
        trust_forwarded=False,
        time_left=time_left,
    )


def _check_text(*texts: str) -> None:
    """What nobody can write down, neither in a reply nor in the audit."""
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        raise EventError("method, path or query: half of a character (a lone surrogate)") from None


def _query_of(event: HttpEvent) -> dict[str, str]:
    """Of a name that stands several times the last value counts, in every shape."""
    several = event.multi_value_query_string_parameters
    if several:
        return {name: values[-1] for name, values in several.items() if values}
    return event.query_string_parameters or {}


def _seen_by_balancer(event: HttpEvent) -> str:
    """The hop that an ALB saw; nobody, where it cannot be told."""
    headers = event.multi_value_headers or {name: [value] for name, value in (event.headers or {}).items()}
    lines = [line for name, values in headers.items() if name.lower() == "x-forwarded-for" for line in values]
    return lines[0].rpartition(",")[2].strip() if len(lines) == 1 else ""


def error_reply(error: ApiError) -> Reply:
    """An error in the one shape that every route answers in."""
    return Reply(status=status_of(error), headers=error.headers(), body=error.body())


def prelude(reply: Reply) -> bytes:
    """What API Gateway reads before the body of a stream: JSON, then eight NUL bytes. Raises PreludeTooLarge."""
    head = msgspec.json.encode({"statusCode": reply.status, "headers": _end_to_end(reply.headers)}) + DELIMITER
    if len(head) > MAX_PRELUDE:
        raise PreludeTooLarge(f"status and headers take {len(head)} bytes, API Gateway reads {MAX_PRELUDE}")
    return head


async def buffered(reply: Reply, event: HttpEvent | None = None) -> dict[str, Any]:
    """The proxy result of a buffered integration: the whole body as text, or in base64 when it is not UTF-8.

    An ALB that sends headers as lists takes them in no other form.
    """
    body = reply.body if reply.stream is None else await _collect(reply.stream)
    try:
        text, encoded = body.decode(), False
    except UnicodeDecodeError:
        text, encoded = b64encode(body).decode(), True
    headers = _end_to_end(reply.headers)
    in_lists = event is not None and event.request_context.elb is not None and event.multi_value_headers is not None
    shown = (
        {"multiValueHeaders": {name: [value] for name, value in headers.items()}} if in_lists else {"headers": headers}
    )
    return {"statusCode": reply.status, **shown, "body": text, "isBase64Encoded": encoded}


async def _collect(stream: ByteStream) -> bytes:
    try:
        return b"".join([chunk async for chunk in stream])
    finally:
        await stream.aclose()


def _end_to_end(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name not in _HOP_BY_HOP}


def _headers_of(event: HttpEvent) -> dict[str, str]:
    """Lower-case names; the values of a repeated name are joined as RFC 9110 section 5.3 says."""
    headers: dict[str, str] = {}
    lists = event.multi_value_headers or {name: [value] for name, value in (event.headers or {}).items()}
    for name, values in lists.items():
        key = name.lower()
        headers[key] = ", ".join([headers[key], *values] if key in headers else values)
    return headers


def _body_of(event: HttpEvent) -> bytes:
    if event.body is None:
        return b""
    try:
        return b64decode(event.body, validate=True) if event.is_base64_encoded else event.body.encode()
    except UnicodeEncodeError:
        raise EventError("body: half of a character (a lone surrogate)") from None
    except ValueError as error:
        raise EventError(f"body: isBase64Encoded, but {error}") from None


def _without_stage(path: str, stage: str | None) -> str:
    """Payload 2.0 puts a named stage in front of the path."""
    prefix = f"/{stage}"
    return path.removeprefix(prefix) if stage and (path == prefix or path.startswith(prefix + "/")) else path
