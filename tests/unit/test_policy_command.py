"""`isochrone policy` where the rules stand in the configuration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from isochrone.cli import main

CONFIG = """
[[region]]
name = "eu-west-1"

[[backend]]
name = "pool"
region = "eu-west-1"
base_url = "http://127.0.0.1:9/v1"
models = { "m" = "m" }

[[key]]
id = "team-a-1"
tenant = "team-a"
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"

[[policy]]
id = "office-hours"
description = "The team works by day."
effect = "allow"
principal.tenant = ["team-a"]
[policy.condition.time]
zone = "Asia/Shanghai"
from = "09:00"
until = "18:00"

[[policy]]
id = "not-from-there"
effect = "deny"
condition.ip = ["192.0.2.0/24"]
"""
EXAMPLES = """
[[example]]
name = "by day"
expect = "allow"
rule = "office-hours"
request = { tenant = "team-a", model = "m", ip = "10.0.0.1", at = 2026-11-20T02:00:00Z }

[[example]]
name = "by night"
expect = "{night}"
rule = ""
request = { tenant = "team-a", model = "m", ip = "10.0.0.1", at = 2026-11-20T20:00:00Z }
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "isochrone.toml").write_text(CONFIG)
    return tmp_path


def run(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["policy", *arguments, "--config", str(folder / "isochrone.toml")])


def write(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_examples_that_are_as_expected_pass(folder: Path) -> None:
    done = run(folder, "test", write(folder, "examples.toml", EXAMPLES.replace("{night}", "deny")))
    assert done.exit_code == 0
    assert done.output == (
        "ok    by day: allow (rule 'office-hours' allows it)\nok    by night: deny (no rule allows it)\n"
    )


def test_an_example_that_is_not_as_expected_fails_and_says_how(folder: Path) -> None:
    done = run(folder, "test", write(folder, "examples.toml", EXAMPLES.replace("{night}", "allow")))
    assert done.exit_code == 1
    assert "WRONG by night: decision is deny, not allow (no rule allows it)\n" in done.stdout
    assert done.stderr == "Error: 1 of 2 examples are not as expected\n"


def test_rules_that_are_to_come_can_be_tried_before(folder: Path) -> None:
    more = write(folder, "more.json", '{"id": "nights", "effect": "allow"}')
    examples = write(
        folder,
        "examples.json",
        json.dumps({"example": [{"name": "x", "expect": "allow", "rule": "nights", "request": {"ip": "10.0.0.1"}}]}),
    )
    assert run(folder, "test", examples, "--also", more).exit_code == 0
    (told,) = [json.loads(line) for line in run(folder, "test", examples, "--json").stdout.splitlines()]
    assert told == {
        "name": "x",
        "as_expected": False,
        "unexpected": "decision is deny, not allow; rule is none, not nights",
        "allowed": False,
        "rule": None,
        "reason": "no rule allows it",
        "regions": None,
    }


def test_names_in_examples_that_there_are_not_are_warned_of(folder: Path) -> None:
    told = """[[example]]
name = "typos"
expect = "allow"
rule = "office-hour"
request = { tenant = "team-b", model = "n", tags = ["gold"], country = "UK", attributes = { dept = "x" } }
"""
    done = run(folder, "test", write(folder, "examples.toml", told))
    assert done.stderr.splitlines() == [
        "Warning: typos: rule: no rule is called 'office-hour'",
        "Warning: typos: request.country: 'UK' is no country; codes are those of ISO 3166, such as GB",
        "Warning: typos: request.model: nothing here is called 'n'; there are m",
        "Warning: typos: request.tenant: nothing here is called 'team-b'; there are team-a",
        "Warning: typos: request.tag: nothing here is called 'gold'; there are none",
        "Warning: typos: request.dept: no [[issuer]] has it in its attributes",
        "Error: 1 of 1 examples are not as expected",
    ]
    assert run(folder, "test", write(folder, "examples.toml", EXAMPLES.replace("{night}", "deny"))).stderr == ""


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("none.toml", "", "none.toml:1: policy: is missing"),
        ("none.toml", "policy = []", "none.toml:1: policy: expected array of length >= 1"),
        ("none.json", "[]", "none.json:1: policy: expected array of length >= 1"),
    ],
)
def test_a_file_without_rules_is_refused(folder: Path, name: str, text: str, message: str) -> None:
    examples = write(folder, "examples.toml", EXAMPLES)
    for command in (["put", write(folder, name, text)], ["test", examples, "--also", write(folder, name, text)]):
        done = run(folder, *command)
        assert (done.exit_code, done.stderr) == (2, f"Error: {folder}/{message}\n")


def test_a_rule_whose_time_is_over_is_warned_of(folder: Path) -> None:
    over = write(
        folder,
        "over.toml",
        '[[policy]]\nid = "gone"\neffect = "allow"\ncondition.time.before = 2001-01-01T00:00:00Z',
    )
    examples = write(folder, "examples.toml", EXAMPLES.replace("{night}", "deny"))
    assert run(folder, "test", examples, "--also", over).stderr == (
        "Warning: rule 'gone' never matches any more: its time is over\n"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "examples.toml:1: example: is missing"),
        ("example = 1", "examples.toml:1: example: expected array, got int"),
        ("[[example]]\nname = 'a'\nexpect = 'deny'", "examples.toml:1: example[0].request: is missing"),
        (
            "[[example]]\nname='a'\nexpect='no'\nrequest={}",
            "examples.toml:3: example[0].expect: 'no' is none of allow, deny",
        ),
        ("[[example]]\nname='a'\nexpect='deny'\nrequest={ip='x'}", "a: request.ip: 'x' is no address"),
        ("[", "examples.toml: "),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(folder: Path, text: str, message: str) -> None:
    done = run(folder, "test", write(folder, "examples.toml", text))
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_file_that_is_not_there_is_one_line(folder: Path) -> None:
    for command in (("test", "none.toml"), ("put", "none.toml"), ("explain", "--also", "none.toml")):
        done = run(folder, *command)
        assert (done.exit_code, done.stderr) == (2, "Error: none.toml: No such file or directory\n")


def test_explain_says_of_each_rule_why(folder: Path) -> None:
    done = run(folder, "explain", "--tenant", "team-a", "--at", "2026-11-20T20:00:00+00:00")
    assert done.exit_code == 1
    assert done.output == (
        "denied: rule 'not-from-there' denies it\n"
        "  allow office-hours: does not match: condition.time\n"
        "  deny  not-from-there: matches: condition.ip asks for what is not known\n"
    )
    allowed = run(folder, "explain", "--tenant", "team-a", "--ip", "10.0.0.1", "--at", "2026-11-20T02:00:00Z", "--json")
    assert allowed.exit_code == 0
    told = json.loads(allowed.output)
    assert (told["allowed"], told["rule"]) == (True, "office-hours")
    assert [(one["rule"], one["matches"]) for one in told["rules"]] == [
        ("office-hours", True),
        ("not-from-there", False),
    ]


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--at", "yesterday", "Error: --at: Invalid RFC3339 encoded datetime\n"),
        ("--ip", "x", "Error: --ip: 'x' is no address\n"),
        ("--attribute", "dept", "Error: --attribute dept: give NAME=VALUE\n"),
        ("--country", "France", "Error: --country: expected two capital letters, such as FR\n"),
    ],
)
def test_an_argument_that_cannot_be_used_is_one_line(folder: Path, option: str, value: str, message: str) -> None:
    done = run(folder, "explain", option, value)
    assert (done.exit_code, done.stderr) == (2, message)


def test_where_there_are_no_rules_nothing_is_said_to_be_denied(folder: Path) -> None:
    """Without any, edges let everybody in whom the lists of keys let in."""
    write(folder, "isochrone.toml", CONFIG.partition("[[policy]]")[0])
    examples = write(folder, "examples.toml", EXAMPLES)
    for command in (("explain", "--tenant", "team-a"), ("test", examples)):
        done = run(folder, *command)
        assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
        assert done.stderr.startswith("Error: there is no policy")


def test_list_prints_the_rules_with_where_they_stand(folder: Path) -> None:
    assert run(folder, "list").output == (
        "allow office-hours (configuration): The team works by day.\ndeny  not-from-there (configuration)\n"
    )
    first = json.loads(run(folder, "list", "--json").output.splitlines()[0])
    assert (first["from"], first["condition"]["time"]["zone"]) == ("configuration", "Asia/Shanghai")


def test_without_a_directory_rules_cannot_be_put(folder: Path) -> None:
    rule = write(folder, "rule.json", '{"id": "a", "effect": "allow"}')
    for command in (("put", rule), ("remove", "a")):
        done = run(folder, *command)
        assert done.exit_code == 2
        assert done.stderr == "Error: state.kind is memory: rules stand in the configuration, as [[policy]]\n"
