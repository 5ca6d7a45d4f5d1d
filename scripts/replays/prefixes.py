"""How much of the prompts a node has read already, by how requests are spread over nodes.

A node keeps the blocks of prompts that it has read, the least recently used out first, as vLLM's prefix cache does. A
block is found only behind the block before it, which a trace's block names say by themselves.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from isochrone.routing import affinity
from replays.traces import Asked

Spread = Callable[[Asked], int]
# An engine's block of 512 tokens has about so many characters; affinity looks at how each message begins.
_BLOCK_CHARACTERS = 2048


class Node:
    """One node's memory of `capacity` blocks; None remembers everything."""

    def __init__(self, capacity: int | None) -> None:
        self._capacity = capacity
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def read(self, blocks: Sequence[int]) -> int:
        """How many blocks from the first on were there; all of them are there now."""
        found = 0
        for block in blocks:
            if block not in self._blocks:
                break
            found += 1
        for block in blocks:
            self._blocks[block] = None
            self._blocks.move_to_end(block)
        while self._capacity is not None and len(self._blocks) > self._capacity:
            self._blocks.popitem(last=False)
        return found


def hit_ratio(rows: Iterable[Asked], spread: Spread, *, nodes: int, capacity: int | None) -> float:
    """The share of all blocks of all prompts that their node had read."""
    memories = [Node(capacity) for _ in range(nodes)]
    found = total = 0
    for row in rows:
        found += memories[spread(row)].read(row.blocks)
        total += len(row.blocks)
    return found / total if total else 0.0


def at_random(nodes: int, chance: random.Random) -> Spread:
    """Wherever."""
    return lambda row: chance.randrange(nodes)


def by_affinity(nodes: int) -> Spread:
    """As the planner spreads near-equals: by the beginning of the first system message and of the first question."""

    def spread(row: Asked) -> int:
        key = affinity.digest(_beginning(row))
        return max(range(nodes), key=lambda node: affinity.score(f"node-{node}", 1.0, key or 0))

    return spread


def _beginning(row: Asked) -> dict[str, Any]:
    """The first block stands for the system prompt, the second for how the question begins."""
    texts = [f"{block} ".ljust(_BLOCK_CHARACTERS, "x") for block in row.blocks[:2]]
    roles = ("system", "user") if len(texts) > 1 else ("user",)
    return {"messages": [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]}
