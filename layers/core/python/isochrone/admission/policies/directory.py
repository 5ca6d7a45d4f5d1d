"""The rules of the directory table: one item each, its key the rule's id, its text JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isochrone.admission.policies.reading import PolicyUnusable, policy_of, text_of
from isochrone.settings import Policy
from isochrone.stores.protocols import DirectoryStore

PARTITION = "policy"

Texts = dict[str, str]


async def read(store: DirectoryStore, *, consistent: bool = False) -> Texts:
    """The texts of all rules by id. Raises StoreUnavailable."""
    return {key: _text(data) for key, data in (await store.items(PARTITION, consistent=consistent)).items()}


def _text(data: Mapping[str, Any]) -> str:
    return str(data.get("text", ""))


def policies_of(texts: Mapping[str, str]) -> list[Policy]:
    """The rules in the order of their ids. Raises PolicyUnusable when one of them cannot be obeyed: without it, the
    others might say something else than all of them together."""
    return [_policy(key, text) for key, text in sorted(texts.items())]


def _policy(key: str, text: str) -> Policy:
    try:
        policy = policy_of(text)
    except PolicyUnusable as error:
        raise PolicyUnusable(f"policy {key!r}: {error}") from None
    if policy.id != key:
        raise PolicyUnusable(f"policy {key!r}: id: is {policy.id!r} in its text")
    return policy


async def put(store: DirectoryStore, policy: Policy) -> None:
    """Write one rule whole. Raises StoreUnavailable, ValueError when it is too large."""
    await store.put(PARTITION, policy.id, {"text": text_of(policy)})


async def remove(store: DirectoryStore, name: str) -> None:
    """Raises StoreUnavailable."""
    await store.delete(PARTITION, name)
