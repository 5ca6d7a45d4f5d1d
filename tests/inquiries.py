"""Inquiries for tests of the answers."""

from __future__ import annotations

from typing import Any

from isochrone.answers.inquiry import Inquiry, asked_last
from isochrone.answers.terms import Terms
from isochrone.api.controls import CacheMode
from isochrone.api.requests import CHAT, Ask


def chat(text: str = "How far?", **more: Any) -> Ask:
    fields = {"model": "m", "messages": [{"role": "user", "content": text}], **more}
    return Ask(CHAT, fields["model"], stream=False, include_usage=False, fields=fields)


def inquiry(
    mark: str | None = "f",
    *,
    ask: Ask | None = None,
    tenant: str = "t",
    ttl: float = 3600.0,
    revalidate: float = 0.0,
    on_error: float = 0.0,
    mode: CacheMode = CacheMode.USE,
) -> Inquiry:
    terms = Terms(exact=True, coalesce=True, ttl=ttl, revalidate=revalidate, on_error=on_error)
    ask = ask or chat()
    return Inquiry(tenant, ask, mark, asked_last(ask), terms, mode)
