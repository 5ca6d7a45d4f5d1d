from __future__ import annotations

import json

import pytest

from isochrone.api.errors import (
    ApiError,
    BadRequest,
    BodyTooLarge,
    BodyTooSlow,
    ContentRefused,
    DeadlinePassed,
    Forbidden,
    HeadersTooLarge,
    KeysUnavailable,
    LimitReached,
    MethodNotAllowed,
    NotCached,
    NotFound,
    NothingAlive,
    NotInstalled,
    PoliciesUnavailable,
    Saturated,
    Unauthorized,
    UpstreamFailed,
    UpstreamRefused,
    UrlTooLong,
    WrongContentType,
    status_of,
)

TREE: list[tuple[type[ApiError], int, str, str | None]] = [
    (ApiError, 500, "server_error", None),
    (BadRequest, 400, "invalid_request_error", "invalid_value"),
    (Unauthorized, 401, "authentication_error", "invalid_api_key"),
    (Forbidden, 403, "permission_error", "forbidden"),
    (NotFound, 404, "invalid_request_error", "not_found"),
    (NotCached, 404, "invalid_request_error", "not_cached"),
    (BodyTooSlow, 408, "timeout_error", "body_too_slow"),
    (BodyTooLarge, 413, "invalid_request_error", "body_too_large"),
    (UrlTooLong, 414, "invalid_request_error", "url_too_long"),
    (WrongContentType, 415, "invalid_request_error", "unsupported_media_type"),
    (HeadersTooLarge, 431, "invalid_request_error", "headers_too_large"),
    (NotInstalled, 501, "server_error", "not_installed"),
    (ContentRefused, 400, "invalid_request_error", "content_policy_violation"),
    (KeysUnavailable, 503, "server_error", "keys_unavailable"),
    (PoliciesUnavailable, 503, "server_error", "policies_unavailable"),
    (Saturated, 429, "rate_limit_error", "fleet_saturated"),
    (UpstreamFailed, 502, "upstream_error", "upstream_failed"),
    (NothingAlive, 503, "server_error", "nothing_alive"),
    (DeadlinePassed, 504, "timeout_error", "deadline_passed"),
]


@pytest.mark.parametrize(("kind", "status", "type_", "code"), TREE, ids=[row[0].__name__ for row in TREE])
def test_every_error_has_openais_shape(kind: type[ApiError], status: int, type_: str, code: str | None) -> None:
    error = kind("why", param="field")
    assert status_of(error) == status
    assert json.loads(error.body()) == {
        "error": {"message": "why", "type": type_, "code": code, "param": "field"},
    }
    assert error.headers()["content-type"] == "application/json"


def test_tree_is_whole() -> None:
    kinds = {kind for kind, *_ in TREE} | {MethodNotAllowed, UpstreamRefused, LimitReached}
    own = {kind for kind in ApiError.__subclasses__() if kind.__module__ == ApiError.__module__}
    assert own | {ApiError} == kinds


@pytest.mark.parametrize(
    ("seconds", "header"), [(None, None), (0.0, "1"), (0.2, "1"), (1.0, "1"), (1.01, "2"), (30.0, "30")]
)
def test_retry_after_is_whole_seconds_never_too_early(seconds: float | None, header: str | None) -> None:
    assert Saturated("full", retry_after=seconds).headers().get("retry-after") == header


def test_missing_key_asks_for_a_bearer() -> None:
    assert Unauthorized("who?").headers()["www-authenticate"] == "Bearer"


def test_wrong_method_names_the_right_ones() -> None:
    error = MethodNotAllowed("no", allow="GET")
    assert (status_of(error), error.headers()["allow"]) == (405, "GET")


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (
            b'{"error": {"message": "too long", "type": "t", "code": "context_length_exceeded", "param": "messages"}}',
            {"message": "too long", "type": "t", "code": "context_length_exceeded", "param": "messages"},
        ),
        (
            b'{"error": {"message": "too long", "code": 400}}',
            {"message": "too long", "type": "invalid_request_error", "code": 400, "param": None},
        ),
        (
            b'{"object": "error", "message": "vLLM says no", "type": "BadRequestError", "code": 400}',
            {"object": "error", "message": "vLLM says no", "type": "BadRequestError", "code": 400, "param": None},
        ),
        (
            b'{"error": "just text"}',
            {"message": "just text", "type": "invalid_request_error", "code": "upstream_refused", "param": None},
        ),
        (
            b"<html>no</html>",
            {"message": "<html>no</html>", "type": "invalid_request_error", "code": "upstream_refused", "param": None},
        ),
        (
            b"",
            {
                "message": "The backend refused the request without a word.",
                "type": "invalid_request_error",
                "code": "upstream_refused",
                "param": None,
            },
        ),
    ],
)
def test_backends_own_words_are_passed_on(sent: bytes, expected: dict[str, object]) -> None:
    error = UpstreamRefused(422, sent)
    assert status_of(error) == 422
    assert json.loads(error.body())["error"] == expected


@pytest.mark.parametrize("sent", [b"[1]", b"null", b'{"error": 5}', b'{"error": {}}', b"\xff\xfe", b"[" * 100_000])
def test_whatever_a_backend_sends_the_error_has_all_four_fields(sent: bytes) -> None:
    error = json.loads(UpstreamRefused(400, sent).body())["error"]
    assert {"message", "type", "code", "param"} <= set(error)
    assert isinstance(error["message"], str)
