"""What Lambda and API Gateway demand of a streamed response, as pure checks. Each violation is one sentence."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

DELIMITER = b"\0" * 8
PRELUDE_LIMIT = 16 * 1024
RESPONSE_TYPE = "application/vnd.awslambda.http-integration-response"
ERROR_TYPE = "lambda-runtime-function-error-type"
ERROR_BODY = "lambda-runtime-function-error-body"


class Violation(Exception):
    """The runtime broke the protocol; the message says which rule."""


class Prelude(NamedTuple):
    """Status and headers of a streamed reply."""

    status: int
    headers: dict[str, str]


class PreludeReader:
    """Feed it the body's chunks; it gives the prelude once it is whole."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> tuple[Prelude, bytes] | None:
        """(prelude, first bytes of the body), or None while more is needed. Raises Violation."""
        self._held += data
        end = self._held.find(DELIMITER)
        if end < 0 and len(self._held) < PRELUDE_LIMIT:
            return None
        if end < 0 or end + len(DELIMITER) > PRELUDE_LIMIT:
            raise Violation(f"no delimiter of 8 NUL bytes in the first {PRELUDE_LIMIT} bytes")
        return parse_prelude(self._held[:end]), self._held[end + len(DELIMITER) :]


def parse_prelude(text: bytes) -> Prelude:
    """Raises Violation unless it is JSON with an HTTP status and headers of text."""
    try:
        document = json.loads(text)
    except ValueError:
        raise Violation("the prelude is not JSON") from None
    status = document.get("statusCode") if isinstance(document, dict) else None
    if not isinstance(status, int) or not 100 <= status <= 599:
        raise Violation(f"the prelude's statusCode is {status!r}")
    headers = document.get("headers", {})
    if not all(isinstance(value, str) for value in headers.values()):
        raise Violation("a header in the prelude is not text")
    return Prelude(status, headers)


def check_response_head(headers: Mapping[str, str], *, echo: str) -> None:
    """Raises Violation when the head of a streamed POST is wrong; `echo` is the invocation id that must come back."""
    wanted = {
        "lambda-runtime-function-response-mode": "streaming",
        "content-type": RESPONSE_TYPE,
        "transfer-encoding": "chunked",
        "lambda-runtime-invocation-id": echo,
    }
    for name, value in wanted.items():
        if headers.get(name) != value:
            raise Violation(f"{name} is {headers.get(name)!r}, not {value!r}")
    if "content-length" in headers:
        raise Violation("content-length stands beside transfer-encoding")


def check_trailers(trailers: Mapping[str, str], *, announced: str) -> dict[str, Any] | None:
    """The error that trailers report, None without trailers. Raises Violation."""
    if not trailers:
        return None
    names = {name.strip().lower() for name in announced.split(",")}
    if unannounced := set(trailers) - names:
        raise Violation(f"trailers not announced in the head: {sorted(unannounced)}")
    try:
        error = json.loads(base64.b64decode(trailers[ERROR_BODY], validate=True))
    except (KeyError, ValueError):
        raise Violation(f"{ERROR_BODY} is missing or is not JSON in base64") from None
    if error.get("errorType") != trailers.get(ERROR_TYPE):
        raise Violation(f"{ERROR_TYPE} and the errorType in the body differ")
    return dict(error)
