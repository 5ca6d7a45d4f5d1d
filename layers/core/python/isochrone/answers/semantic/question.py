"""What may be answered by a similar question's answer: the text that was asked last, and the scope around it.

The scope is a digest of everything else: tenant, model and revision, regions, and every other field of the request
(system prompt, earlier turns, parameters). So two questions of one scope differ in this text only.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from isochrone.answers.fingerprint import fingerprint
from isochrone.answers.inquiry import Inquiry
from isochrone.answers.semantic.language import language_of
from isochrone.api.requests import COMPLETION, Ask

# Stands where the text was. No request has it: the shapes let only text and lists stand there.
_ANYTHING: dict[str, Any] = {"asked": "anything"}


class Question(NamedTuple):
    """`scope` is 64 hex digits, and never the fingerprint of a request."""

    text: str
    scope: str


def question_of(inquiry: Inquiry, *, max_chars: int) -> Question | None:
    """The question, or None where only the same request has the same answer: the operator wants that, the last turn
    is no plain text of at most `max_chars`, or its language is neither English nor Chinese. Raises BadRequest."""
    text = inquiry.text
    if inquiry.mark is None or not inquiry.terms.semantic or text is None or len(text) > max_chars:
        return None
    if "\0" in text or language_of(text) is None:  # the embedder reads no further than to a NUL
        return None
    return Question(text, _scope_of(inquiry))


def _scope_of(inquiry: Inquiry) -> str:
    ask = inquiry.ask._replace(fields=_without_text(inquiry.ask))
    return fingerprint(inquiry.tenant, ask, revision=inquiry.revision, regions=inquiry.regions)


def _without_text(ask: Ask) -> dict[str, Any]:
    if ask.operation is COMPLETION:
        return {**ask.fields, "prompt": _ANYTHING}
    *earlier, last = ask.fields["messages"]
    return {**ask.fields, "messages": [*earlier, {**last, "content": _ANYTHING}]}
