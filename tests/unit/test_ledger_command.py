"""`isochrone ledger`: what it prints, what it refuses, and how an age or a date is read."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from isochrone.cli import main
from isochrone.ledger.report import line_of, moment_of
from isochrone.stores.dynamodb.ledger import DynamoLedgerStore
from isochrone.stores.memory import MemoryLedgerStore

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
"""
NOW = 1_800_000_000.0


def entry(at: float, tenant: str = "team-a", **more: Any) -> dict[str, Any]:
    return {
        "request_id": f"r{at:.0f}",
        "tenant": tenant,
        "model": "m",
        "backend": "pool",
        "attempt": 1,
        "outcome": "ok",
        "input_tokens": 10,
        "output_tokens": 0,
        "cost": 0.25,
        "started_at": at,
    } | more


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> dict[str, MemoryLedgerStore]:
    """Each region's table, in memory."""
    tables = {"eu-west-1": MemoryLedgerStore(), "us-east-1": MemoryLedgerStore()}

    def open_table(store: Any, client: Any, table: str) -> None:
        store.all = tables[client._region].all

    monkeypatch.setattr(DynamoLedgerStore, "__init__", open_table)
    monkeypatch.setattr("isochrone.cli_options.time.time", lambda: NOW)
    return tables


async def fill(tables: dict[str, MemoryLedgerStore]) -> None:
    await tables["eu-west-1"].append([entry(NOW - 50), entry(NOW - 10, "team-b")])
    await tables["us-east-1"].append([entry(NOW - 30)])


def ask(tmp_path: Path, *arguments: str, kind: str = "dynamodb") -> Result:
    config = tmp_path / "isochrone.toml"
    config.write_text(CONFIG.format(kind=kind))
    return CliRunner().invoke(main, ["ledger", "--config", str(config), *arguments])


@pytest.mark.parametrize(
    ("arguments", "ages"),
    [
        ([], [50, 30, 10]),
        (["--region", "us-east-1"], [30]),
        (["--tenant", "team-a"], [50, 30]),
        (["--since", "30s"], [30, 10]),
        (["--limit", "2"], [30, 10]),
        (["--tenant", "team-a", "--limit", "1"], [30]),
        (["--tenant", "nobody"], []),
    ],
)
def test_entries_of_all_regions_come_oldest_first_and_can_be_narrowed(
    tmp_path: Path, tables: dict[str, MemoryLedgerStore], arguments: list[str], ages: list[int]
) -> None:
    asyncio.run(fill(tables))
    shown = ask(tmp_path, "--json", *arguments)
    assert [NOW - json.loads(line)["started_at"] for line in shown.output.splitlines()] == ages


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        ([], "memory", "state.kind is memory"),
        (["--region", "mars"], "dynamodb", "it has eu-west-1, us-east-1"),
        (["--since", "yesterday"], "dynamodb", "'yesterday' is neither an age"),
        (["--limit", "0"], "dynamodb", "--limit"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_words(
    tmp_path: Path, arguments: list[str], kind: str, words: str
) -> None:
    refused = ask(tmp_path, *arguments, kind=kind)
    assert (refused.exit_code, words in refused.output) == (2, True)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90s", NOW - 90),
        ("15m", NOW - 900),
        ("1.5h", NOW - 5400),
        (" 7d ", NOW - 604800),
        ("2027-01-15T08:00:00", NOW),
        ("2027-01-15T09:00:00+01:00", NOW),
        ("2027-01-15", NOW - 28800),
    ],
)
def test_moment_is_an_age_or_a_date(text: str, moment: float) -> None:
    assert moment_of(text, now=NOW) == moment


@pytest.mark.parametrize("text", ["", "7", "-1h", "1w", "2027-13-01", "nan", "1e9d"])
def test_moment_that_is_neither_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="neither an age"):
        moment_of(text, now=NOW)


def test_line_tells_estimates_and_unknown_tokens_from_counted_ones() -> None:
    assert line_of(entry(NOW)) == (
        "2027-01-15 08:00:00  r1800000000       team-a        m  pool #1 ok  10 -> 0 tokens  $0.250000"
    )
    assert "~10 -> ~0 tokens" in line_of(entry(NOW, usage_estimated=True))
    assert "? -> ? tokens" in line_of(entry(NOW, outcome="lost", input_tokens=None, output_tokens=None))
