"""Joining a restarted answer to what the client already has: only what comes after that is let through.

This is right only as long as the new answer says the same as the old one; where it does not, it is refused, because
two answers sewn together are worse than none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from isochrone.upstream.failure import AttemptFailed, Cause
from isochrone.upstream.stream import Read
from isochrone.upstream.transcript import SPOKEN, Reading

# Where an answer's words can be; what accompanies them may be told twice.
_WORDS = SPOKEN | {"text"}


class Splice:
    """`told` is what the client has, by field (`content`, `reasoning_content`, `text`...)."""

    def __init__(self, told: Mapping[str, str]) -> None:
        self._still_known = {field: text for field, text in told.items() if text}

    def join(self, events: Sequence[Read]) -> bytes:
        """The bytes of these events that are new to the client. Raises AttemptFailed where they disagree."""
        return b"".join([self._new_in(*read) for read in events])

    def _new_in(self, event: Any, reading: Reading) -> bytes:
        if not self._still_known or reading in (Reading.DONE, Reading.USAGE):
            return bytes(event.raw)
        if reading is not Reading.TOKEN:
            return b""
        chunk = msgspec.json.decode(event.data)
        fresh = [self._trim(choice) for choice in chunk["choices"]]
        return b"data: " + msgspec.json.encode(chunk) + b"\n\n" if any(fresh) else b""

    def _trim(self, choice: dict[str, Any]) -> bool:
        """Take from the choice what the client has; True when something is left in it."""
        said = choice.get("delta") or choice
        fields = [name for name, value in said.items() if value and name in _WORDS]
        for name in fields:
            said[name] = self._after_known(name, said[name])
        finished = bool(choice.get("finish_reason"))
        if finished and self._still_known:
            raise AttemptFailed(Cause.DIVERGED, "was asked again and gave a shorter answer")
        return finished or any(said[name] for name in fields)

    def _after_known(self, field: str, text: Any) -> str:
        if not isinstance(text, str):
            raise AttemptFailed(Cause.DIVERGED, "was asked again and gave more than a text")
        known = self._still_known.pop(field, "")
        shared = min(len(known), len(text))
        fresh, still_known = text[shared:], known[shared:]
        if still_known:
            self._still_known[field] = still_known
        if known[:shared] != text[:shared] or (fresh and self._still_known):
            raise AttemptFailed(Cause.DIVERGED, "was asked again and gave another answer")
        return fresh
