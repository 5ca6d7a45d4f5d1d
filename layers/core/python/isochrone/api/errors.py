"""Every way a request can end without an answer, drawn once, in OpenAI's error shape.

    ApiError
    ├── BadRequest            400  the body is wrong; `param` names the field
    ├── ContentRefused        400  a rule for contents, or a moderation, says no
    ├── Unauthorized          401  no key, or one that is not known
    ├── Forbidden             403  known, but not from this address, not for this model, or a policy says no
    ├── NotFound              404  no such path or model
    ├── MethodNotAllowed      405
    ├── NotCached             404  the caller asked for `x-isochrone-cache: only` and it is not known
    ├── BodyTooSlow           408  the body did not come in time (local server)
    ├── BodyTooLarge          413
    ├── UrlTooLong            414
    ├── WrongContentType      415
    ├── UpstreamRefused       4xx  the backend refused the request, or has no such route (501); its words are passed on
    ├── NotInstalled          501  light work whose libraries are not there
    ├── HeadersTooLarge       431  more or longer headers than are read
    ├── LimitReached          429  the caller has used what it may; `retry-after` says when it may again
    ├── Saturated             429  every eligible backend is full or asks to wait
    ├── UpstreamFailed        502  every backend is set up wrongly (key, model); or, inside a stream, it ended too early
    ├── KeysUnavailable       503  nobody can tell now whether this key is good
    ├── PoliciesUnavailable   503  nobody can tell now what is allowed
    ├── NothingAlive          503  every attempt failed otherwise: not reached, or answered with an error
    └── DeadlinePassed        504  no answer within the request's time, or the last backend was silent

`body()` is the one place where an error becomes JSON, for a reply and for the last event of a stream alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec


class ApiError(Exception):
    """An error that the caller sees: `message` is for them, never about our insides."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    default_code: ClassVar[str | None] = None

    def __init__(
        self, message: str, *, code: str | None = None, param: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.param = param
        self.retry_after = retry_after

    def body(self) -> bytes:
        """`{"error": {"message", "type", "code", "param"}}`"""
        error = {"message": self.message, "type": self.type, "code": self.code, "param": self.param}
        return msgspec.json.encode({"error": error})

    def headers(self) -> dict[str, str]:
        """Content type, and `retry-after` (whole seconds, rounded up) where waiting helps."""
        headers = {"content-type": "application/json"}
        if self.retry_after is not None:
            headers["retry-after"] = str(max(1, -int(-self.retry_after // 1)))
        return headers


class BadRequest(ApiError):
    status, type, default_code = 400, "invalid_request_error", "invalid_value"


class ContentRefused(ApiError):
    status, type, default_code = 400, "invalid_request_error", "content_policy_violation"


class Unauthorized(ApiError):
    status, type, default_code = 401, "authentication_error", "invalid_api_key"

    def headers(self) -> dict[str, str]:
        return {**super().headers(), "www-authenticate": "Bearer"}


class Forbidden(ApiError):
    status, type, default_code = 403, "permission_error", "forbidden"


class NotFound(ApiError):
    status, type, default_code = 404, "invalid_request_error", "not_found"


class MethodNotAllowed(ApiError):
    status, type, default_code = 405, "invalid_request_error", "method_not_allowed"

    def __init__(self, message: str, *, allow: str) -> None:
        super().__init__(message)
        self.allow = allow

    def headers(self) -> dict[str, str]:
        return {**super().headers(), "allow": self.allow}


class NotCached(ApiError):
    status, type, default_code = 404, "invalid_request_error", "not_cached"


class BodyTooSlow(ApiError):
    status, type, default_code = 408, "timeout_error", "body_too_slow"


class BodyTooLarge(ApiError):
    status, type, default_code = 413, "invalid_request_error", "body_too_large"


class UrlTooLong(ApiError):
    status, type, default_code = 414, "invalid_request_error", "url_too_long"


class WrongContentType(ApiError):
    status, type, default_code = 415, "invalid_request_error", "unsupported_media_type"


class NotInstalled(ApiError):
    status, type, default_code = 501, "server_error", "not_installed"


class HeadersTooLarge(ApiError):
    status, type, default_code = 431, "invalid_request_error", "headers_too_large"


class LimitReached(ApiError):
    """`also` are headers that say how much is left, of which limit."""

    status, type, default_code = 429, "rate_limit_error", "rate_limit_exceeded"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        retry_after: float | None = None,
        also: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, code=code, retry_after=retry_after)
        self.also = also or {}

    def headers(self) -> dict[str, str]:
        return {**super().headers(), **self.also}


class Saturated(ApiError):
    status, type, default_code = 429, "rate_limit_error", "fleet_saturated"


class UpstreamFailed(ApiError):
    status, type, default_code = 502, "upstream_error", "upstream_failed"


class KeysUnavailable(ApiError):
    status, type, default_code = 503, "server_error", "keys_unavailable"


class PoliciesUnavailable(ApiError):
    status, type, default_code = 503, "server_error", "policies_unavailable"


class NothingAlive(ApiError):
    status, type, default_code = 503, "server_error", "nothing_alive"


class DeadlinePassed(ApiError):
    status, type, default_code = 504, "timeout_error", "deadline_passed"


class UpstreamRefused(ApiError):
    """A backend's own 4xx, passed on with its status and, when it is OpenAI-shaped, its own error object."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__("The backend refused the request.", code="upstream_refused")
        self.refused_status = status
        self.upstream_body = body

    def body(self) -> bytes:
        return msgspec.json.encode({"error": _openai_shaped(self.upstream_body)})


def status_of(error: ApiError) -> int:
    """The HTTP status of an error."""
    return error.refused_status if isinstance(error, UpstreamRefused) else error.status


def _openai_shaped(body: bytes) -> dict[str, Any]:
    """The backend's error object with all four fields, from whatever it sent."""
    shape: dict[str, Any] = {
        "message": body[:500].decode("utf-8", "replace").strip() or "The backend refused the request without a word.",
        "type": "invalid_request_error",
        "code": "upstream_refused",
        "param": None,
    }
    try:
        sent = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return shape
    error = sent.get("error", sent) if isinstance(sent, dict) else None
    if isinstance(error, str):
        return {**shape, "message": error}
    if isinstance(error, dict) and isinstance(error.get("message"), str):
        return {**shape, **error}
    return shape
