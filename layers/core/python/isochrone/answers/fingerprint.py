"""Which requests have the same answer: canonical request -> key, scoped by tenant, by what stands behind the model's
name and by where it may be answered.

Deny unknown: every field of the body is part of the key, except those listed here that change only how the answer
travels. So a field that we do not know can make a miss, never a wrong hit. Only what has one meaning in two spellings
is made the same: the order of an object's fields, 1.0 and 1, null and absent for the options that OpenAI's API
documents as nullable, and the normal forms of Unicode in what a person wrote.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from hashlib import sha256
from typing import Any
from unicodedata import normalize

import msgspec

from isochrone.api.requests import CHAT, EMBEDDING, Ask, encode

_ONLY_TRANSPORT = frozenset({"stream", "stream_options"})
_OPTIONAL = frozenset(
    {"best_of", "dimensions", "echo", "encoding_format", "frequency_penalty", "function_call", "functions"}
    | {"logit_bias", "logprobs", "max_completion_tokens", "max_tokens", "n", "parallel_tool_calls", "presence_penalty"}
    | {"reasoning_effort", "response_format", "seed", "stop", "suffix", "temperature", "tool_choice", "tools"}
    | {"top_logprobs", "top_p", "user"}
)
# The longest whole number that every float in between is exact about.
_EXACT = 2.0**53
_VERSION = 3
_OWNER_DIGITS = 16
_encode = msgspec.json.Encoder(order="deterministic").encode
_PLAIN = frozenset({str, int, bool, type(None)})


def fingerprint(tenant: str, ask: Ask, *, revision: str = "", regions: Collection[str] | None = None) -> str:
    """64 hex digits; equal exactly when tenant, operation, `revision`, `regions` and every meaningful field are equal.
    The first of them say whose it is, so nobody has to look at an answer to know that it is somebody else's.

    `revision` says what stands behind the model's name. `regions` are those where the request may be answered, None for
    anywhere: what was generated elsewhere is no answer for who must stay. Raises BadRequest.
    """
    where = None if regions is None else sorted(regions)
    scope = [_VERSION, tenant, revision, where]
    digest = sha256(encode([scope, ask.operation.name, ask.fields], by=_canonical)).hexdigest()
    return _owner(tenant) + digest[_OWNER_DIGITS:]


def is_of(tenant: str, mark: str) -> bool:
    """Is this the fingerprint of a request of that tenant?"""
    return mark.startswith(_owner(tenant))


@lru_cache(maxsize=1024)
def _owner(tenant: str) -> str:
    return sha256(tenant.encode()).hexdigest()[:_OWNER_DIGITS]


def _canonical(scoped: list[Any]) -> bytes:
    scope, operation, fields = scoped
    told = {name: _plain(value) for name, value in fields.items() if not _is_idle(name, value)}
    if operation == CHAT.name:
        told["messages"] = [_turn(turn) for turn in told["messages"]]
    else:
        told |= {name: _prompt(told[name]) for name in ("prompt", "input") if name in told}
    return _encode([*scope, operation, told])


def _is_idle(name: str, value: Any) -> bool:
    return name in _ONLY_TRANSPORT or (value is None and name in _OPTIONAL)


def _turn(turn: dict[str, Any]) -> dict[str, Any]:
    content = turn.get("content")
    said = [_part(part) for part in content] if isinstance(content, list) else _text(content)
    return {**turn, "content": said} if "content" in turn else turn


def _part(part: dict[str, Any]) -> dict[str, Any]:
    return {**part, "text": _text(part["text"])} if part.get("type") == "text" and "text" in part else part


def _prompt(prompt: Any) -> Any:
    return [_text(one) for one in prompt] if isinstance(prompt, list) else _text(prompt)


def _text(value: Any) -> Any:
    return normalize("NFC", value) if isinstance(value, str) else value


def _plain(value: Any) -> Any:
    """The same value, in which whole floats are integers."""
    if type(value) is dict:
        return {name: one if type(one) in _PLAIN else _plain(one) for name, one in value.items()}
    if type(value) is list:
        return [one if type(one) in _PLAIN else _plain(one) for one in value]
    return int(value) if type(value) is float and value.is_integer() and abs(value) <= _EXACT else value


def storable(ask: Ask, *, sampled: bool, also: Collection[str] = ()) -> bool:
    """May the answer to this request be kept? One prompt and one plain choice, no tools or log probabilities, and no
    wish for variety; `also` are those of "tools", "logprobs" and "choices" that the operator allows all the same.

    An unset temperature is no such wish; one above 0 is, unless the operator says `sampled`.
    """
    fields = ask.fields
    if ask.operation is EMBEDDING:
        return True
    if any(_asks_for(wish, ask) for wish in ("tools", "logprobs", "choices") if wish not in also):
        return False
    return sampled or not fields.get("temperature")


_WISHES = {"tools": ("tools", "functions"), "logprobs": ("logprobs", "top_logprobs", "prompt_logprobs")}


def _asks_for(wish: str, ask: Ask) -> bool:
    if wish == "choices":
        return ask.choices != 1 or ask.fields.get("best_of") not in (None, 1)
    return any(_is_set(ask.fields.get(name)) for name in _WISHES[wish])


def _is_set(value: Any) -> bool:
    """0 log probabilities beside each token are still those of the tokens."""
    return value is not None and value is not False and value not in ([], {})
