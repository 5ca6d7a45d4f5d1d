"""An answer that an edge writes itself, in the shape in which a backend would have given it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from isochrone.answers.completion import Answer
from isochrone.api.requests import COMPLETION, Ask

Estimate = Callable[[Mapping[str, Any], str], dict[str, Any]]
"""A usage object for a request's fields and the text that answers it."""


def compose(ask: Ask, text: str, *, backend: str, created: float, usage: dict[str, Any]) -> Answer:
    """One choice that says `text` and ended by itself; `created` is epoch seconds. For chat and completion."""
    body: dict[str, Any] = {"id": "", "object": "", "created": int(created), "model": ask.model, "usage": usage}
    choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": "stop"}
    if ask.operation is COMPLETION:
        body |= {"object": "text_completion", "choices": [{**choice, "text": text}]}
    else:
        message = {"role": "assistant", "content": text}
        body |= {"object": "chat.completion", "choices": [{**choice, "message": message}]}
    return Answer(operation=ask.operation.name, backend=backend, created=created, body=body)
