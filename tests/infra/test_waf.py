"""The web ACL stops attacks on the edge, and never takes a prompt for one."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.constructs import waf_rules
from infra.layers import ROOT
from tests.infra.conftest import BASE, Synthesis, Synthesise, only
from tests.infra.innocent_prompts import PROMPTS
from tests.infra.waf_model import MANAGED, ManagedRule, Request, WebAcl, looks_into_the_body

EVERYTHING = (
    BASE + '\n[waf]\nmanaged = true\nreputation = true\nblock_countries = ["KP"]\n[limits]\nbody_bytes = 1000000\n'
)
AS_AWS_SHIPS_THEM = {
    "Rules": [
        {
            "Name": name,
            "Priority": priority,
            "OverrideAction": {"None": {}},
            "Statement": {"ManagedRuleGroupStatement": {"VendorName": "AWS", "Name": name}},
        }
        for priority, name in enumerate(MANAGED)
    ]
}


def asking(prompt: str, **more: Any) -> Request:
    """The request that an OpenAI client sends for this prompt."""
    body = {"model": "r1", "messages": [{"role": "user", "content": prompt}], "stream": True}
    return Request(body=json.dumps(body, ensure_ascii=False), **more)


def properties(app: Synthesis) -> dict[str, Any]:
    return only(app.edge(), "AWS::WAFv2::WebACL")


@pytest.fixture(scope="module")
def acl(synthesise: Synthesise) -> WebAcl:
    return WebAcl(properties(synthesise(EVERYTHING)))


def test_table_of_prompts_is_long_enough_to_mean_something() -> None:
    assert len(set(PROMPTS)) >= 40
    assert sum(bool(re.search(r"[\u4e00-\u9fff]", prompt)) for prompt in PROMPTS) >= 10
    assert sum(len(prompt.encode()) > 8192 for prompt in PROMPTS) >= 3


@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda prompt: prompt[:40])
def test_no_prompt_is_taken_for_an_attack(acl: WebAcl, prompt: str) -> None:
    assert acl.refuses(asking(prompt)) is None


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/embeddings", "/v1/tasks", "/v1/batches"])
def test_no_prompt_is_taken_for_an_attack_on_any_route(acl: WebAcl, path: str) -> None:
    assert {acl.refuses(asking(prompt, path=path)) for prompt in PROMPTS} == {None}


def test_the_same_prompts_are_blocked_by_the_groups_as_aws_ships_them() -> None:
    """Or else the model would prove nothing."""
    shipped = WebAcl(AS_AWS_SHIPS_THEM)
    assert sum(shipped.refuses(asking(prompt)) is not None for prompt in PROMPTS) >= 25


@pytest.mark.parametrize("group", [group.name for group in waf_rules.GROUPS])
def test_rule_that_aws_adds_tomorrow_blocks_no_prompt(synthesise: Synthesise, group: str) -> None:
    tomorrow = ManagedRule("Tomorrow_BODY", "Tomorrow_Body", lambda request: bool(request.body))
    acl = WebAcl(properties(synthesise(EVERYTHING)), more={group: (tomorrow,)})
    assert {acl.refuses(asking(prompt)) for prompt in PROMPTS} == {None}


def _with_header(name: str, value: str) -> Request:
    return Request(headers=(*Request().headers, (name, value)))


ATTACKS = {
    "traversal in the path": Request(path="/v1/models/..%2f..%2fetc/passwd"),
    "script in the path": Request(method="GET", path="/%3Cscript%3Ealert(1)%3C/script%3E"),
    "secret file": Request(method="GET", path="/.env"),
    "repository": Request(method="GET", path="/.git/config"),
    "configuration file": Request(method="GET", path="/app.ini"),
    "inclusion in the path": Request(method="GET", path="/http://10.0.0.1/x"),
    "metadata in the path": Request(method="GET", path="/proxy/169.254.169.254/"),
    "long path": Request(method="GET", path="/" + "a" * 2000),
    "traversal in the query": Request(query="file=../../etc/passwd"),
    "script in the query": Request(query="q=%3Cscript%3Ealert(1)%3C/script%3E"),
    "inclusion in the query": Request(query="url=http://10.0.0.1/x.php"),
    "metadata in the query": Request(query="url=169.254.169.254/latest/meta-data"),
    "log4j in the query": Request(query="x=${jndi:ldap://example.com/a}"),
    "java in the query": Request(query="x=java.lang.Runtime"),
    "extension in the query": Request(query="f=server.key"),
    "long query": Request(query="x=" + "a" * 3000),
    "log4j in the user agent": Request(headers=(("host", "h"), ("user-agent", "${jndi:ldap://example.com/a}"))),
    "log4j in a header": _with_header("x-request-id", "${jndi:ldap://example.com/a}"),
    "java in a header": _with_header("x-a", "java.lang.Runtime"),
    "scanner": Request(headers=(("host", "h"), ("user-agent", "Nmap Scripting Engine"))),
    "localhost": Request(headers=(("host", "localhost"), ("user-agent", "x"))),
    "script in a cookie": Request(cookie="a=<script>alert(1)</script>"),
    "metadata in a cookie": Request(cookie="a=169.254.169.254"),
    "long cookie": Request(cookie="a" * 11_000),
    "method": Request(method="PROPFIND", path="/"),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_attack_outside_the_body_is_blocked(acl: WebAcl, attack: Request) -> None:
    assert acl.refuses(attack) == "attack-outside-the-body"


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_attack_cannot_hide_behind_one_in_the_body(acl: WebAcl, attack: Request) -> None:
    everything = "\n".join(PROMPTS)
    assert acl.refuses(attack._replace(body=everything)) == "attack-outside-the-body"


def test_program_that_says_no_name_is_let_in(acl: WebAcl) -> None:
    assert acl.refuses(Request(headers=(("host", "llm.example.com"),))) is None


@pytest.mark.parametrize("group", waf_rules.GROUPS, ids=lambda group: group.name)
def test_every_rule_that_aws_documents_is_named_with_its_label_and_those_for_bodies_only_count(
    group: waf_rules.Group,
) -> None:
    namespace, _, documented = MANAGED[group.name]
    assert group.namespace == namespace
    assert {*group.blocking, *group.counting} == {rule.name for rule in documented}
    assert group.blocking == {rule.name: rule.label for rule in documented if rule.name in group.blocking}
    assert {rule.name for rule in documented if looks_into_the_body(rule)} <= set(group.counting)


def test_no_rule_of_our_own_looks_into_a_body(synthesise: Synthesise) -> None:
    own = [r["Statement"] for r in properties(synthesise(EVERYTHING))["Rules"] if "Action" in r]
    assert '"Body"' not in json.dumps(own)
    assert '"JsonBody"' not in json.dumps(own)
    assert not any(label.lower().endswith("_body") for group in waf_rules.GROUPS for label in group.labels)


def test_web_acl_costs_no_more_than_the_usual_price(acl: WebAcl) -> None:
    assert acl.capacity <= 1500


@pytest.mark.parametrize(
    ("request_", "rule"),
    [
        (Request(rate=10_001), "rate-per-address"),
        (Request(country="KP"), "country"),
        (Request(headers=(*Request().headers, ("content-length", "1000001"))), "body-size"),
        (Request(headers=(*Request().headers, ("content-length", "1000000"))), None),
    ],
    ids=["rate", "country", "size", "just the size"],
)
def test_own_rules_block_what_their_settings_say(acl: WebAcl, request_: Request, rule: str | None) -> None:
    assert acl.refuses(request_) == rule


def test_who_is_blocked_for_a_country_is_not_told_of_an_attack(synthesise: Synthesise) -> None:
    bodies = properties(synthesise(EVERYTHING))["CustomResponseBodies"]
    assert "from your country" in bodies["country"]["Content"]
    assert "country" not in bodies["attack-outside-the-body"]["Content"]


def test_rules_that_are_not_asked_for_are_not_there(synthesise: Synthesise) -> None:
    usual = [rule["Name"] for rule in properties(synthesise())["Rules"]]
    assert usual == ["rate-per-address", "core-rule-set", "known-bad-inputs", "attack-outside-the-body"]
    bare = properties(synthesise(BASE + "\n[waf]\nmanaged = false\n"))["Rules"]
    assert [rule["Name"] for rule in bare] == ["rate-per-address"]


def test_addresses_of_ill_repute_are_judged_by_aws_itself(synthesise: Synthesise) -> None:
    (rule,) = [r for r in properties(synthesise(EVERYTHING))["Rules"] if r["Name"] == "reputation"]
    assert rule["OverrideAction"] == {"None": {}}


@given(limit=st.integers(1, 20_000_000), size=st.integers(0, 10**12), zeros=st.integers(0, 3))
def test_pattern_for_numbers_above_a_limit_finds_those_and_no_others(limit: int, size: int, zeros: int) -> None:
    pattern = waf_rules.number_above(limit)
    for number in (size, limit - 1, limit, limit + 1):
        assert bool(re.fullmatch(pattern, "0" * zeros + str(number))) is (number > limit)
    assert len(pattern) <= 512, "AWS takes no longer ones"


def test_who_is_blocked_is_told_so_in_the_shape_of_every_other_error(synthesise: Synthesise) -> None:
    found = properties(synthesise(EVERYTHING))
    docs = (ROOT / "docs/aws.md").read_text()
    for rule in found["Rules"]:
        if "Action" not in rule:
            continue
        response = rule["Action"]["Block"]["CustomResponse"]
        written = found["CustomResponseBodies"][response["CustomResponseBodyKey"]]
        error = json.loads(written["Content"])["error"]
        assert written["ContentType"] == "APPLICATION_JSON"
        assert list(error) == ["message", "type", "code", "param"]
        assert f"| {response['ResponseCode']} | `{error['code']}` |" in docs


def test_limit_per_address_is_a_setting_and_the_answer_names_it(synthesise: Synthesise) -> None:
    found = properties(synthesise(BASE + "\n[limits]\nrequests_per_5_minutes_per_address = 600\n"))
    rule = found["Rules"][0]
    rate = rule["Statement"]["RateBasedStatement"]
    assert (rate["Limit"], rate["EvaluationWindowSec"], rate["AggregateKeyType"]) == (600, 300, "IP")
    response = rule["Action"]["Block"]["CustomResponse"]
    assert (response["ResponseCode"], response["ResponseHeaders"]) == (429, [{"Name": "retry-after", "Value": "60"}])
    assert "more than 600 requests in 5 minutes" in found["CustomResponseBodies"]["rate-per-address"]["Content"]


def test_samples_of_the_web_acl_show_no_key_and_no_prompt(app: Synthesis) -> None:
    protected = properties(app)["DataProtectionConfig"]["DataProtections"]
    assert {(p["Field"]["FieldType"], *p["Field"].get("FieldKeys", ())) for p in protected} == {
        ("SINGLE_HEADER", "authorization", "cookie", "proxy-authorization", "x-amz-security-token", "x-api-key"),
        ("QUERY_STRING",),
        ("BODY",),
    }
    assert {p["Action"] for p in protected} == {"SUBSTITUTION"}


def test_web_acl_stands_before_the_stage(app: Synthesis) -> None:
    stage = json.dumps(only(app.edge(), "AWS::WAFv2::WebACLAssociation")["ResourceArn"])
    assert "/restapis/" in stage
    assert "/stages/" in stage
