"""Who has probably read the beginning of this prompt already? Nobody remembers: both sides compute the same answer.

An engine keeps the blocks of prompts that it has read (vLLM's prefix cache, llama.cpp's slots) and does not read them
again. So requests that begin alike should meet the same backend. `digest` is a number for the beginning, the same in
every turn of a conversation; `score` ranks backends for it by weighted rendezvous hashing (Thaler and Ravishankar
1998; weights after Schindelhauer and Schomaker 2005), where a backend that is lost gives its own requests to all the
others and moves no one else's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from hashlib import blake2b
from math import log
from typing import Any

# Of the system prompt and of the first question each. Long enough to tell conversations apart, short enough to be free.
_BLOCK_CHARACTERS = 1024
_MAX_PARTS = 8
_SYSTEM_ROLES = frozenset({"system", "developer"})
_64_BITS = 0xFFFF_FFFF_FFFF_FFFF
_2_TO_52 = float(1 << 52)


def digest(fields: Mapping[str, Any]) -> int | None:
    """64 bits for how the prompt of a checked request body begins; None where it has no beginning that engines keep.

    Of a chat that is its first system message and its first question, of a completion the beginning of its prompt.
    At most 2,048 characters are looked at.
    """
    beginning = _beginning_of_chat(fields["messages"]) if "messages" in fields else _text(fields.get("prompt"))
    if not beginning:
        return None
    return int.from_bytes(blake2b(beginning.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def _beginning_of_chat(messages: Iterable[Mapping[str, Any]]) -> str:
    """Up to the first message that is no system's: all later turns change from request to request."""
    beginning = []
    for message in messages:
        beginning.append(_text(message.get("content")))
        if message.get("role") not in _SYSTEM_ROLES or len(beginning) == _MAX_PARTS:
            break
    return "\0".join([beginning[0], beginning[-1]]) if any(beginning) else ""


def _text(content: object) -> str:
    """The first block of a text, or of the texts in a list of parts or prompts; tokens stand for themselves."""
    if isinstance(content, str):
        return content[:_BLOCK_CHARACTERS]
    if not isinstance(content, list):
        return ""
    if content and isinstance(content[0], int):
        return repr(content[: _BLOCK_CHARACTERS // _MAX_PARTS])
    texts = (part.get("text") if isinstance(part, dict) else part for part in content[:_MAX_PARTS])
    return "".join(text[:_BLOCK_CHARACTERS] for text in texts if isinstance(text, str))[:_BLOCK_CHARACTERS]


def score(name: str, weight: float, key: int) -> float:
    """How well `name` suits `key`, above 0: the best of all gets it. Of many keys, each is the best for a share in
    proportion to its weight."""
    bits = key * _multiplier(name) & _64_BITS  # multiply-shift hashing (Dietzfelbinger et al. 1997)
    return weight / -log(((bits >> 12) + 0.5) / _2_TO_52)  # of a number in (0, 1), both ends out of reach


@lru_cache(maxsize=1024)
def _multiplier(name: str) -> int:
    """An odd number of 64 bits."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big") | 1
