"""The rules of docs/policies.md are a configuration, and its examples are as expected."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from isochrone.admission.policies.reading import policies_in
from isochrone.cli import main
from isochrone.policy_contradictions import contradictions
from isochrone.settings import parse
from tests.docs.repository import page

_REST = """
[auth]
required = false
[[region]]
name = "eu-west-1"
[[region]]
name = "us-east-1"
[[backend]]
name = "pool-eu"
region = "eu-west-1"
base_url = "http://127.0.0.1:9/v1"
models = { "mini-1" = "m" }
[[backend]]
name = "pool-us"
region = "us-east-1"
base_url = "http://127.0.0.1:9/v1"
models = { "mini-1" = "m" }
[[backend]]
name = "pool-ap"
region = "ap-southeast-1"
base_url = "http://127.0.0.1:9/v1"
models = { "mini-1" = "m" }
[[key]]
id = "shop-1"
tenant = "shop"
tags = ["staff", "batch"]
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
[[key]]
id = "clinic-1"
tenant = "clinic"
sha256 = "0000000000000000000000000000000000000000000000000000000000000001"
"""
FENCES = page("docs/policies.md").fences
RULES, EXAMPLES = [fence.text for fence in FENCES if fence.language == "toml"]
(RULE_IN_JSON,) = [fence.text for fence in FENCES if fence.language == "json"]


def test_examples_of_the_page_are_as_expected(tmp_path: Path) -> None:
    (tmp_path / "isochrone.toml").write_text(_REST + RULES)
    (tmp_path / "examples.toml").write_text(EXAMPLES)
    arguments = ["policy", "test", str(tmp_path / "examples.toml"), "--config", str(tmp_path / "isochrone.toml")]
    done = CliRunner().invoke(main, arguments)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.count("ok ") == EXAMPLES.count("[[example]]")


def test_rule_in_json_is_one() -> None:
    policies = policies_in(RULE_IN_JSON, "rule.json")
    assert list(contradictions(policies, parse(_REST))) == []
