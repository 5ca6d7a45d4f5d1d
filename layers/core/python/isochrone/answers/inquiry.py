"""One request as the answers see it: which answer it wants, from whom it may come, and on what terms."""

from __future__ import annotations

from typing import NamedTuple

from isochrone.answers.terms import Terms
from isochrone.api.controls import CacheMode
from isochrone.api.requests import CHAT, COMPLETION, Ask
from isochrone.settings import Settings


class Inquiry(NamedTuple):
    """`mark` is the fingerprint, None when its answer may be neither known nor shared. `text` is what was asked last.

    `revision` tells apart what has stood behind a model's name, `regions` are those where it may be answered.
    """

    tenant: str
    ask: Ask
    mark: str | None
    text: str | None
    terms: Terms
    mode: CacheMode
    revision: str = ""
    regions: frozenset[str] | None = None

    def __repr__(self) -> str:
        """Without what people say: it ends up in logs."""
        return f"Inquiry({self.tenant!r}, {self.mark}, {self.mode.name})"

    @property
    def may_keep(self) -> bool:
        """May its answer be kept?"""
        return self.mark is not None and self.terms.exact and self.terms.ttl > 0

    @property
    def may_read(self) -> bool:
        """May a known answer be given?"""
        return self.may_keep and self.mode in (CacheMode.USE, CacheMode.ONLY)

    @property
    def may_share(self) -> bool:
        """May it follow a generation that another request began? Who asks for a fresh answer wants one of its own."""
        return self.mark is not None and self.terms.coalesce and self.mode is CacheMode.USE


def asked_last(ask: Ask) -> str | None:
    """The text of the last user turn, or of a completion's only prompt; None where it is not plain text."""
    if ask.operation is COMPLETION:
        prompt = ask.fields.get("prompt")
        return prompt if isinstance(prompt, str) else None
    if ask.operation is not CHAT:
        return None
    last = ask.fields["messages"][-1]
    return _text_of(last.get("content")) if last.get("role") == "user" else None


def _text_of(content: object) -> str | None:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return None
    texts = [part["text"] for part in content if part.get("type") == "text" and isinstance(part.get("text"), str)]
    return "\n".join(texts) if len(texts) == len(content) else None


def revisions_of(settings: Settings) -> dict[str, str]:
    """By public model name: what stands behind it. Another revision, or another name at a backend, is another model,
    whose answers are not those of the one before."""
    stated = {model.name: model.revision for model in settings.model}
    there: dict[str, set[str]] = {}
    for backend in settings.backend:
        for public, name in backend.models.items():
            there.setdefault(public, set()).add(name)
    return {public: "\n".join([stated.get(public, ""), *sorted(names)]) for public, names in there.items()}
