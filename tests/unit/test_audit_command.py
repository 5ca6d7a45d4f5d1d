"""`isochrone audit`: says where a log was changed, and shows what is in it."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from isochrone.audit.chain import Chain
from isochrone.audit.entry import Flag
from isochrone.cli import main
from tests.audits import NOW, entry, written


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["audit", *map(str, arguments)])


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Two hours of one writer."""
    folder = tmp_path / "audit"
    (folder / "2026-11-23").mkdir(parents=True)
    lines = written(6)
    for hour, part in (("09", lines[:4]), ("10", lines[4:])):
        path = folder / "2026-11-23" / f"2026-11-23T{hour}-eu-west-1.jsonl"
        path.write_bytes(b"".join(line + b"\n" for line in part))
    return folder


def newest(log: Path) -> Path:
    return max(log.rglob("*.jsonl"))


def test_log_as_it_was_written_is_intact(log: Path) -> None:
    done = run("verify", log)
    assert (done.exit_code, done.output) == (
        0,
        "nothing was changed: 7 entries of 1 writer, 0 checkpoints, 7 entries since the last checkpoint of their "
        "writer\n",
    )


def test_changed_line_is_named_by_file_and_number(log: Path) -> None:
    path = newest(log)
    path.write_text(path.read_text().replace('"status":200', '"status":403', 1))
    done = run("verify", log)
    assert done.exit_code == 1
    assert done.output.splitlines()[0] == (f"{path}:1: was changed: entry 4 of writer w1 does not have its own hash")


def test_file_that_is_gone_leaves_a_gap(log: Path) -> None:
    min(log.rglob("*.jsonl")).unlink()
    done = run("verify", log)
    assert done.exit_code == 1
    assert "the beginning of writer w1 is missing: entry 4 is its first one here" in done.output


def test_ends_of_an_earlier_check_show_that_the_newest_file_is_gone(log: Path, tmp_path: Path) -> None:
    heads = tmp_path / "heads.json"
    heads.write_text(run("verify", log, "--json").output)
    assert run("verify", log, "--heads", heads).exit_code == 0
    newest(log).unlink()
    assert run("verify", log).exit_code == 0
    done = run("verify", log, "--heads", heads)
    assert done.exit_code == 1
    assert "the end of writer w1 is cut off: entry 6 was there, 3 is the last" in done.output


def test_json_has_the_findings_and_the_ends(log: Path) -> None:
    told = json.loads(run("verify", log, "--json").output)
    assert (told["intact"], told["entries"], told["findings"]) == (True, 7, [])
    assert told["heads"][0]["writer"] == "w1"


def test_archive_that_is_cut_is_a_finding(log: Path) -> None:
    path = newest(log)
    packed = gzip.compress(path.read_bytes())
    path.with_suffix(".gz").write_bytes(packed[: len(packed) // 2])
    path.unlink()
    done = run("verify", log)
    assert done.exit_code == 1
    assert "is not a whole entry: it was cut or changed" in done.output


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ((), "name the files or folders to read"),
        (("{empty}",), "there is no log in"),
        (("{empty}/nothing",), "does not exist"),
        (("{log}", "--heads", "{log}/2026-11-23/2026-11-23T09-eu-west-1.jsonl"), "not what `isochrone audit verify"),
    ],
)
def test_what_cannot_be_read_is_one_line_and_status_2(
    log: Path, tmp_path: Path, arguments: tuple[str, ...], what: str
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    done = run("verify", *(argument.format(empty=empty, log=log) for argument in arguments))
    assert (done.exit_code, what in done.output, "Traceback" in done.output) == (2, True, False)


CONFIG = """
[service]
name = "iso"
[state]
kind = "memory"
[[region]]
name = "eu-west-1"
[[backend]]
name = "b"
base_url = "http://127.0.0.1:1/v1"
models = {{ m = "m" }}
[auth]
required = false
[audit]
to = "{to}"
folder = "{folder}"
"""


def test_without_a_path_the_folder_of_the_configuration_is_read(log: Path, tmp_path: Path) -> None:
    config = tmp_path / "isochrone.toml"
    config.write_text(CONFIG.format(to="file", folder=log))
    done = run("verify", "--config", config)
    assert (done.exit_code, "7 entries" in done.output) == (0, True)


@pytest.mark.parametrize("what_is_gone", ["files", "folder"])
def test_a_log_that_is_gone_as_a_whole_is_found_where_checkpoints_know_of_it(
    log: Path, tmp_path: Path, what_is_gone: str
) -> None:
    config, heads = tmp_path / "isochrone.toml", tmp_path / "heads.json"
    config.write_text(CONFIG.format(to="file", folder=log))
    heads.write_text(run("verify", log, "--json").output)
    if what_is_gone == "folder":
        shutil.rmtree(log)
    else:
        for file in log.rglob("*.jsonl"):
            file.unlink()
    done = run("verify", "--config", config, "--heads", heads, "--since", "2026-11-01")
    assert (done.exit_code, done.output) == (
        1,
        "checkpoint: nothing is here of writer w1, who had written entry 6\n"
        "1 finding: 0 entries of 0 writers, 1 checkpoint, 0 entries since the last checkpoint of their writer\n",
    )
    nobody_knows = run("verify", "--config", config)
    assert (nobody_knows.exit_code, f"there is no log in {log}" in nobody_knows.output) == (2, True)
    shown = run("show", "--config", config)
    assert (shown.exit_code, shown.output.startswith("no entries yet: ")) == (0, True)


def test_checkpoints_that_cannot_be_read_are_status_2(log: Path, tmp_path: Path) -> None:
    config = tmp_path / "isochrone.toml"
    table = 'kind = "dynamodb"\nendpoint_url = "http://127.0.0.1:1"'
    config.write_text(CONFIG.format(to="file", folder=log).replace('kind = "memory"', table))
    done = run("verify", "--config", config)
    assert (done.exit_code, "the checkpoints cannot be read" in done.output) == (2, True)
    assert "ssl:" not in done.output


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    chain = Chain("w1")
    entries = [
        entry(0, model="m", backend="pool", output_tokens=7, input_tokens=3, cache="hit"),
        entry(1, tenant="other"),
        entry(2, decision="denied", status=403, reason="policy_denied", rule="night", address="192.0.2.1"),
    ]
    lines = [chain.link(one) for one in entries]
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"\n".join([*reversed(lines), lines[0]]))
    return path


def test_show_prints_each_request_once_oldest_first(mixed: Path) -> None:
    lines = run("show", mixed).output.splitlines()
    assert len(lines) == 3
    assert "by pool  cache hit" in lines[0]
    assert "3+7 tokens" in lines[0]
    assert "denied  403  t/-  192.0.2.1  POST /v1/chat/completions  policy_denied rule night" in lines[2]


def test_flagged_answers_stand_among_the_requests_and_belong_to_the_chain(mixed: Path) -> None:
    chain = Chain("w2")
    flag = Flag(
        time=int(NOW * 1000) + 1,
        request_id="r0",
        edge="eu-west-1",
        tenant="t\x1b",
        model="m",
        backend="pool",
        rule="moderation/hate",
    )
    mixed.write_bytes(b"\n".join([mixed.read_bytes(), chain.link(entry(0)), chain.link(flag)]))
    shown = run("show", mixed, "--tenant", "t\x1b").output.splitlines()
    assert [line.split("Z  ")[1] for line in shown] == ["flagged   t?/-  answer to r0  m  by pool  moderation/hate"]
    assert "moderation/hate" not in run("show", mixed, "--denied").output
    mixed.write_bytes(mixed.read_bytes().replace(b"moderation/hate", b"moderation/spam"))
    assert "entry 1 of writer w2 does not have its own hash" in run("verify", mixed).output


def test_show_says_how_many_it_left_out(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"\n".join(written(103)))
    lines = run("show", path).output.splitlines()
    assert (len(lines), lines[-1]) == (101, "3 older ones left out: --limit")


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (("--tenant", "other"), ["r1"]),
        (("--denied",), ["r2"]),
        (("--limit", "2"), ["r1", "r2"]),
        (("--since", "2999-01-01"), []),
    ],
)
def test_show_prints_what_was_asked_for(mixed: Path, options: tuple[str, ...], ids: list[str]) -> None:
    shown = run("show", mixed, "--json", *options).stdout.splitlines()
    assert [json.loads(line)["request_id"] for line in shown] == ids
    assert min([json.loads(line)["time"] for line in shown], default=NOW * 1000) >= NOW * 1000
