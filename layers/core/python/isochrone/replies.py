"""What an answer becomes: its headers, and a known one told again in the form that was asked for."""

from __future__ import annotations

from isochrone.answers.completion import Answer, replay_body, replay_stream
from isochrone.api.exchange import Reply
from isochrone.api.requests import Ask

JSON = {"content-type": "application/json"}
EVENT_STREAM = {"content-type": "text/event-stream; charset=utf-8", "x-accel-buffering": "no"}


def headers_of(*, cache: str, backend: str, attempts: int, why: str, mark: str | None = None) -> dict[str, str]:
    """Where an answer comes from, and why; `mark` is its id where it is known, or may be from now on."""
    headers = {
        "x-isochrone-cache": cache,
        "x-isochrone-backend": backend,
        "x-isochrone-attempts": str(attempts),
        "x-isochrone-reason": why,
    }
    return {**headers, "x-isochrone-answer": mark} if mark else headers


def told_again(
    answer: Answer, ask: Ask, headers: dict[str, str], *, request_id: str, now: float, cached: bool = True
) -> Reply:
    """A whole answer as the reply to `ask`; `now` is epoch seconds. It was `cached` unless it was made just now."""
    if not ask.stream:
        body = replay_body(answer, request_id=request_id, now=now, cached=cached)
        return Reply(status=200, headers={**headers, **JSON}, body=body)
    usage = ask.include_usage
    body = replay_stream(answer, request_id=request_id, now=now, include_usage=usage, cached=cached)
    return Reply(status=200, headers={**headers, **EVENT_STREAM}, body=body)
