"""Joining what another attempt tells to what the client already has: only what comes after that is let through.

retold     a `Splice`: the answer is told anew, and has to begin with what the client has
continued  a `Continuation`: the backend was given what the client has, and tells the rest

Where a retold answer says something else than the client has, it is refused: two answers sewn together are worse than
none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from isochrone.api.sse import Event
from isochrone.upstream.failure import AttemptFailed, Cause
from isochrone.upstream.stream import Read
from isochrone.upstream.tally import usage_of_whole
from isochrone.upstream.transcript import CALLS, SPOKEN, Reading, calls_in

# Where an answer's words can be; what accompanies them may be told twice.
_WORDS = SPOKEN | {"text"}
_THOUGHTS = ("reasoning_content", "reasoning")
# Some servers begin a continued answer with what they were given. A shorter text can also be said twice by intent.
_CLEARLY_RETOLD = 16


class Join(Protocol):
    """What a new attempt says, as far as it is new to the client. `join` raises AttemptFailed where they disagree."""

    def join(self, events: Sequence[Read]) -> Sequence[Read]: ...


class Splice:
    """`told` is what the client has, by field (`content`, `reasoning_content`, `tool_calls.0.arguments`...)."""

    def __init__(self, told: Mapping[str, str]) -> None:
        self._still_known = {field: text for field, text in told.items() if text}
        self._told_calls = {field.rpartition(".")[0] for field in told if "." in field}

    def join(self, events: Sequence[Read]) -> Sequence[Read]:
        """What of these events is new to the client. Raises AttemptFailed where they disagree."""
        return [fresh for read in events if (fresh := self._new_in(read))]

    def _new_in(self, read: Read) -> Read | None:
        event, reading = read
        if reading is not Reading.TOKEN:
            return None if self._still_known and reading is Reading.QUIET else read
        if not self._still_known and not (self._told_calls and b'"tool_calls"' in (event.data or b"")):
            return read
        chunk = msgspec.json.decode(event.data or b"")
        fresh = [self._trim(choice) for choice in chunk["choices"]]
        return (_event(chunk), reading) if any(fresh) else None

    def _trim(self, choice: dict[str, Any]) -> bool:
        """Take from the choice what the client has; True when something is left in it."""
        said = choice.get("delta") or choice
        said.pop("role", None)
        fields = [name for name, value in said.items() if value and name in _WORDS]
        for name in fields:
            said[name] = (
                self._calls_after_known(name, said[name]) if name in CALLS else self._new_text(name, said[name])
            )
        finished = bool(choice.get("finish_reason"))
        fresh = finished or any(said[name] for name in fields)
        if fresh and self._still_known:
            raise _diverged("a shorter answer" if finished else "another answer")
        return fresh

    def _new_text(self, field: str, text: Any) -> str:
        if not isinstance(text, str):
            raise _diverged("more than a text")
        known = self._still_known.pop(field, "")
        shared = min(len(known), len(text))
        if known[:shared] != text[:shared] or (known and field.endswith(".name") and known != text):
            raise _diverged("another answer")
        if known[shared:]:
            self._still_known[field] = known[shared:]
        return text[shared:]

    def _calls_after_known(self, name: str, value: Any) -> Any:
        """The calls, without what the client has of them: it knows a call by the id that it got first."""
        calls = calls_in(name, value)
        if calls is None:
            raise _diverged("more than a text")
        entries = value if isinstance(value, list) else [value]
        fresh = [entry for entry, call in zip(entries, calls, strict=True) if self._is_new_of_call(entry, *call)]
        return fresh if isinstance(value, list) else value if fresh else None

    def _is_new_of_call(self, entry: dict[str, Any], call: str, function: dict[str, Any]) -> bool:
        for part in ("name", "arguments"):
            if text := function.get(part):
                function[part] = self._new_text(f"{call}.{part}", text)
        if call in self._told_calls:
            for fact in ("id", "type"):
                entry.pop(fact, None)
            if not function.get("name"):
                function.pop("name", None)
        return any(function.values())


class Continuation:
    """`told` is the one text that the backend was given, in its field; it was told in about so many `tokens`."""

    def __init__(self, told: Mapping[str, str], *, tokens: int) -> None:
        ((self._field, self._told),) = told.items()
        self._tokens = tokens
        self._would_be_retold = len(self._told) >= _CLEARLY_RETOLD and not _repeats_itself(self._told)
        self._heard = ""
        self._held: list[Read] = []
        self._joined = False
        self._splice: Splice | None = None

    @property
    def is_pending(self) -> bool:
        """True while nothing was let through, since it could still become a retelling."""
        return not (self._joined or self._splice)

    @property
    def retold(self) -> bool:
        """True when the backend began with what it was given: then it has told the whole answer."""
        return self._splice is not None

    def join(self, events: Sequence[Read]) -> Sequence[Read]:
        """What of these events is new to the client. Raises AttemptFailed for an answer that begins with thoughts."""
        return [new for read in events for new in self._new_in(read)]

    def _new_in(self, read: Read) -> Iterable[Read]:
        if self._splice:
            return self._splice.join([read])
        if self._joined:
            return [self._with_whole_usage(read)]
        event, reading = read
        if reading is Reading.QUIET:
            return ()
        self._held.append(read)
        if reading is Reading.TOKEN and self._may_be_retelling(msgspec.json.decode(event.data or b"")["choices"][0]):
            return self._if_retold()
        return self._release()

    def _may_be_retelling(self, choice: dict[str, Any]) -> bool:
        said = choice.get("delta") or choice
        if any(map(said.get, _THOUGHTS)):
            raise AttemptFailed(Cause.DIVERGED, "was to go on with its answer and began with thoughts")
        text = said.get(self._field)
        if not isinstance(text, str) or choice.get("finish_reason") or not self._would_be_retold:
            return False
        self._heard += text
        return self._told.startswith(self._heard) or self._heard.startswith(self._told)

    def _if_retold(self) -> Iterable[Read]:
        if len(self._heard) < len(self._told):
            return ()
        self._splice = Splice({self._field: self._told})
        return self._splice.join(self._held)

    def _release(self) -> Iterable[Read]:
        self._joined = True
        first, *others = self._held
        return [self._with_whole_usage(read) for read in (_without_role(first), *others)]

    def _with_whole_usage(self, read: Read) -> Read:
        event, reading = read
        if event.data is None or b'"usage"' not in event.data or reading is Reading.DONE:
            return read
        chunk = msgspec.json.decode(event.data)
        if isinstance(usage := chunk.get("usage"), dict):
            chunk["usage"] = usage_of_whole(usage, told_before=self._tokens)
        return _event(chunk), reading


def _repeats_itself(text: str) -> bool:
    """True for one that may well go on by beginning anew: "0101...", a refrain."""
    return text.find(text[: (len(text) + 1) // 2], 1) != -1


def _without_role(read: Read) -> Read:
    """Some clients add up every text of a delta, roles too."""
    event, reading = read
    if event.data is None or b'"role"' not in event.data:
        return read
    chunk = msgspec.json.decode(event.data)
    for choice in chunk.get("choices") or ():
        (choice.get("delta") or {}).pop("role", None)
    return _event(chunk), reading


def _event(chunk: dict[str, Any]) -> Event:
    data = msgspec.json.encode(chunk)
    return Event(b"data: " + data + b"\n\n", data)


def _diverged(what: str) -> AttemptFailed:
    return AttemptFailed(Cause.DIVERGED, f"was asked again and gave {what}")
