"""`isochrone curated` on real tables, and an edge of another region that answers with what was brought in."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from click.testing import CliRunner, Result

from isochrone.answers.curated.archive import Archive
from isochrone.answers.curated.shelf import Shelf
from isochrone.background import Background
from isochrone.cli import main
from isochrone.ledger.usage import estimate
from isochrone.settings import load
from isochrone.stores.dynamodb.client import connect
from isochrone.stores.dynamodb.directory import DynamoDirectoryStore
from tests.contract.conftest import PATIENT
from tests.faults.harness import running_edge
from tests.unit.test_curated_book import NOW, inquiry, said

CONFIG = """
[service]
name = "{name}"

[state]
kind = "dynamodb"
endpoint_url = "{endpoint}"

[[region]]
name = "eu-west-1"

[[region]]
name = "us-east-1"

[[backend]]
name = "pool"
base_url = "http://127.0.0.1:9/v1"
models = {{ "m" = "m" }}
"""
FAQ = """id,phrasings,answer,variables
hours,"When are you open?
营业时间",From 9 to 5.,
city,Open in {city}?,{city}: 9 to 5.,city = Rome | Milan
"""

Curated = Callable[..., Result]


@pytest.fixture
def config(ministack: str, tmp_path: Path) -> Path:
    path = tmp_path / "isochrone.toml"
    path.write_text(CONFIG.format(name=f"t{uuid4().hex[:12]}", endpoint=ministack))
    created = CliRunner().invoke(main, ["tables", "create", "--config", str(path)])
    assert created.exit_code == 0, created.output
    return path


@pytest.fixture
def curated(config: Path) -> Curated:
    def run(command: str, *arguments: object, code: int = 0) -> Result:
        done = CliRunner().invoke(main, ["curated", command, *map(str, arguments), "--config", str(config)])
        assert done.exit_code == code, done.output
        return done

    return run


@pytest.fixture
def faq(tmp_path: Path) -> Path:
    path = tmp_path / "faq.csv"
    path.write_text(FAQ, encoding="utf-8")
    return path


def test_what_is_brought_in_is_listed_shown_and_answered(curated: Curated, faq: Path) -> None:
    assert curated("import", faq).output == "2 new, 0 changed, 0 the same, 0 gone: version 1\n"
    assert curated("import", faq).output == "0 new, 0 changed, 2 the same, 0 gone: nothing was written\n"
    assert curated("list").output.splitlines() == [
        "city version 1: 'Open in {city}?' -> '{city}: 9 to 5.'",
        "hours version 1: 'When are you open?' -> 'From 9 to 5.'",
    ]
    assert json.loads(curated("show", "city", "--json").output)["variables"] == {"city": ["Rome", "Milan"]}
    assert "  city = Rome | Milan\n" in curated("show", "city").output
    assert curated("test", "open in milan").output == "city version 1: Milan: 9 to 5.\n"
    assert "no entry answers that" in curated("test", "open in paris", code=1).output


def test_export_is_what_import_takes(curated: Curated, faq: Path, tmp_path: Path) -> None:
    curated("import", faq)
    for name in ("out.csv", "out.jsonl"):
        curated("export", tmp_path / name)
        assert "2 the same, 0 gone: nothing" in curated("import", tmp_path / name, "--replace").output
    first = (tmp_path / "out.csv").read_bytes()
    curated("export", tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_bytes() == first


def test_mistake_in_a_file_changes_nothing(curated: Curated, faq: Path) -> None:
    curated("import", faq)
    faq.write_text(FAQ + "new,Hi,Hello.,\nwrong,When are you open,x,\n", encoding="utf-8")
    refused = curated("import", faq, code=2)
    assert f"{faq}:6: phrasings: 'When are you open' is answered by 'hours' and by 'wrong'" in refused.output
    faq.write_text(FAQ + "new,Hi,{nobody},\n", encoding="utf-8")
    assert f"{faq}:5: answer: {{nobody}} is unknown" in curated("import", faq, code=2).output
    assert len(curated("list").output.splitlines()) == 2


@pytest.mark.parametrize(("name", "content"), [("none.csv", "id,phrasings,answer\n"), ("none.jsonl", "")])
def test_replacing_all_by_nothing_must_be_said_twice(
    curated: Curated, faq: Path, tmp_path: Path, name: str, content: str
) -> None:
    curated("import", faq)
    empty = tmp_path / name
    empty.write_text(content)
    refused = curated("import", empty, "--replace", code=2).output
    assert f"{empty}: no entry in it, so --replace would take out all: `isochrone curated delete`" in refused
    assert "--allow-empty" in refused
    assert len(curated("list").output.splitlines()) == 2
    assert curated("import", empty, "--replace", "--allow-empty").output.endswith("2 gone: version 2\n")


def test_entry_that_nobody_can_be_given_is_refused_or_warned_of(curated: Curated, tmp_path: Path) -> None:
    file = tmp_path / "faq.csv"
    file.write_text("id,phrasings,answer,models\na,A,1,m\nb,B,2,m;typo\n")
    assert f"{file}:3: models: no backend serves 'typo'; there are m\n" in curated("import", file, code=2).output
    file.write_text("id,phrasings,answer,tenants,expires\na,A,1,team-x,\nb,B,2,,2020-01-31\n")
    assert curated("import", file).output.splitlines() == [
        f"Warning: {file}:2: tenants: no [[key]] of the configuration has 'team-x'",
        f"Warning: {file}:3: expires: 2020-01-31 is over, so nobody gets this answer",
        "2 new, 0 changed, 0 the same, 0 gone: version 1",
    ]
    assert "b version 1, expired (2020-01-31): 'B' -> '2'" in curated("list").output


def test_dry_run_says_what_would_change(curated: Curated, faq: Path) -> None:
    assert curated("import", faq, "--dry-run").output == "2 new, 0 changed, 0 the same, 0 gone: nothing was written\n"
    assert curated("list").output == ""


def test_changes_make_versions_that_can_be_gone_back_to(curated: Curated, faq: Path) -> None:
    curated("import", faq)
    faq.write_text("id,phrasings,answer\nhours,When are you open?,Never.\n")
    changed = json.loads(curated("import", faq, "--replace", "--json").output)
    assert changed == {"version": 2, "new": [], "changed": ["hours"], "same": [], "gone": ["city"]}
    assert curated("test", "when are you open").output == "hours version 2: Never.\n"
    assert curated("delete", "hours").output.endswith("1 gone: version 3\n")
    assert curated("rollback").output == "version 2 counts again: 1 entries\n"
    assert curated("rollback", "--to", 1).output == "version 1 counts again: 2 entries\n"
    assert curated("test", "when are you open").output == "hours version 1: From 9 to 5.\n"
    history = [json.loads(line) for line in curated("history", "--json").output.splitlines()]
    assert [(one["version"], one["counts"], one["note"]) for one in history] == [
        (1, True, "import faq.csv"),
        (2, False, "import faq.csv"),
        (3, False, "delete hours"),
    ]
    assert curated("history").output.splitlines()[0].startswith("*    1 ")


def test_rollback_goes_to_what_counted_before_and_not_to_what_was_rolled_back(
    curated: Curated, faq: Path, tmp_path: Path
) -> None:
    def bring_in(answer: str) -> None:
        faq.write_text(f"id,phrasings,answer\nhours,When are you open?,{answer}\n")
        curated("import", faq)

    for answer in ("One.", "Two.", "Three.", "A mistake."):
        bring_in(answer)
    assert curated("rollback").output == "version 3 counts again: 1 entries\n"
    bring_in("Another mistake.")
    assert curated("rollback").output == "version 3 counts again: 1 entries\n"
    assert curated("test", "when are you open").output.endswith(": Three.\n")
    assert curated("rollback").output == "version 2 counts again: 1 entries\n"


def test_what_is_not_there_cannot_be_shown_deleted_or_gone_back_to(curated: Curated, faq: Path) -> None:
    assert "there is no version before this one" in curated("rollback", code=2).output
    curated("import", faq)
    assert "there is no entry 'none'" in curated("show", "none", code=1).output
    assert "there is no entry 'none' in the table" in curated("delete", "hours", "none", code=1).output
    assert "there is no version 9" in curated("rollback", "--to", 9, code=2).output
    assert len(curated("list").output.splitlines()) == 2


async def test_edge_of_another_region_answers_with_what_was_brought_in(
    curated: Curated, faq: Path, config: Path, ministack: str
) -> None:
    await asyncio.to_thread(curated, "import", faq)
    settings = load(config)
    async with connect("us-east-1", endpoint_url=ministack, timeouts=PATIENT, environ={}) as client:
        store = DynamoDirectoryStore(client, f"{settings.service.name}-directory")
        edge = Shelf(store, estimate=estimate, background=Background())
        await edge.refresh(NOW)
        assert said(edge.book.look_up(inquiry("营业时间?"), now=NOW)) == "From 9 to 5."
        current = await Archive(store).current()
        assert current is not None
        assert current.entries == 2


async def test_running_edge_has_what_was_there_at_its_start_and_hears_of_changes(
    curated: Curated, faq: Path, config: Path, ministack: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With every backend down, and in another region than the one whose table the command writes."""
    await asyncio.to_thread(curated, "import", faq)
    monkeypatch.setattr("isochrone.answers.curated.shelf.FRESH_SECONDS", 0.0)
    monkeypatch.setattr("isochrone.answers.curated.shelf._PATIENCE_SECONDS", 30.0)
    down = {"name": "down", "region": "eu-west-1", "base_url": "http://127.0.0.1:9/v1", "models": {"m": "m"}}
    state = {"kind": "dynamodb", "endpoint_url": ministack, "spool": str(tmp_path)}
    service = {"name": load(config).service.name}
    async with running_edge(down, region="us-east-1", service=service, state=state) as edge:
        assert edge.edge.pipeline.rooms.desk.standards() == {"version": 1, "unread": 0}

        async def told(question: str) -> tuple[int, str]:
            answer = await edge.chat(messages=[{"role": "user", "content": question}])
            return answer.status, answer.headers.get("x-isochrone-reason", "")

        assert await told("open in rome") == (200, "curated city version 1")
        await asyncio.to_thread(curated, "delete", "city")
        assert (await told("open in rome"))[0] == 503
        assert await told("营业时间") == (200, "curated hours version 1")


def test_table_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    config = tmp_path / "isochrone.toml"
    config.write_text(CONFIG.format(name="gone", endpoint="http://127.0.0.1:9"))
    done = CliRunner().invoke(main, ["curated", "list", "--config", str(config)], env=dict(os.environ))
    assert done.exit_code == 1
    assert done.output.startswith("Error: the directory table does not answer: DynamoDB Query")
    assert len(done.output.splitlines()) == 1
