"""A short brown-out of everything; `python -m tests.faults.brown_outs` runs every table in every trouble."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

from tests.faults.brown_out import EVERYTHING, hanging
from tests.faults.brown_outs import NO_TROUBLE, brown_outs
from tests.faults.brown_world import OFTEN, OUTSIDERS, World, edges_of, world_of
from tests.faults.harness import eventually

pytestmark = pytest.mark.cloud


async def test_the_front_door_holds_while_every_table_and_the_audit_hang(ministack: str, tmp_path: Path) -> None:
    rows, found = await brown_outs(
        ["everything/hanging"], ministack, tmp_path, seconds=4, rate=25, say=lambda line: None
    )
    assert found == []
    assert [row.case for row in rows] == [NO_TROUBLE, "everything/hanging"]


async def test_edges_that_start_without_any_table_let_nobody_in_until_they_know_who_may(
    ministack: str, tmp_path: Path
) -> None:
    async with world_of(ministack, tmp_path) as world:
        world.way.begin(EVERYTHING, hanging)
        async with edges_of(world):
            assert await _statuses(world, *OFTEN) == {503}
            assert await _statuses(world, *OUTSIDERS) <= {401, 403, 503}
            world.way.end()
            await eventually(lambda: _all_get(world, 200, *OFTEN), within=60)
            assert await _statuses(world, *OUTSIDERS) <= {401, 403}


async def _statuses(world: World, *who: str) -> set[int]:
    return {one.status for one in await world.ask_everywhere(who, uuid4().hex)}


async def _all_get(world: World, status: int, *who: str) -> bool:
    return await _statuses(world, *who) == {status}
