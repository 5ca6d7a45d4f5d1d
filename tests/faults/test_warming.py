"""Answers made before they are asked for, by a warmer beside a running edge that shares its tables."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from isochrone.ledger.demand import Demand
from isochrone.life import Stores
from isochrone.routing.leases import Leases
from isochrone.settings import SettingsError
from isochrone.stores.memory import MemoryAnswerStore, MemoryDirectoryStore, MemoryFleetStore, MemoryLedgerStore
from isochrone.stores.memory_rollups import MemoryRollupStore
from isochrone.stores.protocols import StoreUnavailable
from isochrone.warmer_function import RegionWarmer, build_warmer
from isochrone.warming.history import history
from isochrone.warming.stock import Item
from isochrone.warming.warmer import DUTY
from tests.faults.harness import RunningEdge, backend, running_edge, settings_with
from tests.faults.test_cache import KEYS, asked_and_settled, bearer
from tests.upstream import Upstream

TTL = 600
PRICE = {"input": 1.0, "output": 2.0}
# An answer that was just made is not worth making anew; this is almost at its end.
LATER = TTL * 0.8


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> Stores:
    """The tables of one region, which every process of it opens."""
    fleet = MemoryFleetStore()
    stores = Stores(
        MemoryAnswerStore(),
        MemoryLedgerStore(),
        MemoryRollupStore(),
        fleet,
        lambda _: fleet,
        None,
        MemoryDirectoryStore(),
    )
    monkeypatch.setattr("isochrone.wiring.open_stores", lambda *_: stores)
    monkeypatch.setattr("isochrone.warmer_function.open_stores", lambda *_: stores)
    return stores


def sections(**more: Any) -> dict[str, Any]:
    answers = {"warm": True, "ttl": TTL, **more.pop("answers", {})}
    return {"state": {"kind": "dynamodb"}, "answers": answers, **more}


@asynccontextmanager
async def warmer_beside(edge: RunningEdge, *, later: float = LATER) -> AsyncIterator[RegionWarmer]:
    warmer = build_warmer(edge.edge.pipeline.settings, region="us-east-1", environ={})
    warmer._warmer._clock = lambda: time.time() + later
    await warmer.start()
    try:
        yield warmer
    finally:
        await warmer.close()


async def often_asked(tables: Stores, mark: str, *, tenant: str = "anonymous", times: int = 3000) -> None:
    demand = Demand(tables.rollups, wanted=True)
    for _ in range(times):
        demand.asked(tenant, mark, time.time())
    await demand.flush()


async def known_mark(edge: RunningEdge, **options: Any) -> str:
    """Of an answer that the edge knows now, and its table too."""
    await asked_and_settled(edge, **options)
    return (await edge.chat(**options)).headers["x-isochrone-answer"]


async def test_an_answer_that_is_often_asked_for_is_made_anew_before_it_expires(near: Upstream, tables: Stores) -> None:
    async with running_edge(backend(near, price=PRICE), **sections()) as edge:
        mark = await known_mark(edge)
        await often_asked(tables, mark)
        async with warmer_beside(edge) as warmer:
            run = await warmer.run(seconds=60)
        entries = [entry for entry in await edge.ledger() if entry["request_id"].startswith("warm-")]
    assert (run.state, [one.outcome for one in run.made]) == ("done", ["made"])
    assert run.is_complete
    assert run.cost == pytest.approx(entries[0]["cost"])
    assert (len(near.requests), len(entries), entries[0]["answer"]) == (2, 1, mark)


async def test_what_is_made_is_known_to_every_edge_of_the_tables(near: Upstream, tables: Stores) -> None:
    async with running_edge(backend(near), **sections()) as edge:
        mark = await known_mark(edge)
        await often_asked(tables, mark)
        before = await tables.answers.get(mark, now=time.time())
        async with warmer_beside(edge) as warmer:
            await warmer.run(seconds=60)
        assert await tables.answers.get(mark, now=time.time()) != before
    async with running_edge(backend(near), **sections()) as another:
        assert (await another.chat()).headers["x-isochrone-cache"] == "hit"
    assert len(near.requests) == 2


async def test_it_is_asked_as_it_was_at_the_lowest_priority(near: Upstream, tables: Stores) -> None:
    asked = {"messages": [{"role": "user", "content": "Wie weit?"}], "temperature": 0, "seed": 7, "stream": True}
    async with running_edge(backend(near), **sections()) as edge:
        mark = await known_mark(edge, **asked)
        await often_asked(tables, mark)
        async with warmer_beside(edge) as warmer:
            item = await warmer._warmer._stock.item(mark, now=time.time())
            assert isinstance(item, Item)
            (made,) = (await warmer.run(seconds=60)).made
    assert (made.outcome, item.controls.priority) == ("made", 1)
    first, anew = (request.fields for request in near.requests)
    assert (anew["messages"], anew["seed"]) == (first["messages"], 7)


async def test_policies_of_now_say_whether_it_is_asked_and_where(tables: Stores) -> None:
    """Between the asking and the warming the operator denies the region where it was answered, then all of it."""
    all_of_it = {"id": "all", "effect": "allow"}
    here = {"id": "here", "effect": "deny", "resource": {"region": ["us-east-1"]}}
    at_home = {"id": "at-home", "effect": "deny", "condition": {"not_country": ["FR"]}}
    async with Upstream() as near, Upstream() as far:
        pools = backend(near), backend(far, place=1)
        async with running_edge(*pools, **sections(policy=[all_of_it])) as edge:
            mark = await known_mark(edge)
            await often_asked(tables, mark)
        for policies in ([all_of_it, here], [all_of_it, at_home], [here]):
            async with (
                running_edge(*pools, **sections(policy=policies)) as edge,
                warmer_beside(edge) as warmer,
            ):
                assert (await warmer.run(seconds=60)).made == ()
        assert (len(near.requests), far.requests) == (1, [])


async def test_what_a_rule_for_contents_forbids_by_now_is_not_asked_again(near: Upstream, tables: Stores) -> None:
    async with running_edge(backend(near), **sections()) as edge:
        await often_asked(tables, await known_mark(edge))
    rule = {"rule": [{"name": "far", "pattern": "how far"}]}
    async with running_edge(backend(near), **sections(content=rule)) as edge, warmer_beside(edge) as warmer:
        assert (await warmer.run(seconds=60)).made == ()
    assert len(near.requests) == 1


async def test_it_is_made_anew_where_policies_allow_it(tables: Stores) -> None:
    elsewhere = {"id": "there", "effect": "allow", "resource": {"region": ["eu-west-1"]}}
    async with Upstream() as near, Upstream() as far:
        pools = backend(near), backend(far, place=1, region="eu-west-1")
        async with running_edge(*pools, **sections(policy=[elsewhere])) as edge:
            mark = await known_mark(edge)
            await often_asked(tables, mark)
            async with warmer_beside(edge) as warmer:
                assert [one.outcome for one in (await warmer.run(seconds=60)).made] == ["made"]
        assert (near.requests, len(far.requests)) == ([], 2)


async def test_what_is_made_is_found_by_similar_questions_as_before(near: Upstream, tables: Stores) -> None:
    async with running_edge(backend(near), **sections(answers={"semantic": True})) as edge:
        mark = await known_mark(edge)
        await often_asked(tables, mark)
        async with warmer_beside(edge) as warmer:
            item = await warmer._warmer._stock.item(mark, now=time.time())
            assert isinstance(item, Item)
            similar: Any = edge.edge.pipeline.rooms.desk._similar
            entry = similar.entry_of(item.inquiry)
            (made,) = (await warmer.run(seconds=60)).made
            found = await tables.answers.search(entry.scope, entry.vector, limit=8, now=time.time())
    assert made.outcome == "made"
    assert [(one.fingerprint, one.question) for one in found] == [(mark, "How far?")]


async def test_a_plan_sends_nothing_and_says_what_and_why(near: Upstream, tables: Stores) -> None:
    async with running_edge(backend(near, price=PRICE), **sections()) as edge:
        await often_asked(tables, await known_mark(edge))
        async with warmer_beside(edge) as warmer:
            plan, spent = await warmer.plan()
    (line,) = plan.lines
    assert (line.model, line.tenant, line.kind, line.question, spent) == ("m", "anonymous", "rising", "How far?", 0.0)
    assert line.gain > 0
    assert len(near.requests) == 1


async def test_what_nobody_asked_for_again_is_left_alone(near: Upstream, tables: Stores) -> None:
    async with running_edge(backend(near), **sections()) as edge:
        await known_mark(edge)
        async with warmer_beside(edge) as warmer:
            assert (await warmer.run(seconds=60)).made == ()
    assert len(near.requests) == 1


async def test_a_warmed_answer_is_no_demand_for_more(near: Upstream, tables: Stores) -> None:
    async with running_edge(backend(near), **sections()) as edge:
        mark = await known_mark(edge)
        await often_asked(tables, mark)
        await edge.settled()
        before = await history(tables.rollups, tables.ledger, ["anonymous"], now=time.time())
        async with warmer_beside(edge) as warmer:
            assert (await warmer.run(seconds=60)).made
        assert len(await edge.ledger()) == 2
        assert await history(tables.rollups, tables.ledger, ["anonymous"], now=time.time()) == before


Change = Callable[[dict[str, Any]], None]


def _other_revision(document: dict[str, Any]) -> None:
    document["model"] = [{"name": "m", "revision": "2"}]


def _key_is_gone(document: dict[str, Any]) -> None:
    document["key"] = [KEYS[1]]


def _key_is_private(document: dict[str, Any]) -> None:
    document["key"] = [KEYS[0] | {"private": True}, KEYS[1]]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_other_revision, "kept under other settings"),
        (_key_is_private, "kept under other settings"),
        (_key_is_gone, "may not be asked any more"),
    ],
)
async def test_nothing_is_asked_in_the_name_of_a_key_that_may_not_ask_it_now(
    near: Upstream, tables: Stores, change: Change, why: str
) -> None:
    auth: dict[str, Any] = {"auth": {"required": True}, "key": KEYS}
    async with running_edge(backend(near), **sections(**auth)) as edge:
        await often_asked(tables, await known_mark(edge, headers=bearer("a")), tenant="a")
    change(auth)
    async with running_edge(backend(near), **sections(**auth)) as edge, warmer_beside(edge) as warmer:
        plan, _ = await warmer.plan()
    assert plan.lines == ()
    assert plan.left[why] == 1
    assert len(near.requests) == 1


async def test_an_answer_that_was_taken_back_is_not_brought_back(near: Upstream, tables: Stores) -> None:
    async with running_edge(backend(near), **sections()) as edge:
        mark = await known_mark(edge)
        await often_asked(tables, mark)
        revocations: Any = edge.edge.pipeline.rooms.desk._revocations
        await revocations.revoke("anonymous", answer=mark)
        async with warmer_beside(edge) as warmer:
            plan, _ = await warmer.plan()
    assert (plan.lines, plan.left["taken back, or known by another way"]) == ((), 1)
    assert len(near.requests) == 1


async def test_no_run_spends_more_than_the_days_budget(near: Upstream, tables: Stores) -> None:
    async with running_edge(backend(near, price=PRICE), **sections(warm={"budget": 0.00003})) as edge:
        for question in ("one", "two", "three"):
            asked = [{"role": "user", "content": question}]
            await often_asked(tables, await known_mark(edge, messages=asked))  # each costs 0.000025 dollars
        async with warmer_beside(edge) as warmer:
            first = await warmer.run(seconds=60)
            second = await warmer.run(seconds=60)
            _, spent = await warmer.plan()
    assert len(first.made) == 1
    assert second.made == ()
    assert spent == pytest.approx(0.000025) == pytest.approx(first.cost)


async def test_dollars_that_another_run_took_meanwhile_are_not_spent_again(near: Upstream, tables: Stores) -> None:
    async with running_edge(backend(near, price=PRICE), **sections()) as edge:
        await often_asked(tables, await known_mark(edge))
        async with warmer_beside(edge) as warmer:
            plan, _ = await warmer.plan()
            await warmer._warmer._spend(1.0)
            run = await warmer._warmer._make_all(list(plan.lines), time.monotonic() + 60)
            _, spent = await warmer.plan()
    assert (run.state, [one.outcome for one in run.made]) == ("out of budget", ["over budget"])
    assert spent == pytest.approx(1.0)
    assert len(near.requests) == 1


async def test_one_process_of_a_region_at_a_time(near: Upstream, tables: Stores) -> None:
    async with running_edge(backend(near), **sections()) as edge:
        await often_asked(tables, await known_mark(edge))
        other = Leases(tables.fleet, "other", time.time)
        assert await other.hold(DUTY, 60)
        async with warmer_beside(edge) as warmer:
            run = await warmer.run(seconds=60)
            assert (run.state, run.made, run.is_complete) == ("another process has the duty", (), True)
            await other.let_go()
            assert (await warmer.run(seconds=60)).state == "done"


async def test_a_run_gives_way_when_no_backend_is_free(near: Upstream, tables: Stores) -> None:
    routing = {"probe_interval": 0, "max_wait": 0}
    async with running_edge(backend(near), **sections(routing=routing)) as edge:
        for number in range(6):
            asked = [{"role": "user", "content": str(number)}]
            await often_asked(tables, await known_mark(edge, messages=asked))
        before = len(near.requests)
        near.scripts["ok"] = near.scripts["dead"]
        async with warmer_beside(edge) as warmer:
            run = await warmer.run(seconds=60)
    assert run.state == "the fleet is busy"
    assert not run.is_complete
    assert {one.outcome for one in run.made} == {"no backend is free"}
    assert len(run.made) <= 4
    assert run.cost == 0.0
    assert before == 6


async def test_a_run_without_time_begins_nothing(near: Upstream, tables: Stores) -> None:
    async with running_edge(backend(near), **sections()) as edge:
        await often_asked(tables, await known_mark(edge))
        async with warmer_beside(edge) as warmer:
            run = await warmer.run(seconds=4)
    assert (run.state, run.made) == ("out of time", ())


async def test_an_answer_that_may_not_be_kept_says_so(near: Upstream, tables: Stores) -> None:
    async with running_edge(backend(near), **sections()) as edge:
        await often_asked(tables, await known_mark(edge))
        near.scripts["ok"] = near.scripts["filtered"]
        async with warmer_beside(edge) as warmer:
            run = await warmer.run(seconds=60)
    assert [one.outcome for one in run.made] == ["not kept"]
    assert not run.is_complete


async def test_without_the_table_of_budgets_nothing_is_generated(near: Upstream, tables: Stores) -> None:
    fleet = tables.fleet
    assert isinstance(fleet, MemoryFleetStore)
    async with running_edge(backend(near), **sections()) as edge:
        await often_asked(tables, await known_mark(edge))
        async with warmer_beside(edge) as warmer:
            plan, _ = await warmer.plan()
            fleet.failing = True
            made = await warmer._warmer._try_to_make(plan.lines[0], time.monotonic() + 60)
            fleet.failing = False
    assert made.went_wrong
    assert len(near.requests) == 1


async def test_without_the_table_of_demand_nothing_is_made_and_the_duty_is_given_back(
    near: Upstream, tables: Stores
) -> None:
    rollups = tables.rollups
    assert isinstance(rollups, MemoryRollupStore)
    async with running_edge(backend(near), **sections()) as edge:
        await often_asked(tables, await known_mark(edge))
        rollups.failing = True
        async with warmer_beside(edge) as warmer:
            with pytest.raises(StoreUnavailable):
                await warmer.run(seconds=60)
            rollups.failing = False
            assert (await warmer.run(seconds=60)).state == "done"


async def test_requests_are_kept_with_answers_only_where_answers_are_warmed(near: Upstream, tables: Stores) -> None:
    async with running_edge(backend(near), **sections(answers={"warm": False})) as edge:
        mark = await known_mark(edge)
    async with running_edge(backend(near), **sections()) as edge, warmer_beside(edge) as warmer:
        await often_asked(tables, mark)
        plan, _ = await warmer.plan()
    assert plan.left["kept without its request"] == 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"state": {"kind": "memory"}}, 'state.kind = "memory": only the edge that holds the answers knows them'),
        (
            {"answers": {"warm": False}},
            "answers.warm = false: requests are not kept, so no answer can be asked for again",
        ),
    ],
)
def test_a_warmer_that_makes_no_sense_is_one_line(more: dict[str, Any], message: str) -> None:
    facts = {"name": "b", "base_url": "http://127.0.0.1:9/v1", "models": {"m": "m"}}
    with pytest.raises(SettingsError) as caught:
        build_warmer(settings_with(facts, **(sections() | more)), region="us-east-1", environ={})
    assert str(caught.value) == message
