"""Policies from JSON, as the directory and the commands have them: the same keys as in the configuration."""

from __future__ import annotations

import tomllib
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from isochrone.policy_contradictions import unusable
from isochrone.settings import Policy
from isochrone.toml_errors import KeyPath, dotted, in_plain_words, line_of, path_of

_decode = msgspec.json.Decoder(Policy).decode


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    policy: Annotated[tuple[Policy, ...], Meta(min_length=1)]


class PolicyUnusable(ValueError):
    """No policy that an edge could obey; the text is one line that names the key."""


def policy_of(text: str) -> Policy:
    """One policy. Raises PolicyUnusable."""
    try:
        policy = _decode(text)
    except msgspec.ValidationError as error:
        path, why = _explained(error, Policy)
        raise PolicyUnusable(f"{dotted(path)}: {why}") from None
    except (msgspec.DecodeError, UnicodeError) as error:
        raise PolicyUnusable(f"no JSON: {error}") from None
    for path, why in unusable(policy):
        raise PolicyUnusable(f"{dotted(path)}: {why}")
    return policy


def text_of(policy: Policy) -> str:
    """The policy as JSON."""
    return msgspec.json.encode(policy).decode()


def policies_in(text: str, name: str) -> tuple[Policy, ...]:
    """Those of a file: [[policy]] tables, or in JSON (where its name ends so) one policy or a list of them.

    Raises PolicyUnusable.
    """
    try:
        data = _listed(msgspec.json.decode(text)) if name.endswith(".json") else tomllib.loads(text)
    except (msgspec.DecodeError, tomllib.TOMLDecodeError) as error:
        raise PolicyUnusable(f"{name}: {error}") from None
    try:
        policies = msgspec.convert(data, _File).policy
    except msgspec.ValidationError as error:
        path, why = _explained(error, _File)
        raise unusable_at(text, name, path, why) from None
    for i, policy in enumerate(policies):
        for where, why in unusable(policy):
            raise unusable_at(text, name, ("policy", i, *where), why)
    return policies


def unusable_at(text: str, name: str, path: KeyPath, why: str) -> PolicyUnusable:
    """What is wrong at one key of a file."""
    return PolicyUnusable(f"{name}:{line_of(text, path)}: {dotted(path)}: {why}")


def _listed(data: Any) -> Any:
    if isinstance(data, list):
        return {"policy": data}
    return {"policy": [data]} if isinstance(data, dict) and "policy" not in data else data


def _explained(error: msgspec.ValidationError, schema: type) -> tuple[KeyPath, str]:
    message, _, trail = str(error).partition(" - at `$")
    path = path_of(trail.rstrip("`"), message)
    return path, in_plain_words(message, path, schema)
