from __future__ import annotations

from typing import Any

import pytest


def entry(
    tenant: str = "team-a", *, at: float, request: str = "req-1", attempt: int = 1, **more: Any
) -> dict[str, Any]:
    return {"tenant": tenant, "request_id": request, "attempt": attempt, "started_at": at} | more


async def test_entry_comes_back_with_every_kind_of_value(stores: Any) -> None:
    kept = entry(
        at=stores.clock.now + 0.25, model="模型 é", backend="", task_id=None, input_tokens=12, cost=1.5e-07, cached=True
    )
    await stores.ledger.append([kept])
    assert await stores.ledger.recent("team-a") == [kept]


async def test_same_attempt_twice_is_kept_once_and_the_first_stays(stores: Any) -> None:
    now = stores.clock.now
    first = entry(at=now, outcome="ok")
    await stores.ledger.append([first, first])
    await stores.ledger.append([entry(at=now, outcome="rewritten"), entry(at=now, attempt=2, outcome="ok")])
    assert [(e["attempt"], e["outcome"]) for e in await stores.ledger.recent("team-a")] == [(2, "ok"), (1, "ok")]


async def test_reused_request_id_does_not_swallow_a_later_attempt(stores: Any) -> None:
    now = stores.clock.now
    await stores.ledger.append([entry(at=now), entry(at=now + 5)])
    assert len(await stores.ledger.recent("team-a")) == 2


async def test_recent_is_newest_first_whatever_the_order_of_appending(stores: Any) -> None:
    now = stores.clock.now
    moments = [now + 3, now + 1, now + 86_400, now + 2.5, now - 86_400]
    for moment in moments:
        await stores.ledger.append([entry(at=moment)])
    assert [e["started_at"] for e in await stores.ledger.recent("team-a")] == sorted(moments, reverse=True)


async def test_recent_gives_at_most_limit_entries(stores: Any) -> None:
    now = stores.clock.now
    await stores.ledger.append([entry(at=now + i) for i in range(10)])
    newest = await stores.ledger.recent("team-a", limit=3)
    assert [e["started_at"] for e in newest] == [now + 9, now + 8, now + 7]


async def test_recent_shows_no_other_tenants_entries(stores: Any) -> None:
    now = stores.clock.now
    tenants = ["team-a", "team-ab", "team", "team-a#2026", "TEAM-A"]
    await stores.ledger.append([entry(tenant, at=now) for tenant in tenants])
    for tenant in tenants:
        assert [e["tenant"] for e in await stores.ledger.recent(tenant)] == [tenant]
    assert await stores.ledger.recent("stranger") == []


async def test_all_gives_every_tenants_entries_oldest_first(stores: Any) -> None:
    now = stores.clock.now
    await stores.ledger.append([entry("b", at=now + 2), entry("a", at=now + 3), entry("c", at=now + 1)])
    assert [e["tenant"] for e in await stores.ledger.all()] == ["c", "b", "a"]


async def test_all_gives_one_tenants_entries_alone(stores: Any) -> None:
    now = stores.clock.now
    await stores.ledger.append([entry("b", at=now + 2), entry("a", at=now + 3), entry("b", at=now + 1)])
    assert [(e["tenant"], e["started_at"]) for e in await stores.ledger.all(tenant="b")] == [
        ("b", now + 1),
        ("b", now + 2),
    ]


@pytest.mark.parametrize("tenant", [None, "team-a"])
async def test_all_begins_with_the_first_entry_at_a_given_moment(stores: Any, tenant: str | None) -> None:
    now = stores.clock.now
    await stores.ledger.append([entry(at=now + i / 2) for i in range(4)])
    found = await stores.ledger.all(tenant=tenant, since=now + 0.5)
    assert [e["started_at"] for e in found] == [now + 0.5, now + 1, now + 1.5]


async def test_more_than_one_page_of_entries_is_read_to_its_end(stores: Any) -> None:
    now = stores.clock.now
    # DynamoDB gives at most 1 MB a page.
    await stores.ledger.append([entry(at=now + i, note="x" * 100_000) for i in range(13)])
    assert [e["started_at"] for e in await stores.ledger.all()] == [now + i for i in range(13)]
    assert [e["started_at"] for e in await stores.ledger.recent("team-a", limit=12)] == [
        now + i for i in range(12, 0, -1)
    ]


async def test_entry_changed_after_it_was_appended_stays_as_it_was(stores: Any) -> None:
    mine = entry(at=stores.clock.now, outcome="ok")
    await stores.ledger.append([mine])
    mine["outcome"] = "changed"
    (await stores.ledger.recent("team-a"))[0]["outcome"] = "changed"
    assert (await stores.ledger.recent("team-a"))[0]["outcome"] == "ok"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("started_at", "2026-11-23"),
        ("started_at", float("nan")),
        ("request_id", None),
        ("attempt", "1"),
        ("tenant", ""),
    ],
)
async def test_entry_that_cannot_be_named_is_refused_with_the_fields_name(stores: Any, field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        await stores.ledger.append([entry(at=stores.clock.now) | {field: value}])
    assert await stores.ledger.all() == []


async def test_appending_nothing_is_no_error(stores: Any) -> None:
    await stores.ledger.append([])
    assert await stores.ledger.all() == []
