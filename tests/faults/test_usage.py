"""What an attempt used and cost, as the ledger has it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.harness import RunningEdge, backend, running_edge
from tests.upstream import TEXT, USAGE, Upstream

ALONE: dict[str, Any] = {"retry": {"attempts": 1}}
PRICE: dict[str, Any] = {"input": 1.0, "output": 2.0}


async def entry_of(edge: RunningEdge, *, stream: bool, **headers: str) -> dict[str, Any]:
    """Ask once; the entry of the one attempt."""
    await edge.chat(stream=stream, headers={"x-isochrone-cache": "no-store", **headers})
    (entry,) = await edge.edge.pipeline.rooms.book.recent("anonymous", limit=9)
    return entry


@pytest.mark.parametrize(("stream", "assemble"), [(True, True), (False, True), (False, False)])
async def test_tokens_of_an_engine_that_counts_are_its_own(near: Upstream, stream: bool, assemble: bool) -> None:
    async with running_edge(backend(near, price=PRICE, assemble=assemble), **ALONE) as edge:
        entry = await entry_of(edge, stream=stream)
    assert (entry["input_tokens"], entry["output_tokens"]) == (USAGE["prompt_tokens"], USAGE["completion_tokens"])
    assert (entry["usage_estimated"], entry["cost"]) == (False, pytest.approx(25e-6))


@pytest.mark.parametrize(("stream", "assemble"), [(True, True), (False, True), (False, False)])
async def test_tokens_of_an_engine_that_does_not_count_are_estimated_and_marked(
    near: Upstream, stream: bool, assemble: bool
) -> None:
    async with running_edge(backend(near, "without-usage", price=PRICE, assemble=assemble), **ALONE) as edge:
        entry = await entry_of(edge, stream=stream)
    assert (entry["outcome"], entry["usage_estimated"]) == ("ok", True)
    assert entry["output_tokens"] == pytest.approx(USAGE["completion_tokens"], abs=2)
    assert entry["cost"] == pytest.approx((entry["input_tokens"] + 2 * entry["output_tokens"]) / 1e6)


async def test_stream_that_was_cut_costs_what_it_had_generated(near: Upstream) -> None:
    async with running_edge(backend(near, "stalled", price=PRICE), deadlines={"stall": 0.1}, **ALONE) as edge:
        entry = await entry_of(edge, stream=True, **{"x-isochrone-recovery": "error"})
    assert (entry["outcome"], entry["usage_estimated"]) == ("silent", True)
    assert 0 < entry["output_tokens"] < len(TEXT.split())
    assert entry["cost"] > 0


@pytest.mark.parametrize("model", ["dead", "busy", "empty-body", "silent", "error-first"])
async def test_failed_attempt_that_generated_nothing_costs_nothing(near: Upstream, model: str) -> None:
    pool = backend(near, model, price=PRICE)
    async with running_edge(pool, deadlines={"first_token": 0.1}, **ALONE) as edge:
        entry = await entry_of(edge, stream=True)
    assert entry["outcome"] != "ok"
    assert (entry["cost"], entry["output_tokens"], entry["usage_estimated"]) == (0.0, None, False)


@pytest.mark.parametrize(("model", "ambiguous"), [("hung-up", True), ("reset", True), ("dead", False)])
async def test_connection_that_dropped_before_a_reply_leaves_an_ambiguous_attempt(
    near: Upstream, model: str, ambiguous: bool
) -> None:
    async with running_edge(backend(near, model), **ALONE) as edge:
        entry = await entry_of(edge, stream=False)
    assert entry["ambiguous"] is ambiguous
