"""What a stream has said so far, and the verdict on it.

Success is decided by the stream's own ending, never by the transport: a stream is complete when every choice that was
asked for has a finish_reason (or, where an engine sends fewer or none, when [DONE] came). Progress is a token, not
a byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

import msgspec

from isochrone.api.requests import COMPLETION, Operation
from isochrone.api.sse import DONE
from isochrone.upstream.failure import AttemptFailed, Cause
from isochrone.upstream.gathering import Gathering

_decode = msgspec.json.Decoder(dict[str, Any] | None).decode
_TEXT_FIELDS = ("content", "reasoning_content", "reasoning", "refusal")
CALLS = frozenset({"tool_calls", "function_call"})
_NO_TEXT = CALLS | {"audio"}
SPOKEN = _NO_TEXT.union(_TEXT_FIELDS)

# With these an engine says that it stopped before the answer was whole: vLLM and SGLang ("abort"), OpenRouter and vLLM
# ("error"), DeepSeek when it runs out of machines.
BROKEN_OFF = ("abort", "error", "insufficient_system_resource")

# What `to_body` carries on or makes anew, and what engines say about themselves, which may be lost. Any other field
# that is not empty may be part of the answer (sources, log probabilities...): such an answer is not stored.
_CHUNK_FIELDS = frozenset(
    {"choices", "usage", "error", "id", "model", "system_fingerprint", "object", "created"}
    | {"service_tier", "obfuscation", "provider", "timings", "x_groq", "p", "time_info"}
)
_CHUNK_FACTS = ("id", "object", "created", "model")
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


_TOKEN, _QUIET, _USAGE, _DONE = Reading  # quicker to find than in their class


class Transcript:
    """Fed every event's data of one stream; `choices` is how many were asked for. `capture` keeps the text, so that the
    answer can be stored or joined to. `gives_reasons`: this engine is known to, so its [DONE] alone is no end.

    `spliceable` says that what was spoken are texts and calls of one choice: only then may another stream join to it.
    `storable` says that `to_body` is the whole answer: texts are all there is (no field that nobody knows either), or
    all there is was kept since the operator wants such answers (`gather`).
    """

    __slots__ = (
        "_asked_for",
        "_closed",
        "_finished",
        "_gathering",
        "_gives_reasons",
        "_head",
        "_is_plain",
        "_open",
        "_stop_reason",
        "_texts",
        "done",
        "finish_reason",
        "spliceable",
        "tokens",
        "usage",
    )

    def __init__(self, *, capture: bool, choices: int = 1, gives_reasons: bool = False, gather: bool = False) -> None:
        self.tokens = 0
        self.done = False
        self.finish_reason: str | None = None
        self.usage: dict[str, Any] | None = None
        self._asked_for = choices
        self._gives_reasons = gives_reasons
        self._open: set[int] = set()
        self._closed: set[int] = set()
        self._finished = False
        self._texts: dict[str, list[str]] = {}
        self.spliceable = self._is_plain = capture and choices == 1
        self._gathering = Gathering() if gather else None
        self._stop_reason: Any = None
        self._head: dict[str, Any] = {}

    @property
    def complete(self) -> bool:
        """True when the answer is whole."""
        if self._finished or not (self.done and self.tokens):
            return self._finished
        return not self._open if self.finish_reason else not self._gives_reasons

    @property
    def storable(self) -> bool:
        """Is `to_body` the whole answer?"""
        return self._is_plain or self._gathering is not None

    def read(self, data: bytes | None) -> Reading:
        """Take in one event's data (None: a comment). Raises AttemptFailed for an error or a senseless event."""
        if data is None or not data.strip():
            return _QUIET
        if data == DONE:
            self.done = True
            return _DONE
        try:
            chunk = _decode(data) or {}
            choices = _choices_of(chunk)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise AttemptFailed(Cause.BROKEN, "sent an event that is no completion chunk", body=data[:2000]) from None
        if chunk.get("error") is not None or (not choices and chunk.get("object") == "error"):
            raise AttemptFailed(Cause.BROKEN, "sent an error in its stream", body=data[:2000])
        if self._is_plain and _says_more(chunk, _CHUNK_FIELDS):
            self._is_plain = False
        usage = chunk.get("usage")
        if usage and isinstance(usage, dict):
            self.usage = usage
            if not choices:
                return _USAGE
        self._head = self._head or (chunk if choices else {})
        reading = self._read_choices(choices)
        if self._gathering is not None:
            self._gathering.add(chunk)
        return reading

    def _read_choices(self, choices: list[dict[str, Any]]) -> Reading:
        token = False
        for choice in choices:
            index = choice.get("index") or 0
            reason = choice.get("finish_reason")
            if reason and reason in BROKEN_OFF:
                raise AttemptFailed(Cause.CUT, f"broke its answer off ({reason})")
            if self._said_something(choice, index):
                token = True
                self._open.add(index)
            if reason:
                token = True
                self.finish_reason = reason
                self._stop_reason = choice.get("stop_reason")
                self._open.discard(index)
                self._closed.add(index)
        self.tokens += token
        self._finished = len(self._closed) >= self._asked_for and not self._open
        return _TOKEN if token else _QUIET

    def _said_something(self, choice: dict[str, Any], index: int) -> bool:
        delta = choice.get("delta") or {}
        if self._is_plain and (_says_more(choice, _CHOICE_FIELDS) or _says_more(delta, _DELTA_FIELDS)):
            self._is_plain = False
        if index:
            self.spliceable = self._is_plain = False
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
            self._is_plain = False
            self.spliceable = self.spliceable and not self._closed and self._keep_calls(name, value)
        elif self.spliceable:
            self._texts.setdefault(name, []).append(value)

    def _keep_calls(self, name: str, value: Any) -> bool:
        """False for what is no call of a function, or one whose name does not come in one piece."""
        calls = calls_in(name, value)
        for call, function in calls or ():
            if function.get("name") and f"{call}.name" in self._texts:
                return False
            for part in ("name", "arguments"):
                if text := function.get(part):
                    self._texts.setdefault(f"{call}.{part}", []).append(text)
        return bool(calls)

    def texts(self) -> dict[str, str]:
        """What was said so far, by field, of calls by "tool_calls.0.name" and the like; right only if `spliceable`."""
        return {name: "".join(parts) for name, parts in self._texts.items()}

    def usage_chunk(self, usage: dict[str, Any]) -> dict[str, Any]:
        """What the engine would have said of usage behind its last word."""
        return {**{name: self._head.get(name) for name in _CHUNK_FACTS}, "choices": [], "usage": usage}

    def begin_with(self, told: Mapping[str, str], *, storable: bool) -> None:
        """Another attempt had told this much before: the answer is what both said."""
        own = self._texts
        self._texts = {name: [text, *own.pop(name, ())] for name, text in told.items()} | own
        self._is_plain = self._is_plain and storable and self._gathering is None
        self._gathering = None

    def to_body(self, operation: Operation, *, model: str, created: int) -> dict[str, Any]:
        """The reply that the operation's non-streaming route would have given; right only if `storable`."""
        if self._gathering is not None:
            return self._gathering.body(operation, model=model, usage=self.usage, now=created)
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


def broken_off(body: dict[str, Any]) -> str | None:
    """The reason with which an engine says, in a body, that it stopped before the answer was whole."""
    choices = body.get("choices")
    reasons = (
        [one.get("finish_reason") for one in choices if isinstance(one, dict)] if isinstance(choices, list) else []
    )
    return next((reason for reason in reasons if reason in BROKEN_OFF), None)


def calls_in(name: str, value: Any) -> list[tuple[str, dict[str, Any]]] | None:
    """The functions called in a delta's field: each one's place in the answer, and its `name` and `arguments`.

    None for what is none of that: another kind of call, or one without an index.
    """
    if name == "function_call":
        calls = [(name, value)]
    elif name == "tool_calls" and isinstance(value, list) and all(isinstance(call, dict) for call in value):
        calls = [(f"{name}.{call.get('index')}", call.get("function")) for call in value]
    else:
        return None
    return calls if all(_is_function(call, function) for call, function in calls) else None


def _is_function(call: str, function: Any) -> bool:
    return (
        isinstance(function, dict)
        and not call.endswith(".None")
        and _may_be(function.get("name"), str)
        and _may_be(function.get("arguments"), str)
    )


def _may_be(value: Any, kind: type) -> bool:
    return value is None or isinstance(value, kind)


def _says_more(fields: dict[str, Any], known: frozenset[str]) -> bool:
    """True when a field that is not known says something."""
    return not known.issuperset(fields) and any(value for name, value in fields.items() if name not in known)
