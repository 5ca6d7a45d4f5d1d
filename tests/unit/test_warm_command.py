"""`isochrone warm` and `isochrone answers stats`: what they print, and what they refuse."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from isochrone.cli import main
from isochrone.ledger.savings import Savings
from isochrone.stores.dynamodb.rollups import DynamoRollupStore
from isochrone.stores.memory_rollups import MemoryRollupStore
from isochrone.stores.protocols import StoreUnavailable
from isochrone.warming.plan import Alone, Line, Plan
from isochrone.warming.warmer import Made, Run
from tests.unit.test_savings import Generated

CONFIG = """
[state]
kind = "{kind}"

[[region]]
name = "eu-west-1"

[[region]]
name = "us-east-1"

[[backend]]
name = "pool"
base_url = "http://127.0.0.1:9/v1"
models = {{ "m" = "m" }}

[answers]
warm = {warm}
"""
NOW = 1_795_392_000.0
LINE = Line(
    at=NOW,
    tenant="a",
    mark="ab12",
    model="m",
    kind="popular",
    chance=0.9,
    saves=0.006,
    seconds=4.5,
    cost=0.001,
    why="22 asks a day",
    question="How far?",
)


class ScriptedWarmer:
    """Says the same in every region, and notes what it was asked."""

    def __init__(self, said: Run | Plan | Exception) -> None:
        self.said = said
        self.calls: list[str] = []

    async def start(self) -> None:
        self.calls.append("start")

    async def close(self) -> None:
        self.calls.append("close")

    async def plan(self) -> tuple[Plan, float]:
        assert isinstance(self._next("plan"), Plan)
        return self.said, 0.25  # type: ignore[return-value]

    async def run(self, *, seconds: float) -> Run:
        assert isinstance(self._next(f"run {seconds:g}"), Run)
        return self.said  # type: ignore[return-value]

    def _next(self, call: str) -> Run | Plan:
        self.calls.append(call)
        if isinstance(self.said, Exception):
            raise self.said
        return self.said


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., Result]:
    def run(*words: str, kind: str = "dynamodb", warm: str = "true") -> Result:
        config = tmp_path / "isochrone.toml"
        config.write_text(CONFIG.format(kind=kind, warm=warm))
        return CliRunner().invoke(main, [*words, "--config", str(config)])

    return run


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], ScriptedWarmer]:
    def script(said: Run | Plan | Exception) -> ScriptedWarmer:
        warmer = ScriptedWarmer(said)
        monkeypatch.setattr("isochrone.warmer_function.build_warmer", lambda *_, **__: warmer)
        return warmer

    return script


def test_plan_is_a_line_for_each_answer_and_a_count_of_the_others(command: Any, scripted: Any) -> None:
    warmer = scripted(Plan((LINE,), {"unlikely": 3, "not among the likeliest": 0}))
    found = command("warm", "--plan", "--region", "eu-west-1")
    assert found.exit_code == 0
    assert found.output.splitlines() == [
        "eu-west-1: 1 answers to make, $0.2500 of $1 spent today",
        "  2026-11-23T00:00:00Z  a  m  'How far?'  saves $0.0060 for $0.0010  22 asks a day",
        "  left: 3 (unlikely)",
    ]
    assert warmer.calls == ["start", "plan", "close"]


ALONE = Alone(tenant="a", mark="cd34", model="m", chance=0.12, why="unlikely", question="How long?")


def test_plan_says_of_each_answer_that_is_left_alone_why(command: Any, scripted: Any) -> None:
    scripted(Plan((), {"unlikely": 25}, (ALONE,) * 25))
    lines = command("warm", "--plan", "--region", "eu-west-1").output.splitlines()
    assert lines[1] == "  left: 25 (unlikely)"
    assert lines[2:22] == ["    a  m  'How long?'  unlikely; 12% that it is asked for once it has expired"] * 20
    assert lines[22:] == ["    and 5 more, all of them with --json"]
    said = json.loads(command("warm", "--plan", "--region", "eu-west-1", "--json").output)
    why = {"tenant": "a", "model": "m", "answer": "cd34", "question": "How long?", "chance": 0.12, "why": "unlikely"}
    assert said["alone"] == [why] * 25


def test_plan_for_nothing_says_that_nothing_was_asked(command: Any, scripted: Any) -> None:
    scripted(Plan((), {}))
    lines = command("warm", "--plan", "--region", "eu-west-1").output.splitlines()
    assert lines[1:] == ["  no answer was asked for, or the edges have not told yet: they do every 10 s"]


@pytest.mark.parametrize(
    ("cost", "text"),
    [(0.0, "$0.0000"), (0.000007, "$0.000007"), (0.00000043, "$0.00000043"), (0.001, "$0.0010"), (1.5, "$1.5000")],
)
def test_small_costs_are_told_with_digits_that_tell_something(
    command: Any, scripted: Any, cost: float, text: str
) -> None:
    scripted(Plan((LINE._replace(cost=cost),), {}))
    assert f"for {text}  " in command("warm", "--plan", "--region", "eu-west-1").output


def test_plan_as_json_is_one_object_for_each_region(command: Any, scripted: Any) -> None:
    scripted(Plan((LINE,), {}))
    said = [json.loads(line) for line in command("warm", "--plan", "--json").output.splitlines()]
    assert [one["region"] for one in said] == ["eu-west-1", "us-east-1"]
    assert said[0]["plan"] == [
        {
            "at": "2026-11-23T00:00:00Z",
            "tenant": "a",
            "model": "m",
            "answer": "ab12",
            "question": "How far?",
            "kind": "popular",
            "chance": 0.9,
            "saves": 0.006,
            "seconds": 4.5,
            "cost": 0.001,
            "why": "22 asks a day",
        }
    ]


def test_apply_says_what_was_made_and_what_it_cost(command: Any, scripted: Any) -> None:
    warmer = scripted(Run("done", (Made(LINE, "made", 0.0015), Made(LINE, "expired", 0.0))))
    found = command("warm", "--apply", "--seconds", "30", "--region", "us-east-1")
    assert found.exit_code == 0
    assert found.output.splitlines()[0] == "us-east-1: done, 1 answers made for $0.0015"
    assert found.output.splitlines()[2].startswith("  expired: a  m  'How far?'")
    assert "run 30" in warmer.calls


@pytest.mark.parametrize(
    "run",
    [
        Run("out of time"),
        Run("out of budget"),
        Run("the fleet is busy"),
        Run("done", (Made(LINE, "failed: nobody serves it", 0.0),)),
        Run("done", (Made(LINE, "not kept", 0.001),)),
    ],
    ids=lambda run: run.state,
)
def test_what_was_due_and_is_not_made_is_exit_status_1(command: Any, scripted: Any, run: Run) -> None:
    scripted(run)
    assert command("warm", "--apply", "--json").exit_code == 1


def test_another_process_with_the_duty_is_no_failure(command: Any, scripted: Any) -> None:
    scripted(Run("another process has the duty"))
    found = command("warm", "--apply")
    assert (found.exit_code, found.output.splitlines()[0]) == (
        0,
        "eu-west-1: another process has the duty, 0 answers made for $0.0000",
    )


def test_a_table_that_does_not_answer_is_one_line(command: Any, scripted: Any) -> None:
    warmer = scripted(StoreUnavailable("DynamoDB Query: no answer"))
    found = command("warm", "--plan")
    assert (found.exit_code, found.output) == (1, "Error: a table does not answer: DynamoDB Query: no answer\n")
    assert warmer.calls[-1] == "close"


@pytest.mark.parametrize(
    ("words", "more", "message"),
    [
        (["warm"], {}, "give either --plan or --apply"),
        (["warm", "--plan", "--apply"], {}, "give either --plan or --apply"),
        (["warm", "--plan"], {"kind": "memory"}, 'state.kind = "memory": only the edge'),
        (["warm", "--plan"], {"warm": "false"}, "answers.warm = false: requests are not kept"),
        (["warm", "--plan", "--region", "mars"], {}, "--region 'mars' is not in the configuration; it has eu-west-1"),
        (["answers", "stats"], {"kind": "memory"}, "state.kind is memory: a running edge keeps its sums"),
        (["answers", "stats", "--region", "mars"], {}, "--region 'mars' is not in the configuration"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(
    command: Any, words: list[str], more: dict[str, str], message: str
) -> None:
    found = command(*words, **more)
    assert found.exit_code == 2
    assert message in found.output
    assert len(found.output.splitlines()) == 1


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> dict[str, MemoryRollupStore]:
    """Each region's sums, in memory."""
    tables = {"eu-west-1": MemoryRollupStore(), "us-east-1": MemoryRollupStore()}

    def open_table(store: Any, client: Any, table: str) -> None:
        store.sums = tables[client._region].sums

    monkeypatch.setattr(DynamoRollupStore, "__init__", open_table)
    monkeypatch.setattr("isochrone.cli_answers.time.time", lambda: NOW + 60)
    return tables


def saved(store: MemoryRollupStore, tenant: str, *, days_ago: int = 0) -> None:
    async def save() -> None:
        savings = Savings(store, chance=lambda: 0.0)
        savings.hit(tenant, "memory", Generated(), took=0.0, now=NOW - days_ago * 86_400)
        savings.miss(tenant, now=NOW - days_ago * 86_400)
        await savings.flush()

    asyncio.run(save())


def stats(command: Any, *words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(command("answers", "stats", "--json", *words).output)
    return found


def test_stats_add_up_over_regions_and_days(command: Any, tables: dict[str, MemoryRollupStore]) -> None:
    saved(tables["eu-west-1"], "a")
    saved(tables["us-east-1"], "a", days_ago=6)
    saved(tables["us-east-1"], "b", days_ago=9)
    assert stats(command)["a"]["hits"] == 2
    assert list(stats(command)) == ["a"]
    assert stats(command, "--since", "10d")["b"]["seconds_saved"] == 4.0
    assert stats(command, "--since", "10d", "--tenant", "b").keys() == {"b"}
    assert stats(command, "--region", "eu-west-1")["a"]["hits"] == 1


def test_stats_in_words(command: Any, tables: dict[str, MemoryRollupStore]) -> None:
    saved(tables["eu-west-1"], "a")
    assert command("answers", "stats").output.splitlines() == [
        "a: 1 of 2 answers were known (50.00%)",
        "saved: 4.0 s of waiting, $0.0020, 250 tokens",
        "  memory             1   50.00%           4.0 s  $     0.0020           250 tokens",
        "false semantic hits: none was judged",
    ]


def test_no_stats_are_said_to_be_none(command: Any, tables: dict[str, MemoryRollupStore]) -> None:
    found = command("answers", "stats")
    assert found.exit_code == 0
    assert "nothing was asked in that time that might have been known" in found.output
