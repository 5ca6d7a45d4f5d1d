"""Things put back into an event stream on its way to the caller, also where a placeholder is cut over many events.

    ... "mail "   "[EM"        "AIL"       "_1"        "] now"
    ... "mail "   ""  holds    ""  holds   ""  holds   "jane@example.com now"

Each text of an answer (of each choice: content, reasoning, the arguments of each call) is held back by itself, and no
more of it than may be the beginning of a placeholder. Events that hold no such thing pass as they came.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, NamedTuple

import msgspec

from isochrone.api.exchange import ByteStream
from isochrone.api.sse import DONE, Event, SseDecoder
from isochrone.pii.vault import Vault

_TEXTS = ("content", "reasoning_content", "reasoning", "refusal")
_HEAD = ("id", "object", "created", "model")
# Besides an escape of JSON, what a placeholder begins with: 【 and ［ in UTF-8.
_OTHER_BRACKETS = (b"\\", b"\xe3\x80\x90", b"\xef\xbc\xbb")

_decode = msgspec.json.Decoder(dict[str, Any]).decode


class _Place(NamedTuple):
    """One text of an answer: a choice's field, and the number of the call whose arguments it is."""

    choice: int
    field: str
    call: int | None = None


class RestoredStream:
    """The stream with the things of `vault` put back. Closing it closes the other one."""

    def __init__(self, stream: ByteStream, vault: Vault) -> None:
        self._source = stream
        self._restoring = Restoring(vault)
        self._stream = self._restored()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._stream

    async def aclose(self) -> None:
        """The client left, or has all."""
        await self._stream.aclose()
        await self._source.aclose()

    async def _restored(self) -> AsyncGenerator[bytes, None]:
        decoder = SseDecoder()
        async for chunk in self._source:
            if passed := self._restoring.feed(decoder.feed(chunk)):
                yield passed
        events, _ = decoder.close()
        if passed := self._restoring.feed(events) + self._restoring.release():
            yield passed


def restore_events(body: bytes, vault: Vault) -> bytes:
    """A whole event stream with the things of `vault` put back."""
    restoring, decoder = Restoring(vault), SseDecoder()
    events = decoder.feed(body) + decoder.close()[0]
    return restoring.feed(events) + restoring.release()


class Restoring:
    """The state of one stream: what is held back of each of its texts."""

    __slots__ = ("_held", "_last", "_vault")

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._held: dict[_Place, str] = {}
        self._last: bytes = b"{}"

    def feed(self, events: list[Event]) -> bytes:
        """The bytes for the caller."""
        return b"".join([event.raw if event.data is None else self._pass(event, event.data) for event in events])

    def release(self) -> bytes:
        """An event with all that is held back: nothing follows that could complete it."""
        if not self._held:
            return b""
        said = _read(self._last)
        choices = [self._rest_of(choice) for choice in sorted({place.choice for place in self._held})]
        return _event({**{name: said[name] for name in _HEAD if name in said}, "choices": choices})

    def _pass(self, event: Event, data: bytes) -> bytes:
        if not self._held and not _may_begin(data):
            self._last = data
            return event.raw
        chunk = {} if data == DONE else _read(data)
        choices = chunk.get("choices")
        if not isinstance(choices, list) or not choices:
            return self.release() + event.raw
        self._last = data
        changed = [self._in_choice(choice) if isinstance(choice, dict) else choice for choice in choices]
        return event.raw if changed == choices else _event({**chunk, "choices": changed})

    def _in_choice(self, choice: dict[str, Any]) -> dict[str, Any]:
        index = choice.get("index") or 0
        spoken: set[_Place] = set()
        changed = dict(choice)
        if isinstance(choice.get("text"), str):
            changed["text"] = self._say(_Place(index, "text"), choice["text"], spoken)
        if isinstance(delta := choice.get("delta"), dict):
            changed["delta"] = self._in_delta(index, delta, spoken)
        if spoken or choice.get("finish_reason"):
            self._end(index, changed, set() if choice.get("finish_reason") else spoken)
        return changed

    def _in_delta(self, index: int, delta: dict[str, Any], spoken: set[_Place]) -> dict[str, Any]:
        changed = dict(delta)
        for field in _TEXTS:
            if isinstance(text := delta.get(field), str) and text:
                changed[field] = self._say(_Place(index, field), text, spoken)
        if isinstance(calls := delta.get("tool_calls"), list):
            changed["tool_calls"] = [self._in_call(index, call, spoken) for call in calls]
        if isinstance(called := delta.get("function_call"), dict):
            changed["function_call"] = self._in_function(_Place(index, "function_call"), called, spoken)
        return changed

    def _in_call(self, index: int, call: Any, spoken: set[_Place]) -> Any:
        if not isinstance(call, dict) or not isinstance(function := call.get("function"), dict):
            return call
        place = _Place(index, "tool_calls", call.get("index") or 0)
        return {**call, "function": self._in_function(place, function, spoken)}

    def _in_function(self, place: _Place, function: dict[str, Any], spoken: set[_Place]) -> dict[str, Any]:
        arguments = function.get("arguments")
        if not isinstance(arguments, str) or not arguments:
            return function
        return {**function, "arguments": self._say(place, arguments, spoken)}

    def _say(self, place: _Place, text: str, spoken: set[_Place]) -> str:
        """What the caller may hear of it now."""
        spoken.add(place)
        text = self._held.pop(place, "") + text
        if length := self._vault.held_back(text):
            self._held[place] = text[-length:]
            text = text[:-length]
        return self._vault.restore(text, escaped=self._is_json(place))

    def _is_json(self, place: _Place) -> bool:
        return place.field in ("tool_calls", "function_call") or self._vault.is_json(place.field)

    def _end(self, index: int, choice: dict[str, Any], but: set[_Place]) -> None:
        """Texts of the choice that it goes on from have ended: what was held back of them is said in this event."""
        for place in [place for place in self._held if place.choice == index and place not in but]:
            _add(choice, place, self._held.pop(place))

    def _rest_of(self, index: int) -> dict[str, Any]:
        is_text = any(place == (index, "text", None) for place in self._held)
        rest: dict[str, Any] = {"index": index, **({"text": ""} if is_text else {"delta": {}}), "finish_reason": None}
        self._end(index, rest, set())
        return rest


def _may_begin(data: bytes) -> bool:
    """Is there more than the bracket of its choices? An escape may hide one."""
    return data.count(b"[") != 1 or any(sign in data for sign in _OTHER_BRACKETS)


def _add(choice: dict[str, Any], place: _Place, text: str) -> None:
    """Say `text` at its place, behind what the choice says there."""
    if place.field == "text":
        choice["text"] = (choice.get("text") or "") + text
        return
    delta = choice["delta"] = dict(choice.get("delta") or {})
    if place.field == "tool_calls":
        delta["tool_calls"] = [*(delta.get("tool_calls") or ()), {"index": place.call, "function": {"arguments": text}}]
    elif place.field == "function_call":
        called = delta.get("function_call") or {}
        delta["function_call"] = {**called, "arguments": (called.get("arguments") or "") + text}
    else:
        delta[place.field] = (delta.get(place.field) or "") + text


def _read(data: bytes) -> dict[str, Any]:
    try:
        return _decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}


def _event(chunk: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % msgspec.json.encode(chunk)
