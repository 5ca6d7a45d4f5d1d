"""A backend that is killed costs no client an error, and is used again when it is back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.faults.harness import backend, eventually, running_edge
from tests.upstream import TEXT, Upstream

NO_STORE = {"x-isochrone-cache": "no-store"}
PROBING: dict[str, Any] = {"routing": {"probe_interval": 0.1}}


async def test_killing_a_backend_in_a_loop_of_requests_fails_none_of_them(near: Upstream, far: Upstream) -> None:
    async with running_edge(backend(near), backend(far, place=1), **PROBING) as edge:
        served_by = []
        for number in range(120):
            if number == 40:
                await near.stop()
            answer = await edge.chat(headers=NO_STORE)
            assert (answer.status, answer.text()) == (200, TEXT)
            served_by.append(answer.headers["x-isochrone-backend"])
        assert set(served_by[:40]) == {"pool-0"}
        assert set(served_by[40:]) == {"pool-1"}
        await near.start()


async def test_killed_backend_is_used_again_once_a_probe_finds_it(near: Upstream, far: Upstream) -> None:
    async with running_edge(backend(near), backend(far, place=1), **PROBING) as edge:
        await near.stop()
        assert (await edge.chat(headers=NO_STORE)).headers["x-isochrone-backend"] == "pool-1"

        async def found_unreachable() -> bool:
            return bool((await edge.status())["backends"][0]["standing"] == "unreachable")

        async def answered_by_the_first() -> bool:
            return (await edge.chat(headers=NO_STORE)).headers["x-isochrone-backend"] == "pool-0"

        await eventually(found_unreachable, within=10)
        await near.start()
        await eventually(answered_by_the_first, within=10)


async def test_killing_a_backend_in_the_middle_of_its_streams_fails_none_of_them(near: Upstream, far: Upstream) -> None:
    async with running_edge(backend(near, "stalled"), backend(far, place=1), deadlines={"stall": 60.0}) as edge:
        streams = [asyncio.create_task(edge.chat(stream=True, headers=NO_STORE)) for _ in range(10)]
        await eventually(lambda: len(near.requests) == 10, within=10)
        await near.stop()
        answers = await asyncio.gather(*streams)
        assert [answer.text() for answer in answers] == [TEXT] * 10
        assert all(answer.events[-1] == b"[DONE]" for answer in answers)
        await near.start()


async def test_connection_that_was_closed_while_idle_does_not_fail_the_next_request(near: Upstream) -> None:
    async with running_edge(backend(near)) as edge:
        for _ in range(3):
            assert (await edge.chat(headers=NO_STORE)).status == 200
            await near.stop()
            await near.start()


@pytest.mark.parametrize(
    "metrics", [b"vllm:num_requests_waiting e\n", b"\xff\xfe\x00", b"vllm:num_requests_waiting 1e999\n", b"<html>"]
)
async def test_senseless_metrics_do_not_end_the_probing(near: Upstream, metrics: bytes) -> None:
    near.metrics = metrics
    async with running_edge(backend(near, engine="vllm"), routing={"probe_interval": 0.01}) as edge:
        await eventually(lambda: near.probes >= 10, within=10)
        assert (await edge.status())["backends"][0]["standing"] == "healthy"


async def test_engine_that_hangs_is_not_let_back_in_by_a_probe(near: Upstream) -> None:
    deadlines = {"first_token": 0.05}
    async with running_edge(backend(near, "silent", engine="vllm"), deadlines=deadlines, **PROBING) as edge:
        for _ in range(3):
            assert (await edge.chat(stream=True)).status == 504
        probes = near.probes
        await eventually(lambda: near.probes >= probes + 4, within=10)
        assert (await edge.status())["backends"][0]["standing"] == "ejected"


async def test_requests_that_wait_in_an_engine_are_seen_by_its_probe(near: Upstream, far: Upstream) -> None:
    near.metrics = b'vllm:num_requests_waiting{model_name="m"} 40\n'
    pools = backend(near, engine="vllm"), backend(far, place=1)
    async with running_edge(*pools, routing={"probe_interval": 0.01}) as edge:
        await eventually(lambda: near.probes >= 4, within=10)
        assert (await edge.status())["backends"][0]["waiting"] == 40
        assert (await edge.chat(headers=NO_STORE)).headers["x-isochrone-backend"] == "pool-1"
