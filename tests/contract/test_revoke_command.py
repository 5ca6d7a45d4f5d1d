"""`isochrone answers revoke`, `show` and `revocations` on the tables that edges read."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from click.testing import CliRunner, Result

from isochrone.answers.codec import to_bytes
from isochrone.answers.completion import Answer
from isochrone.answers.fingerprint import fingerprint
from isochrone.answers.revocations import Revocations
from isochrone.api.requests import CHAT, parse
from isochrone.api.shape import Guard
from isochrone.cli import main
from isochrone.settings import Limits, load, table_name
from isochrone.stores.dynamodb.answers import DynamoAnswerStore
from isochrone.stores.dynamodb.client import connect
from isochrone.stores.dynamodb.directory import DynamoDirectoryStore
from tests.contract.conftest import PATIENT

REGIONS = ("eu-west-1", "us-east-1")
ANSWER = Answer("chat", "pool", time.time(), {"choices": []}, model="m", question="How far is the Moon?")
CONFIG = """
[service]
name = "{name}"
[state]
kind = "dynamodb"
endpoint_url = "{endpoint}"
[[region]]
name = "eu-west-1"
default = true
[[region]]
name = "us-east-1"
[[backend]]
name = "pool"
base_url = "http://127.0.0.1:9/v1"
models = {{ "m" = "m" }}
"""
BODY = b'{"model": "m", "messages": [{"role": "user", "content": "How far is the Moon?"}]}'
MARK = fingerprint("team-a", parse(CHAT, BODY, "application/json", Guard(Limits())))


@pytest.fixture
def config(ministack: str, tmp_path: Path) -> Path:
    """A configuration whose tables exist, with one answer of team-a in every region."""
    config = tmp_path / "isochrone.toml"
    config.write_text(CONFIG.format(name=f"t{uuid4().hex[:12]}", endpoint=ministack))
    assert run("tables", "create", "--config", str(config)).exit_code == 0
    asyncio.run(fill(config))
    return config


async def fill(config: Path) -> None:
    for region in REGIONS:
        async with connect(region, endpoint_url=load(config).state.endpoint_url, timeouts=PATIENT) as client:
            store = DynamoAnswerStore(client, table_name(load(config), "answers"))
            await store.put(MARK, to_bytes(ANSWER), tenant="team-a", expires=time.time() + 3600)


async def obeyed(config: Path, tenant: str = "team-a") -> bool:
    """Would an edge of the main region still give the answer?"""
    async with connect("eu-west-1", endpoint_url=load(config).state.endpoint_url, timeouts=PATIENT) as client:
        directory = DynamoDirectoryStore(client, table_name(load(config), "directory"))
        edge = Revocations(directory, life=3600.0, clock=time.time, monotonic=time.monotonic)
        await edge.refresh()
        return edge.covers(tenant, MARK, ANSWER)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def revoke(config: Path, *arguments: str, tenant: str = "team-a") -> Result:
    return run("answers", "revoke", "--config", str(config), "--tenant", tenant, *arguments)


def shown(config: Path) -> dict[str, Any]:
    """By region, what `show` prints of the answer."""
    result = run("answers", "show", MARK, "--config", str(config), "--json")
    found: dict[str, Any] = json.loads(result.stdout) if result.exit_code == 0 else {}
    return found


def test_answer_is_shown_where_it_is_and_without_what_it_says(config: Path) -> None:
    found = shown(config)
    assert set(found) == set(REGIONS)
    assert found["eu-west-1"]["question"] == "How far is the Moon?"
    assert "choices" not in json.dumps(found)
    text = run("answers", "show", MARK, "--config", str(config), "--region", "us-east-1").stdout
    assert text.startswith("us-east-1: m at pool, ")
    assert text.endswith("'How far is the Moon?'\n")


def test_answer_that_is_taken_back_by_its_id_is_gone_from_every_table(config: Path) -> None:
    result = revoke(config, "--id", MARK, "--json")
    assert (result.exit_code, json.loads(result.stdout)["id"]) == (0, MARK)
    assert shown(config) == {}
    assert asyncio.run(obeyed(config))
    gone = run("answers", "show", MARK, "--config", str(config)).stderr
    assert gone.startswith(f"Error: no table has an answer {MARK}; it was taken back at 2")
    assert len(gone.splitlines()) == 1


def test_answer_that_is_taken_back_by_a_pattern_is_shown_as_such_while_a_table_has_it(config: Path) -> None:
    revoke(config, "--pattern", "how old*")
    revoke(config, "--all", tenant="team-b")
    assert [answer["revoked"] for answer in shown(config).values()] == [False, False]
    revoke(config, "--pattern", "how far*")
    assert [answer["revoked"] for answer in shown(config).values()] == [True, True]
    lines = run("answers", "show", MARK, "--config", str(config)).stdout.splitlines()
    assert [line.endswith("'How far is the Moon?' (taken back)") for line in lines] == [True, True]


def test_answers_of_a_tenant_without_a_key_here_are_taken_back_with_a_warning(config: Path) -> None:
    result = revoke(config, "--all")
    assert result.exit_code == 0
    assert result.stderr == "no [[key]] of this configuration has the tenant 'team-a': obeyed all the same\n"
    assert asyncio.run(obeyed(config))


def test_tenant_of_those_who_need_no_key_is_known(config: Path) -> None:
    config.write_text(config.read_text() + "[auth]\nrequired = false\n")
    assert revoke(config, "--all", tenant="anonymous").stderr == ""


@pytest.mark.parametrize("which", [["--pattern", "how far*"], ["--all"], ["--all", "--model", "m"]])
def test_many_are_taken_back_by_a_pattern_or_all_of_them(config: Path, which: list[str]) -> None:
    assert revoke(config, *which).exit_code == 0
    assert asyncio.run(obeyed(config))


@pytest.mark.parametrize("which", [["--pattern", "how old*"], ["--all", "--model", "n"]])
def test_others_stay(config: Path, which: list[str]) -> None:
    assert revoke(config, *which).exit_code == 0
    assert not asyncio.run(obeyed(config))


def test_what_was_taken_back_is_listed_oldest_first(config: Path) -> None:
    revoke(config, "--pattern", "*moon*", "--model", "m")
    revoke(config, "--all", tenant="team-b")
    listed = run("answers", "revocations", "--config", str(config))
    assert [line.split(" ", 2)[2] for line in listed.stdout.splitlines()] == [
        "team-a: answers to questions like '*moon*' of m",
        "team-b: answers to questions like '*'",
    ]
    one = run("answers", "revocations", "--config", str(config), "--tenant", "team-b", "--json")
    assert json.loads(one.stdout)["tenant"] == "team-b"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "give one of --id, --pattern and --all"),
        (["--all", "--pattern", "*"], "give one of --id, --pattern and --all"),
        (["--id", "f" * 64], "no answer of tenant 'team-a' has such an id"),
        (["--id", MARK, "--model", "m"], "--model goes with --pattern or --all"),
        (["--pattern", "x" * 501], "--pattern: more than 500 characters"),
        (["--all", "--region", "eu-west-9"], "it has eu-west-1, us-east-1"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(config: Path, arguments: list[str], complaint: str) -> None:
    result = revoke(config, *arguments)
    assert (result.exit_code, complaint in result.stderr) == (2, True)
    assert len(result.stderr.splitlines()) == 1
    assert not asyncio.run(obeyed(config))


def test_answer_that_nobody_has_is_one_line(config: Path) -> None:
    result = run("answers", "show", "f" * 64, "--config", str(config))
    assert (result.exit_code, result.stderr) == (1, f"Error: no table has an answer {'f' * 64}\n")


def test_tables_that_are_not_there_are_one_line(config: Path) -> None:
    config.write_text(config.read_text().replace('name = "t', 'name = "u'))
    for command in (["revocations"], ["show", MARK], ["revoke", "--tenant", "team-a", "--all"]):
        result = run("answers", *command, "--config", str(config))
        assert (result.exit_code, result.stderr[:31]) == (1, "Error: a table does not answer:")
        assert len(result.stderr.splitlines()) == 1


def test_edge_that_keeps_its_answers_in_memory_is_asked_itself(tmp_path: Path) -> None:
    config = tmp_path / "isochrone.toml"
    config.write_text(CONFIG.format(name="x", endpoint="http://127.0.0.1:9").replace('"dynamodb"', '"memory"'))
    result = revoke(config, "--all")
    assert (result.exit_code, "ask its /v1/answers" in result.stderr) == (2, True)
