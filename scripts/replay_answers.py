#!/usr/bin/env python3
"""What known answers would have saved: traces played through the edge's own rooms, in played time.

Reads traces of Mooncake (FAST'25): one JSON object a line with t_ms, in, out and h (ids of the prompt's 512-token
blocks), may be gzipped. Requests with the same h and in are the same prompt. Prints the ratio of exact and of coalesced
answers, the seconds and dollars that they save at the stated speed and price, and how much of the prompts a node has
read already when requests are spread at random or by affinity. Semantic answers cannot be told without texts.

Warming is tried on the traces, and on two weeks of a service desk that is made up (scripts/replays/traces.py says how):
its second week is measured, with warming and without.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from isochrone.settings import Price, Warm
from replays import played, prefixes
from replays.known import Engine, Replay, figures_of
from replays.traces import DAY, Asked, faq, mooncake
from replays.warmed import play_warmed

# Blocks of 512 tokens: what the KV cache of a T4 beside a 7B model in 4 bits holds, and one that forgets nothing.
_CAPACITIES = (273, None)
_BLOCK_TOKENS = 512
_TIERS = ("memory", "store", "coalesced")
_NO_HITS = {"hits": 0, "ratio": 0.0, "seconds_saved": 0.0, "dollars_saved": 0.0}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", nargs="*", type=Path, help="traces of Mooncake; none: only what is made up")
    parser.add_argument("--ttl", type=int, default=86_400, help="seconds that an answer is true (default 86400)")
    parser.add_argument("--input-rate", type=float, default=3000.0, help="prompt tokens a second (default 3000)")
    parser.add_argument("--output-rate", type=float, default=40.0, help="generated tokens a second (default 40)")
    parser.add_argument("--input-price", type=float, default=0.28, help="dollars a million (default 0.28)")
    parser.add_argument("--output-price", type=float, default=0.42, help="dollars a million (default 0.42)")
    parser.add_argument("--nodes", type=int, default=4, help="nodes for the prefix ratio (default 4)")
    parser.add_argument("--interval", type=int, default=900, help="seconds between runs of the warmer (default 900)")
    parser.add_argument("--second-worth", type=float, default=0.001, help="dollars (default 0.001)")
    parser.add_argument("--seed", type=int, default=1, help="of what is left to chance (default 1)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    asked = parser.parse_args()
    price = Price(input=asked.input_price, output=asked.output_price)
    trial = Trial(
        Engine(0.2, asked.input_rate, asked.output_rate, price),
        Warm(interval=asked.interval, second_worth=asked.second_worth),
        asked.ttl,
    )
    found = [
        {**measured(file.name, rows, trial), "prefix": prefix_ratios(rows, trial.engine, asked.nodes, asked.seed)}
        for file in asked.traces
        for rows in [mooncake(file)]
    ]
    chance = random.Random(asked.seed)  # noqa: S311
    found.append(measured("service desk, made up", faq(chance), trial, measure_from=7 * DAY))
    print(json.dumps(found, indent=2) if asked.json else "\n".join(line for one in found for line in lines_of(one)))
    return 0


class Trial(NamedTuple):
    """What all traces are played with; `ttl` is in seconds."""

    engine: Engine
    warm: Warm
    ttl: int


def measured(name: str, rows: Sequence[Asked], trial: Trial, *, measure_from: float = 0.0) -> dict[str, Any]:
    """What was known of a trace, with warming and without, from so many seconds on."""
    plain, warmed = (Replay(trial.engine, ttl=trial.ttl, measure_from=measure_from) for _ in range(2))
    played.run(plain.play(rows))
    beside = played.run(play_warmed(warmed, trial.warm, rows))
    return {
        "trace": name,
        "hours": round(rows[-1].at / 3600, 1),
        "without_warming": figures_of(plain),
        "with_warming": {
            **figures_of(warmed),
            "made": beside.made,
            "made_dollars": round(beside.dollars, 4),
            "spared_generations": beside.spared,
        },
        "prefix": [],
    }


def prefix_ratios(rows: Sequence[Asked], engine: Engine, nodes: int, seed: int) -> list[dict[str, Any]]:
    """The share of prompt blocks that their node had read, for each size of a node's memory, and the seconds of reading
    that affinity spares beside chance."""
    reading = sum(len(row.blocks) for row in rows) * _BLOCK_TOKENS / engine.input_per_second
    ratios = [_prefix_ratio(rows, nodes, capacity, seed) for capacity in _CAPACITIES]
    return [{**one, "seconds_spared": round((one["affinity"] - one["random"]) * reading, 1)} for one in ratios]


def _prefix_ratio(rows: Sequence[Asked], nodes: int, capacity: int | None, seed: int) -> dict[str, Any]:
    spreads = {
        "one_node": (lambda row: 0, 1),
        "random": (prefixes.at_random(nodes, random.Random(seed)), nodes),  # noqa: S311
        "affinity": (prefixes.by_affinity(nodes), nodes),
    }
    ratios = {
        spread: round(prefixes.hit_ratio(rows, choose, nodes=count, capacity=capacity), 4)
        for spread, (choose, count) in spreads.items()
    }
    return {"blocks_per_node": capacity, "nodes": nodes, **ratios}


def lines_of(found: dict[str, Any]) -> Iterable[str]:
    """A small table."""
    plain, warmed = found["without_warming"], found["with_warming"]
    yield f"{found['trace']}: {plain['requests']} requests, {found['hours']} h"
    yield f"  {'tier':12}{'hits':>8}{'ratio':>9}{'seconds saved':>16}{'dollars saved':>16}"
    for tier in _TIERS:
        yield _tier_line(tier, plain["tiers"].get(tier, _NO_HITS))
    yield _tier_line("all", {**plain, "ratio": plain["hit_ratio"]})
    yield "  semantic: not knowable, the trace has no texts"
    for one in found["prefix"]:
        memory = f"{one['blocks_per_node']} blocks a node" if one["blocks_per_node"] else "nodes that forget nothing"
        yield (
            f"  prompt blocks read before, {one['nodes']} nodes, {memory}: random {one['random']:.1%}, "
            f"affinity {one['affinity']:.1%}, which spares {one['seconds_spared']:.0f} s more "
            f"(one node {one['one_node']:.1%})"
        )
    yield (
        f"  warming: {warmed['made']} made for ${warmed['made_dollars']:.4f}, {warmed['spared_generations']} of them "
        f"spared a generation; hits {plain['hits']} -> {warmed['hits']}, waiting {plain['waited_seconds']:.0f} -> "
        f"{warmed['waited_seconds']:.0f} s, dollars {plain['generation_dollars']:.4f} -> "
        f"{warmed['generation_dollars'] + warmed['made_dollars']:.4f}"
    )


def _tier_line(tier: str, one: dict[str, Any]) -> str:
    saved = f"{one['seconds_saved']:>16.1f}{one['dollars_saved']:>16.4f}"
    return f"  {tier:12}{one['hits']:>8}{one['ratio']:>9.2%}{saved}"


if __name__ == "__main__":
    sys.exit(main())
