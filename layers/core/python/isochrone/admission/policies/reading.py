"""Policies from JSON, as the directory and the commands have them: the same keys as in the configuration."""

from __future__ import annotations

import msgspec

from isochrone.policy_contradictions import unusable
from isochrone.settings import Policy
from isochrone.toml_errors import dotted, in_plain_words, path_of

_decode = msgspec.json.Decoder(Policy).decode


class PolicyUnusable(ValueError):
    """No policy that an edge could obey; the text is one line that names the key."""


def policy_of(text: str) -> Policy:
    """One policy. Raises PolicyUnusable."""
    try:
        policy = _decode(text)
    except msgspec.ValidationError as error:
        message, _, trail = str(error).partition(" - at `$")
        path = path_of(trail.rstrip("`"), message)
        raise PolicyUnusable(f"{dotted(path)}: {in_plain_words(message, path, Policy)}") from None
    except (msgspec.DecodeError, UnicodeError) as error:
        raise PolicyUnusable(f"no JSON: {error}") from None
    for path, why in unusable(policy):
        raise PolicyUnusable(f"{dotted(path)}: {why}")
    return policy


def text_of(policy: Policy) -> str:
    """The policy as JSON."""
    return msgspec.json.encode(policy).decode()
