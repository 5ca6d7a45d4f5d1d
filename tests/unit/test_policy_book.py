"""What rules say to a request: denied unless one allows it, and one that denies wins."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from isochrone.admission.policies import book as book_module
from isochrone.admission.policies.book import MOST_KEPT, PolicyBook
from isochrone.admission.policies.engine import Engine, Verdict
from isochrone.admission.policies.examples import Request, asking, decided
from isochrone.admission.policies.facts import question_of
from isochrone.admission.policies.reading import PolicyUnusable, policies_in, policy_of
from isochrone.admission.policies.reasons import reasons

NOON = 1_795_176_000.0  # 2026-11-20 12:00 UTC, a Friday
REGIONS = ("eu-central-1", "eu-west-1", "us-east-1")
ALL = 'id = "all"\neffect = "allow"\n'


def rules(*texts: str) -> PolicyBook:
    return PolicyBook(policies_in("".join(f"[[policy]]\n{text}\n" for text in texts), "rules.toml"), REGIONS)


def said(found: PolicyBook, **request: Any) -> tuple[bool, str | None]:
    decision = decided(found, Request(**{"tenant": "team-a", "model": "m", **request}), now=NOON)
    return decision.allowed, decision.rule


def deny(condition: str) -> str:
    return f'id = "no"\neffect = "deny"\n{condition}'


def allow(condition: str) -> str:
    return f'id = "yes"\neffect = "allow"\n{condition}'


def test_nothing_is_allowed_without_a_rule() -> None:
    decision = decided(PolicyBook((), REGIONS), Request(model="m"), now=NOON)
    assert decision == (False, None, "no rule allows it", None)


def test_a_denying_rule_wins_wherever_it_stands() -> None:
    assert said(rules(ALL)) == (True, "all")
    assert said(rules(ALL, deny(""))) == said(rules(deny(""), ALL)) == (False, "no")


def test_the_first_rule_that_decided_is_told_and_not_what_it_asks() -> None:
    found = rules(allow('principal.owner = ["o*"]'), ALL)
    assert decided(found, Request(owner="olga"), now=NOON).reason == "rule 'yes' allows it"
    assert decided(rules(ALL, deny('condition.country = ["FR"]')), Request(country="FR"), now=NOON).reason == (
        "rule 'no' denies it"
    )


TABLE: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    # what a rule asks, a request that is so, one that is not, one of which it is not known
    ('principal.key = ["k-*"]', {"key": "k-1"}, {"key": "x"}, {}),
    ('principal.owner = ["olga"]', {"owner": "olga"}, {"owner": "Olga"}, {"owner": ""}),
    ('principal.subject = ["*@a.com"]', {"subject": "x@a.com"}, {"subject": "x@a.com.org"}, {}),
    ('principal.attributes = { dept = ["r*"] }', {"attributes": {"dept": "rd"}}, {"attributes": {"dept": "hr"}}, {}),
    ('resource.model = ["m*"]', {"model": "mini"}, {"model": "n"}, {"model": None}),
    ('condition.ip = ["10.0.0.0/8"]', {"ip": "10.1.1.1"}, {"ip": "2001:db8::1"}, {}),
    ('condition.ip = ["::ffff:10.0.0.0/104"]', {"ip": "10.1.1.1"}, {"ip": "11.1.1.1"}, {}),
    ('condition.not_ip = ["2001:db8::/32"]', {"ip": "10.1.1.1"}, {"ip": "2001:db8::1"}, {}),
    ('condition.country = ["FR", "DE"]', {"country": "DE"}, {"country": "US"}, {}),
    ('condition.not_country = ["US"]', {"country": "DE"}, {"country": "US"}, {}),
    ("condition.tokens = { max = 100 }", {"tokens": 100}, {"tokens": 101}, {}),
    ("condition.tokens = { min = 100 }", {"tokens": 100}, {"tokens": 99}, {}),
]


@pytest.mark.parametrize(("asks", "so", "other", "unknown"), TABLE, ids=[row[0] for row in TABLE])
def test_what_is_not_known_keeps_a_rule_from_allowing_and_lets_it_deny(
    asks: str, so: dict[str, Any], other: dict[str, Any], unknown: dict[str, Any]
) -> None:
    allowing, denying = rules(allow(asks)), rules(ALL, deny(asks))
    assert [said(allowing, **one)[0] for one in (so, other, unknown)] == [True, False, False]
    assert [said(denying, **one)[0] for one in (so, other, unknown)] == [False, True, False]


@pytest.mark.parametrize(
    ("asks", "so", "other"),
    [
        ('principal.tenant = ["team-*"]', {}, {"tenant": "x"}),
        ('principal.kind = ["token"]', {"kind": "token"}, {"kind": "anonymous"}),
        ('principal.tag = ["gold", "s*"]', {"tags": ("new", "silver")}, {"tags": ("new",)}),
        ('principal.tag = ["gold"]', {"tags": ("gold",)}, {}),
        ('action = ["read"]', {"action": "read"}, {"action": "revoke"}),
    ],
)
def test_what_is_always_known_is_so_or_not(asks: str, so: dict[str, Any], other: dict[str, Any]) -> None:
    assert [said(rules(allow(asks)), **one)[0] for one in (so, other)] == [True, False]
    assert [said(rules(ALL, deny(asks)), **one)[0] for one in (so, other)] == [False, True]


def test_models_regions_and_tokens_are_asked_of_generating_only() -> None:
    found = rules(ALL, deny('resource.model = ["*"]'), deny("condition.tokens.max = 9").replace("no", "n2"))
    assert said(found, action="read", model=None) == (True, "all")
    assert said(found) == (False, "no")


def test_every_part_of_a_rule_must_hold() -> None:
    found = rules(allow('principal.tenant = ["team-a"]\ncondition.country = ["FR"]'))
    assert said(found, country="FR")[0]
    assert not said(found, country="US")[0]
    assert not said(found, country="FR", tenant="team-b")[0]


@pytest.mark.parametrize(
    ("window", "inside", "outside"),
    [
        ('from = "09:00"\nuntil = "18:00"', ["2026-11-20T09:00Z", "2026-11-20T17:59:59Z"], ["2026-11-20T18:00Z"]),
        ('zone = "Asia/Shanghai"\nfrom = "09:00"\nuntil = "18:00"', ["2026-11-20T01:00Z"], ["2026-11-20T10:00Z"]),
        ('until = "08:00"', ["2026-11-20T00:00Z"], ["2026-11-20T08:00Z"]),
        ('from = "22:00"', ["2026-11-20T23:59Z"], ["2026-11-20T00:00Z"]),
        # over midnight, and it belongs to the day on which it begins
        (
            'from = "22:00"\nuntil = "06:00"\ndays = ["fri"]',
            ["2026-11-20T22:00Z", "2026-11-21T05:59Z"],
            ["2026-11-20T05:00Z", "2026-11-21T22:00Z", "2026-11-21T06:00Z"],
        ),
        ('from = "22:00"\nuntil = "00:00"', ["2026-11-20T23:00Z"], ["2026-11-20T00:00Z"]),
        ('days = ["sat"]\nzone = "Pacific/Auckland"', ["2026-11-20T11:00Z"], ["2026-11-21T11:00Z"]),
        # the clock goes from 02:00 to 03:00 on 29 March, and from 03:00 back to 02:00 on 25 October
        (
            'zone = "Europe/Paris"\nfrom = "02:00"\nuntil = "03:00"',
            ["2026-10-25T00:30Z", "2026-10-25T01:30Z", "2026-03-28T01:30Z"],
            ["2026-03-29T00:59Z", "2026-03-29T01:00Z", "2026-10-25T02:00Z"],
        ),
        ("after = 2026-11-20T12:00:30Z", ["2026-11-20T12:00:30Z"], ["2026-11-20T12:00:29Z"]),
        ("before = 2026-11-20T12:00:30Z", ["2026-11-20T12:00:29Z"], ["2026-11-20T12:00:30Z"]),
    ],
)
def test_a_window_of_time(window: str, inside: list[str], outside: list[str]) -> None:
    found = rules(allow(f"[policy.condition.time]\n{window}"))
    for moments, expected in ((inside, True), (outside, False)):
        for moment in moments:
            assert said(found, at=datetime.fromisoformat(moment)) == ((True, "yes") if expected else (False, None))


def test_regions_are_those_in_which_the_rules_allow_it() -> None:
    found = rules(allow('resource.region = ["eu-*"]'), deny('resource.region = ["eu-west-1"]'))
    everywhere = decided(found, Request(model="m"), now=NOON)
    assert everywhere == (True, "yes", "rule 'yes' allows it in eu-central-1", frozenset({"eu-central-1"}))
    assert not decided(found, Request(model="m", regions=("eu-west-1", "us-east-1")), now=NOON).allowed


def test_who_may_everywhere_is_not_held_to_regions_that_a_rule_for_others_names() -> None:
    found = rules(ALL, deny('principal.tenant = ["team-b"]\nresource.region = ["us-*"]'))
    assert decided(found, Request(tenant="team-a", model="m"), now=NOON).regions is None
    decision = decided(found, Request(tenant="team-b", model="m"), now=NOON)
    assert decision.regions == frozenset({"eu-central-1", "eu-west-1"})


def test_a_rule_that_cannot_be_evaluated_denies() -> None:
    broken = Engine(
        [
            '@id("a")\npermit (principal, action, resource);',
            '@id("b")\nforbid (principal, action, resource) when { context.nothing == 1 };',
        ]
    )
    verdict = broken.ask("generate", {})
    assert not verdict.allowed
    assert "does not have the attribute" in verdict.failed


def test_a_request_that_cannot_be_asked_about_is_denied() -> None:
    decision = decided(rules(ALL), Request(model="\ud800"), now=NOON)
    assert not decision.allowed
    assert decision.reason.startswith("the rules could not be applied: ")


def test_the_engine_is_asked_once_a_minute_for_the_same_question(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    ask = Engine.ask

    def counted(engine: Engine, action: str, facts: dict[str, Any]) -> Verdict:
        asked.append(facts["now"] / 1000 - NOON)
        return ask(engine, action, facts)

    monkeypatch.setattr(Engine, "ask", counted)
    found = rules(allow("condition.tokens.max = 100"))
    for tokens, seconds in ((1, 0), (100, 59), (101, 59), (1000, 59), (1, 60)):
        found.decide(asking(Request()), "generate", model="m", tokens=tokens, now=NOON + seconds)
    assert asked == [0, 59, 60]


def test_what_is_kept_of_decisions_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book_module, "MOST_KEPT", 10)
    found = rules(ALL)
    for number in range(25):
        found.decide(asking(Request(ip=f"10.0.0.{number}")), "read", now=NOON)
    assert len(found._known) == 5
    assert MOST_KEPT < 10_000


def test_reasons_name_what_keeps_each_rule_from_matching() -> None:
    found = rules(
        allow('principal.tenant = ["b"]\ncondition.country = ["FR"]\naction = ["read"]'),
        deny('condition.ip = ["10.0.0.0/8"]\nprincipal.owner = ["o"]'),
    )
    asker = asking(Request(tenant="a", owner="o"))
    question = question_of(asker, "generate", model="m", tokens=None)
    assert reasons(found.policies, question, None, now=NOON) == [
        ("yes", "allow", False, ("action", "principal.tenant"), ("condition.country",)),
        ("no", "deny", True, (), ("condition.ip",)),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no JSON: "),
        ('{"id": "a"}', "effect: is missing"),
        ('{"id": "a", "effect": "permit"}', "effect: 'permit' is none of allow, deny"),
        ('{"id": "a", "effect": "allow", "conditions": {}}', "conditions: unknown key"),
        (
            '{"id": "a", "effect": "allow", "condition": {"ip": ["10.0.0.1/8"]}}',
            "condition.ip: 10.0.0.1/8 has host bits set",
        ),
        (
            '{"id": "a", "effect": "deny", "condition": {"time": {"zone": "../../etc/passwd"}}}',
            "condition.time.zone: '../../etc/passwd' is no time zone; zones are named as in Europe/Paris",
        ),
        (
            '{"id": "a", "effect": "deny", "principal": {"attributes": {"dept": []}}}',
            "principal.attributes.dept: give at least one value",
        ),
    ],
)
def test_a_policy_that_cannot_be_used_is_refused_with_its_key(text: str, message: str) -> None:
    with pytest.raises(PolicyUnusable) as caught:
        policy_of(text)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_file_of_rules_may_be_json_or_toml() -> None:
    one = '{"id": "a", "effect": "allow"}'
    expected = policies_in('[[policy]]\nid="a"\neffect="allow"', "a.toml")
    for text in (one, f"[{one}]", f'{{"policy": [{one}]}}'):
        assert policies_in(text, "a.json") == expected
    with pytest.raises(PolicyUnusable, match=r"^a\.toml:4: policy\[0\]\.condition\.ip: '1' does not"):
        policies_in('[[policy]]\nid="a"\neffect="allow"\ncondition.ip=["1"]', "a.toml")
