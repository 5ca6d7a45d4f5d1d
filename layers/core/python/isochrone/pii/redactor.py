"""What becomes of personal data in a request and its answer, by the mode that holds for its caller.

    mode       backends and stores get     answers are kept                        logs and the audit get
    off        what was written            by the usual terms                      what was written
    log        what was written            where neither side holds personal data  kinds in place of the data
    upstream   placeholders                with placeholders                       kinds in place of the data

An answer in which a model wrote such data by itself is not kept in either of the two modes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from isochrone.api.errors import BadRequest
from isochrone.api.exchange import Reply
from isochrone.api.requests import Ask
from isochrone.api.texts import texts_in, texts_of, with_texts
from isochrone.pii.found import Finder, Found, TooMuch
from isochrone.pii.restoring import RestoredStream, restore_events
from isochrone.pii.vault import Vault
from isochrone.settings import PiiMode

_TOO_MUCH = "The request holds more of what looks like personal data than can be taken out at once; send it in parts."
_JSON_FORMATS = ("json_object", "json_schema")


class Redactor:
    """Takes out what `finder` finds."""

    def __init__(self, finder: Finder) -> None:
        self._finder = finder

    def redact(self, ask: Ask, mode: PiiMode) -> tuple[Ask, Vault | None]:
        """The request as others may see it, and what was taken out of it; None where that is nothing. Raises
        BadRequest when there is more than can be taken out."""
        if mode != "upstream":
            return ask, None
        texts = texts_of(ask)
        try:
            found = self._finder.find_in(texts)
        except TooMuch:
            raise BadRequest(_TOO_MUCH, code="too_much_personal_data") from None
        if not any(found):
            return ask, None
        vault = Vault(in_json=_answers_in_json(ask))
        for text in texts:
            vault.leave_alone(text)
        redacted = (_taken_out(text, places, vault) for text, places in zip(texts, found, strict=True))
        return with_texts(ask, lambda _: next(redacted)), vault

    def must_not_keep(self, ask: Ask, mode: PiiMode) -> bool:
        """Must nothing of this request, and of its answer, be kept or shared? Ask it of what `redact` gave."""
        return mode == "log" and self.has_personal_data(texts_of(ask))

    def may_keep(self, body: dict[str, Any], mode: PiiMode) -> bool:
        """May this answer be kept, as far as what the model says in it goes?"""
        return mode == "off" or not self.has_personal_data(texts_in(body.get("choices")))

    def has_personal_data(self, texts: Sequence[str]) -> bool:
        """Is there any in one of them?"""
        return self._finder.holds(texts)

    def clean(self, text: str) -> str:
        """For logs and the audit: kinds in place of the data, "[EMAIL]"."""
        try:
            found = self._finder.find(text)
        except TooMuch:
            return "[REDACTED]"
        return _replaced(text, [(one.start, one.end, f"[{one.label}]") for one in found])


def restored(reply: Reply, vault: Vault | None) -> Reply:
    """The reply with what was taken out of its request put back."""
    if vault is None:
        return reply
    if reply.stream is not None:
        reply.stream = RestoredStream(reply.stream, vault)
    elif reply.headers.get("content-type", "").startswith("text/event-stream"):
        reply.body = restore_events(reply.body, vault)
    else:
        reply.body = vault.restore_body(reply.body)
    return reply


def _taken_out(text: str, found: list[Found], vault: Vault) -> str:
    places = [(start, end, vault.take(text[start:end], label)) for start, end, label in found]
    return _replaced(text, places)


def _replaced(text: str, places: list[tuple[int, int, str]]) -> str:
    """`places` are (start, end, what stands there now), in order."""
    pieces, done = [], 0
    for start, end, instead in places:
        pieces += [text[done:start], instead]
        done = end
    return "".join([*pieces, text[done:]])


def _answers_in_json(ask: Ask) -> bool:
    wanted = ask.fields.get("response_format")
    return isinstance(wanted, dict) and wanted.get("type") in _JSON_FORMATS
