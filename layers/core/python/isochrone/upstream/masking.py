"""A backend's words without the key that it was sent: some tell all that they got, and words are passed on. Pure.

What is looked for is the key as it is, not one that is cut over two events or written in another way (escaped, packed).
"""

from __future__ import annotations

from collections.abc import Mapping

from isochrone.api.sse import Event

_INSTEAD = b"[key]"
# What engines are given that ask for no key ("EMPTY", "sk-no-key-required") may be words of an answer.
_SHORTEST_SECRET = 20


class Mask:
    """Takes the key of these `headers` out of errors and, where it can be nothing else, out of answers."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._key = headers.get("Authorization", "").removeprefix("Bearer ").encode()
        self._is_secret = len(self._key) >= _SHORTEST_SECRET

    def error(self, words: bytes) -> bytes:
        """The words of an error."""
        return words.replace(self._key, _INSTEAD) if self._key else words

    def body(self, raw: bytes) -> bytes:
        """The body of an answer; the same object when nothing had to go."""
        return raw.replace(self._key, _INSTEAD) if self._is_secret else raw

    def event(self, event: Event) -> Event:
        """An event of a stream, with its comments."""
        raw = self.body(event.raw)
        if raw is event.raw:
            return event
        return Event(raw, None if event.data is None else self.body(event.data))


NOTHING = Mask({})
"""What a backend without a key needs."""
