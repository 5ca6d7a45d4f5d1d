"""What a stream has said so far, and the verdict on it.

Success is decided by the stream's own ending, never by the transport: a stream is complete when every choice that was
asked for has a finish_reason (or, where an engine sends fewer or none, when [DONE] came). Progress is a token, not
a byte.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

import msgspec
from msgspec import Struct

from isochrone.api.sse import DONE
from isochrone.upstream.failure import AttemptFailed, Cause


class _Delta(Struct):
    role: str | None = None
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[Any] | None = None
    function_call: Any = None


class _Choice(Struct):
    index: int = 0
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Chunk(Struct):
    choices: list[_Choice] | None = None
    usage: dict[str, Any] | None = None
    error: Any = None
    id: str | None = None
    model: str | None = None
    system_fingerprint: str | None = None


_decode = msgspec.json.Decoder(_Chunk).decode
_TEXT_FIELDS = ("content", "reasoning_content", "reasoning", "refusal")


class Reading(Enum):
    """What one event was: a token is progress; quiet is not; usage alone is for those who asked; done is the end."""

    TOKEN = "token"  # noqa: S105
    QUIET = "quiet"
    USAGE = "usage"
    DONE = "done"


class Transcript:
    """Fed every event's data of one stream; `choices` is how many were asked for. `capture` keeps the text, so that the
    answer can be stored or joined to.

    `spliceable` says that the text is all there is: one choice, no calls of tools.
    """

    __slots__ = (
        "_asked_for",
        "_capture",
        "_closed",
        "_finished",
        "_head",
        "_open",
        "_texts",
        "done",
        "finish_reason",
        "spliceable",
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
        self._capture = capture
        self._texts: dict[str, list[str]] = {}
        self.spliceable = capture
        self._head: _Chunk | None = None

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
            chunk = _decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise AttemptFailed(Cause.BROKEN, "sent an event that is no completion chunk", body=data[:2000]) from None
        if chunk.error is not None:
            raise AttemptFailed(Cause.BROKEN, "sent an error in its stream", body=data[:2000])
        if chunk.usage:
            self.usage = chunk.usage
        if not chunk.choices:
            return Reading.USAGE if chunk.usage else Reading.QUIET
        if self._head is None:
            self._head = chunk
        return self._read_choices(chunk.choices)

    def _read_choices(self, choices: list[_Choice]) -> Reading:
        token = False
        for choice in choices:
            if choice.index:
                self.spliceable = False
            if self._said_something(choice):
                token = True
                self._open.add(choice.index)
            if choice.finish_reason:
                token = True
                self.finish_reason = choice.finish_reason
                self._open.discard(choice.index)
                self._closed.add(choice.index)
        self.tokens += token
        self._finished = len(self._closed) >= self._asked_for and not self._open
        return Reading.TOKEN if token else Reading.QUIET

    def _said_something(self, choice: _Choice) -> bool:
        if choice.text:
            self._add("text", choice.text)
            return True
        delta = choice.delta
        if delta is None:
            return False
        said = bool(delta.tool_calls or delta.function_call)
        if said:
            self.spliceable = False
        for name in _TEXT_FIELDS:
            if text := getattr(delta, name):
                self._add(name, text)
                said = True
        return said

    def _add(self, name: str, text: str) -> None:
        if self._capture:
            self._texts.setdefault(name, []).append(text)

    def texts(self) -> dict[str, str]:
        """What was said so far, by field; empty without `capture`."""
        return {name: "".join(parts) for name, parts in self._texts.items()}

    def to_body(self, *, model: str, created: int) -> dict[str, Any]:
        """The reply that the non-streaming route would have given (one choice, text only)."""
        texts = self.texts()
        choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": self.finish_reason}
        if "text" in texts:
            kind = "text_completion"
            choice["text"] = texts["text"]
        else:
            kind = "chat.completion"
            choice["message"] = {"role": "assistant", "content": texts.pop("content", ""), **texts}
        head = self._head
        body: dict[str, Any] = {
            "id": (head and head.id) or "",
            "object": kind,
            "created": created,
            "model": (head and head.model) or model,
            "choices": [choice],
            "usage": self.usage,
        }
        if head and head.system_fingerprint:
            body["system_fingerprint"] = head.system_fingerprint
        return body
