"""Which requests are one plain question, and when two questions are the same."""

from __future__ import annotations

import re
from typing import Any
from unicodedata import normalize

from isochrone.answers.inquiry import asked_last
from isochrone.api.requests import CHAT, COMPLETION, Ask

_SPACES = re.compile(r"\s+")
_WIDE = re.compile("[\uff00-\uffef]+")
_APOSTROPHES = str.maketrans("‘’", "''")
_END = " .?!。…؟।"
_BEFORE = frozenset({"system", "developer"})
# What may stand in a request beside its question without making its answer another one. Whatever is not named here may
# ask for something that a standard answer is not: a tool call, a schema, a stop sequence, a field that we do not know.
_HARMLESS = (
    # what is asked, and how the answer travels
    frozenset({"model", "messages", "prompt", "n", "best_of", "stream", "stream_options"})
    # who asks, and what for
    | {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"}
    # how words are chosen, and how many
    | {"seed", "temperature", "top_p", "top_k", "min_p", "reasoning_effort", "verbosity"}
    | {"presence_penalty", "frequency_penalty", "repetition_penalty", "max_tokens", "max_completion_tokens"}
)


def question_of(ask: Ask) -> str | None:
    """The question of a request that asks one thing in words, after no other turn, for one answer in plain text."""
    if ask.operation not in (CHAT, COMPLETION) or ask.choices != 1 or ask.continues:
        return None
    fields = ask.fields
    if any(name not in _HARMLESS and not _says_nothing(name, value) for name, value in fields.items()):
        return None
    if any(message["role"] not in _BEFORE for message in fields.get("messages", ())[:-1]):
        return None
    return asked_last(ask)


def _says_nothing(name: str, value: Any) -> bool:
    if name == "response_format":
        return value in (None, {"type": "text"})
    return value in (None, False, 0, [], {})


def normalised(text: str) -> str:
    """The same for questions that differ by capitals, spaces, the width of characters and punctuation at the end.

    Not NFKC: it makes no difference between 5² and 52. And 5! is another number than 5.
    """
    narrow = _WIDE.sub(lambda found: normalize("NFKC", found.group()), text)
    words = _SPACES.sub(" ", normalize("NFC", narrow.translate(_APOSTROPHES)).casefold()).strip()
    bare = words.rstrip(_END)
    return words[: len(bare) + 1] if bare[-1:].isdigit() and words[len(bare) :].startswith("!") else bare


def room_for(ask: Ask) -> int | None:
    """How many tokens the caller takes; None for any number."""
    limits = [ask.fields.get(name) for name in ("max_tokens", "max_completion_tokens")]
    return min((limit for limit in limits if limit is not None), default=None)
