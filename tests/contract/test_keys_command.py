"""`isochrone keys` on the tables that edges read, and where there is no table."""

from __future__ import annotations

import asyncio
import json
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from click.testing import CliRunner, Result

from isochrone.admission.key_directory import KeyDirectory
from isochrone.admission.keys import digest_of
from isochrone.background import Background
from isochrone.cli import main
from isochrone.settings import load, parse, table_name
from isochrone.stores.dynamodb.client import connect
from isochrone.stores.dynamodb.directory import DynamoDirectoryStore
from tests.contract.conftest import PATIENT

REGIONS = ("eu-west-1", "us-east-1")
CONFIG = """
[service]
name = "{name}"
[state]
kind = "{kind}"
endpoint_url = "{endpoint}"
[[region]]
name = "eu-west-1"
default = true
[[region]]
name = "us-east-1"
[[backend]]
name = "pool"
region = "eu-west-1"
base_url = "http://127.0.0.1:9/v1"
models = {{ "m" = "m" }}
[[key]]
id = "fixed"
tenant = "t"
sha256 = "{digest}"
"""


def configured(folder: Path, kind: str = "dynamodb", endpoint: str = "http://127.0.0.1:9", more: str = "") -> Path:
    path = folder / "isochrone.toml"
    name = f"t{uuid4().hex[:12]}"
    path.write_text(CONFIG.format(name=name, endpoint=endpoint, kind=kind, digest=digest_of("fixed")) + more)
    return path


@pytest.fixture
def config(ministack: str, tmp_path: Path) -> Path:
    """A configuration whose tables exist."""
    path = configured(tmp_path, endpoint=ministack)
    assert CliRunner().invoke(main, ["tables", "create", "--config", str(path)]).exit_code == 0
    return path


def run(word: str, config: Path, *arguments: str, said: str | None = None) -> Result:
    return CliRunner().invoke(main, ["keys", word, "--config", str(config), *arguments], input=said)


def made(config: Path, *arguments: str) -> dict[str, Any]:
    result = run("create", config, "--tenant", "team-a", "--json", *arguments)
    assert result.exit_code == 0, result.output
    new: dict[str, Any] = json.loads(result.stdout)
    return new


def listed(config: Path, *arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run("list", config, "--json", *arguments).stdout.splitlines()]


def let_in(config: Path, key: str, region: str = "us-east-1") -> bool:
    """Would an edge of this region, which has never seen the key, let it in?"""

    async def find() -> bool:
        background = Background()
        async with connect(region, endpoint_url=load(config).state.endpoint_url, timeouts=PATIENT) as client:
            store = DynamoDirectoryStore(client, table_name(load(config), "directory"))
            found = await KeyDirectory(store, background, max_age=60).find(digest_of(key), time.time())
            return found is not None

    return asyncio.run(find())


def test_key_goes_to_standard_output_alone_and_edges_of_all_regions_know_it(config: Path) -> None:
    result = run("create", config, "--tenant", "team-a", "--id", "k", "--expires-in", "90d")
    assert result.exit_code == 0
    key = result.stdout.strip()
    assert re.fullmatch(r"isk_[A-Za-z0-9_-]{43}", key)
    assert "nothing shows it again" in result.stderr
    assert all(let_in(config, key, region) for region in REGIONS)
    shown = run("list", config)
    assert shown.stdout.startswith(f"{key[:8]}…  k ")
    for secret in (key, digest_of(key)):
        assert secret not in shown.output


def test_every_option_is_in_the_key_that_edges_read(config: Path) -> None:
    said = {
        "owner": "Ann",
        "requests_per_minute": 1,
        "tokens_per_minute": 2,
        "concurrency": 3,
        "requests_per_day": 4,
        "dollars_per_month": 5.5,
        "priority": 6,
        "pii": "log",
    }
    options = [text for name, value in said.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    options += ["--tag", "a", "--tag", "b", "--model", "m", "--region", "eu-west-1", "--private"]
    options += ["--network", "10.0.0.0/8", "--deny-network", "10.9.0.0/16", "--expires", "2030-01-31"]
    new = made(config, "--id", "k", *options)
    (found,) = listed(config)
    assert found == {name: value for name, value in new.items() if name != "key"}
    assert {name: found[name] for name in said} == said
    assert (found["tags"], found["models"], found["regions"]) == (["a", "b"], ["m"], ["eu-west-1"])
    assert (found["networks"], found["denied_networks"], found["private"]) == (["10.0.0.0/8"], ["10.9.0.0/16"], True)
    assert found["expires"] == datetime(2030, 1, 31, tzinfo=UTC).timestamp()


def test_rotation_gives_a_new_key_and_the_old_one_its_grace(config: Path) -> None:
    old = made(config, "--id", "k", "--model", "m")
    result = run("rotate", config, "k", "--grace", "1h", "--json")
    new = json.loads(result.stdout)
    assert "the key before it goes on until" in result.stderr
    assert new["models"] == ["m"]
    ends = [key["expires"] for key in listed(config)]
    assert ends[0] == pytest.approx(time.time() + 3600, abs=60)
    assert ends[1] is None
    assert let_in(config, old["key"])
    assert let_in(config, new["key"])


@pytest.mark.parametrize("by", ["id", "key"])
def test_revoked_key_is_let_in_nowhere(config: Path, by: str) -> None:
    new = made(config, "--id", "k")
    result = run("revoke", config, "k") if by == "id" else run("revoke", config, "--stdin", said=new["key"] + "\n")
    assert result.exit_code == 0
    assert "revoked" in result.stdout
    assert not any(let_in(config, new["key"], region) for region in REGIONS)
    assert [key["state"] for key in listed(config, "--via", "us-east-1")] == ["revoked"]
    assert "revoked" in run("list", config).stdout


def test_key_whose_item_cannot_be_read_is_taken_back_all_the_same(config: Path) -> None:
    new = made(config)
    asyncio.run(poison(config, digest_of(new["key"])))
    result = run("revoke", config, "--stdin", said=new["key"] + "\n")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "taken back; what its item in the table said cannot be read" in result.stderr
    assert not let_in(config, new["key"], REGIONS[0])


async def poison(config: Path, digest: str) -> None:
    async with connect(REGIONS[0], endpoint_url=load(config).state.endpoint_url, timeouts=PATIENT) as client:
        await DynamoDirectoryStore(client, table_name(load(config), "directory")).put("key", digest, {"tenant": 7})


def test_list_of_one_tenant_has_no_other(config: Path) -> None:
    made(config)
    assert len(listed(config, "--tenant", "team-a")) == 1
    assert listed(config, "--tenant", "team-b") == []


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["create", "--tenant", "t", "--model", "n"], 2, "models: no backend serves 'n'"),
        (["create", "--tenant", "t", "--region", "mars"], 2, "regions: no backend stands in 'mars'"),
        (["create", "--tenant", "t", "--network", "10.0.0.1/8"], 2, "networks: 10.0.0.1/8 has host bits set"),
        (["create", "--tenant", "no tenant"], 2, "tenant: expected a name"),
        (["create", "--tenant", "t", "--expires", "2020-01-01"], 2, "expires: this moment is past"),
        (["create", "--tenant", "t", "--expires", "soon"], 2, "--expires: 'soon' is no date"),
        (["create", "--tenant", "t", "--expires", "2030-01-01", "--expires-in", "1d"], 2, "not both"),
        (["create", "--tenant", "t", "--expires-in", "1y"], 2, "'1y' is no time such as 90s"),
        (["create", "--tenant", "t", "--dollars-per-month", "nan"], 2, "is no number"),
        (["create", "--tenant", "t", "--id", "fixed"], 2, "id: 'fixed' stands twice"),
        (["create", "--tenant", "t", "--via", "mars"], 2, "--via 'mars' is not in the configuration"),
        (["rotate", "nobody"], 1, "there is no key 'nobody'"),
        (["rotate", "fixed"], 1, "stands in the configuration"),
        (["rotate", "nobody", "--grace", "999999d"], 2, "is no time such as 90s"),
        (["revoke", "nobody"], 1, "there is no key 'nobody'"),
        (["revoke"], 2, "give an ID, or --stdin"),
        (["revoke", "k", "--stdin"], 2, "give an ID, or --stdin"),
        (["revoke", "--stdin"], 1, "does not look like a key"),
    ],
)
def test_mistake_is_one_line_and_an_exit_status(config: Path, arguments: list[str], status: int, message: str) -> None:
    result = run(arguments[0], config, *arguments[1:], said="")
    assert (result.exit_code, result.stdout) == (status, "")
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_table_that_does_not_answer_is_one_line(tmp_path: Path) -> None:
    result = run("list", configured(tmp_path))
    assert result.exit_code == 1
    assert "the directory table of eu-west-1 does not answer" in result.stderr


@pytest.mark.parametrize("words", [("list",), ("create", "--tenant", "t"), ("rotate", "k"), ("revoke", "k")])
def test_without_a_table_of_keys_the_way_that_is_left_is_said(tmp_path: Path, words: tuple[str, ...]) -> None:
    result = run(words[0], configured(tmp_path, "memory"), *words[1:])
    assert result.exit_code == 2
    assert "`isochrone keys create --toml`" in result.stderr
    result = run(words[0], configured(tmp_path, more="[auth]\nkeys = false\n"), *words[1:])
    assert result.exit_code == 2
    assert "auth.keys = false: edges do not look into the table of keys" in result.stderr


@pytest.mark.parametrize("as_json", [True, False])
def test_toml_is_a_table_that_the_configuration_takes(tmp_path: Path, as_json: bool) -> None:
    config = configured(tmp_path, "memory")
    owner = 'Ann "the boss" 安\\'
    options = ["--tenant", "t", "--toml", "--owner", owner, "--tag", "a", "--expires-in", "1d", "--private"]
    result = run("create", config, *options, *(["--json"] if as_json else []))
    assert result.exit_code == 0, result.output
    toml = json.loads(result.stdout)["toml"] if as_json else result.stdout
    key = json.loads(result.stdout)["key"] if as_json else result.stderr.split()[-1]
    pasted = parse(config.read_text() + toml).key[-1]
    assert (pasted.sha256, pasted.owner, pasted.tags, pasted.private) == (digest_of(key), owner, ("a",), True)
    assert pasted.expires is not None
    assert pasted.expires.timestamp() == pytest.approx(time.time() + 86_400, abs=60)
