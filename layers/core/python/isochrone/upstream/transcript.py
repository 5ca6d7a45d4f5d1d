"""What a stream has said so far, and the verdict on it.

Success is decided by the stream's own ending, never by the transport: a stream is complete when every choice that was
asked for has a finish_reason (or, where an engine sends fewer or none, when [DONE] came). Progress is a token, not
a byte.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

import msgspec

from isochrone.api.requests import COMPLETION, Operation
from isochrone.api.sse import DONE
from isochrone.upstream.failure import AttemptFailed, Cause

_decode = msgspec.json.Decoder(dict[str, Any] | None).decode
_TEXT_FIELDS = ("content", "reasoning_content", "reasoning", "refusal")
_NO_TEXT = frozenset({"tool_calls", "function_call", "audio"})
SPOKEN = _NO_TEXT.union(_TEXT_FIELDS)

# What `to_body` carries on or makes anew, and what engines say about themselves, which may be lost. Any other field
# that is not empty may be part of the answer (sources, log probabilities...): such an answer is not stored.
_CHUNK_FIELDS = frozenset(
    {"choices", "usage", "error", "id", "model", "system_fingerprint", "object", "created"}
    | {"service_tier", "obfuscation", "provider", "timings", "x_groq", "p", "time_info"}
)
_CHOICE_FIELDS = frozenset(
    {"index", "delta", "text", "finish_reason", "stop_reason", "native_finish_reason", "matched_stop", "usage"}
)
_DELTA_FIELDS = frozenset({*_TEXT_FIELDS, "role", "channel"})


class Reading(Enum):
    """What one event was: a token is progress; quiet is not; usage alone is for those who asked; done is the end."""

    TOKEN = "token"  # noqa: S105
    QUIET = "quiet"
    USAGE = "usage"
    DONE = "done"


class Transcript:
    """Fed every event's data of one stream; `choices` is how many were asked for. `capture` keeps the text, so that the
    answer can be stored or joined to.

    `spliceable` says that what was spoken is text of one choice: only then may another stream join to it. `storable`
    says that such texts are all there is (no field that nobody knows either): only then is `to_body` the whole answer.
    """

    __slots__ = (
        "_asked_for",
        "_closed",
        "_finished",
        "_head",
        "_open",
        "_stop_reason",
        "_texts",
        "done",
        "finish_reason",
        "spliceable",
        "storable",
        "tokens",
        "usage",
    )

    def __init__(self, *, capture: bool, choices: int = 1) -> None:
        self.tokens = 0
        self.done = False
        self.finish_reason: str | None = None
        self.usage: dict[str, Any] | None = None
        self._asked_for = choices
        self._open: set[int] = set()
        self._closed: set[int] = set()
        self._finished = False
        self._texts: dict[str, list[str]] = {}
        self.spliceable = capture
        self.storable = capture
        self._stop_reason: Any = None
        self._head: dict[str, Any] = {}

    @property
    def complete(self) -> bool:
        """True when the answer is whole."""
        return self._finished or (self.done and self.tokens > 0 and not (self.finish_reason and self._open))

    def read(self, data: bytes | None) -> Reading:
        """Take in one event's data (None: a comment). Raises AttemptFailed for an error or a senseless event."""
        if data is None or not data.strip():
            return Reading.QUIET
        if data == DONE:
            self.done = True
            return Reading.DONE
        try:
            chunk = _decode(data) or {}
            choices = _choices_of(chunk)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise AttemptFailed(Cause.BROKEN, "sent an event that is no completion chunk", body=data[:2000]) from None
        if chunk.get("error") is not None:
            raise AttemptFailed(Cause.BROKEN, "sent an error in its stream", body=data[:2000])
        if self.storable and _says_more(chunk, _CHUNK_FIELDS):
            self.storable = False
        usage = chunk.get("usage")
        if usage and isinstance(usage, dict):
            self.usage = usage
            if not choices:
                return Reading.USAGE
        self._head = self._head or (chunk if choices else {})
        return self._read_choices(choices)

    def _read_choices(self, choices: list[dict[str, Any]]) -> Reading:
        token = False
        for choice in choices:
            index = choice.get("index") or 0
            if self._said_something(choice, index):
                token = True
                self._open.add(index)
            if reason := choice.get("finish_reason"):
                token = True
                self.finish_reason = reason
                self._stop_reason = choice.get("stop_reason")
                self._open.discard(index)
                self._closed.add(index)
        self.tokens += token
        self._finished = len(self._closed) >= self._asked_for and not self._open
        return Reading.TOKEN if token else Reading.QUIET

    def _said_something(self, choice: dict[str, Any], index: int) -> bool:
        delta = choice.get("delta") or {}
        if self.storable and (_says_more(choice, _CHOICE_FIELDS) or _says_more(delta, _DELTA_FIELDS)):
            self.storable = False
        if index:
            self.spliceable = self.storable = False
        said = False
        for name, value in delta.items():
            if value and name in SPOKEN:
                said = True
                self._keep(name, value)
        if text := choice.get("text"):
            said = True
            self._keep("text", text)
        return said

    def _keep(self, name: str, value: Any) -> None:
        if self._closed or name in _NO_TEXT or not isinstance(value, str):
            self.spliceable = self.storable = False
        if self.spliceable:
            self._texts.setdefault(name, []).append(value)

    def texts(self) -> dict[str, str]:
        """What was said so far, by field; right only if `spliceable`."""
        return {name: "".join(parts) for name, parts in self._texts.items()}

    def to_body(self, operation: Operation, *, model: str, created: int) -> dict[str, Any]:
        """The reply that the operation's non-streaming route would have given; right only if `storable`."""
        texts = self.texts()
        choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": self.finish_reason}
        if operation is COMPLETION:
            kind = "text_completion"
            choice |= {"text": texts.pop("text", ""), **texts}
        else:
            kind = "chat.completion"
            choice["message"] = {"role": "assistant", "content": texts.pop("content", ""), **texts}
        if self._stop_reason is not None:
            choice["stop_reason"] = self._stop_reason
        body: dict[str, Any] = {
            "id": self._head.get("id") or "",
            "object": kind,
            "created": created,
            "model": self._head.get("model") or model,
            "choices": [choice],
            "usage": self.usage,
        }
        if fingerprint := self._head.get("system_fingerprint"):
            body["system_fingerprint"] = fingerprint
        return body


def _choices_of(chunk: dict[str, Any]) -> list[dict[str, Any]]:
    """The choices, checked as far as anything is decided on them. Raises ValidationError."""
    choices = chunk.get("choices")
    if choices is None:
        return []
    if not isinstance(choices, list):
        raise msgspec.ValidationError("choices are no list")
    for choice in choices:
        if not (isinstance(choice, dict) and _may_be(choice.get("index"), int) and _may_be(choice.get("delta"), dict)):
            raise msgspec.ValidationError("a choice has another shape")
    return choices


def _may_be(value: Any, kind: type) -> bool:
    return value is None or isinstance(value, kind)


def _says_more(fields: dict[str, Any], known: frozenset[str]) -> bool:
    """True when a field that is not known says something."""
    return not known.issuperset(fields) and any(value for name, value in fields.items() if name not in known)
