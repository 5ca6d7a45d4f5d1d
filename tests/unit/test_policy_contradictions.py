"""Rules that say nothing are refused when they are read: who wrote them meant something."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from isochrone.admission.policies.reading import policies_in
from isochrone.globs import covers, matches
from isochrone.policy_contradictions import has_ended, shadow_of
from isochrone.settings import SettingsError, parse

BASE = """
[[region]]
name = "eu-west-1"
[[backend]]
name = "pool"
region = "eu-west-1"
base_url = "http://127.0.0.1:9/v1"
models = { "mini" = "m" }
[[key]]
id = "team-a-1"
tenant = "team-a"
owner = "olga"
tags = ["gold"]
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
"""
SHARED = '[state]\nkind = "dynamodb"\n'
ISSUER = '[[issuer]]\nname = "a"\nurl = "https://id.io"\naudience = "x"\ntenant_claim = "t"\nattributes.dept = "d"\n'


def policies(*bodies: str) -> str:
    head = '[[policy]]\nid = "r{}"\neffect = "{}"\n'
    return "".join(
        head.format(i, *body.split(" ", 1)[:1]) + body.partition(" ")[2] + "\n" for i, body in enumerate(bodies)
    )


def refusal(text: str) -> str:
    with pytest.raises(SettingsError) as caught:
        parse(text)
    return str(caught.value).partition(": ")[2]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('condition.ip = ["10.0.0.1/8"]', "policy[0].condition.ip: 10.0.0.1/8 has host bits set"),
        ('condition.time.zone = "Mars/Base"', "policy[0].condition.time.zone: 'Mars/Base' is no time zone"),
        (
            'condition.time = { from = "09:00", until = "09:00" }',
            "policy[0].condition.time.until: never matches: the window ends when it begins",
        ),
        (
            "condition.time = { after = 2027-01-02T00:00:00Z, before = 2027-01-01T00:00:00Z }",
            "policy[0].condition.time.before: never matches: it is not later than after",
        ),
        (
            'condition.ip = ["10.1.0.0/16"]\ncondition.not_ip = ["10.0.0.0/8"]',
            "policy[0].condition.not_ip: never matches: it holds all of ip",
        ),
        (
            'condition.country = ["FR"]\ncondition.not_country = ["DE", "FR"]',
            "policy[0].condition.not_country: never matches: it holds all of country",
        ),
        ("condition.tokens.max = 0", "policy[0].condition.tokens.max: never matches: it is below 1"),
        ("condition.tokens = { min = 9, max = 8 }", "policy[0].condition.tokens.max: never matches: it is below min"),
        ("condition.tokens = {}", "policy[0].condition.tokens: give min or max"),
        (
            'action = ["read"]\nresource.model = ["mini"]',
            "policy[0].action: never matches: resource.model is asked of 'generate' only",
        ),
        ('resource.model = ["maxi*"]', "policy[0].resource.model: nothing here is called 'maxi*'; there are mini"),
        ('resource.region = ["us-*"]', "policy[0].resource.region: nothing here is called 'us-*'; there are eu-west-1"),
        (
            'principal.tenant = ["team-b"]',
            "policy[0].principal.tenant: nothing here is called 'team-b'; there are team-a",
        ),
        ('principal.key = ["team-b*"]', "policy[0].principal.key: nothing here is called 'team-b*'"),
        ('principal.owner = ["otto"]', "policy[0].principal.owner: nothing here is called 'otto'; there are olga"),
        ('principal.tag = ["silver"]', "policy[0].principal.tag: nothing here is called 'silver'; there are gold"),
        ('principal.subject = ["*"]', "policy[0].principal.subject: nothing here is called '*'; there are none"),
        ('principal.kind = ["token"]', "policy[0].principal.kind: nothing here is called 'token'; there are key"),
        ('principal.attributes.dept = ["x"]', "policy[0].principal.attributes.dept: no [[issuer]] has it"),
        ('condition.country = ["UK"]', "policy[0].condition.country: 'UK' is no country; codes are those of ISO 3166"),
        ('condition.not_country = ["XX"]', "policy[0].condition.not_country: 'XX' is no country"),
        (
            'principal.kind = ["key"]\nprincipal.owner = ["olga"]\nprincipal.attributes.x = ["y"]',
            "policy[0].principal.attributes: callers of kind key have none; those of kind token do",
        ),
        (
            'principal.kind = ["key"]\nprincipal.subject = ["*"]',
            "policy[0].principal.subject: callers of kind key have none; those of kind token do",
        ),
        (
            'principal.kind = ["anonymous"]\nprincipal.tag = ["gold"]',
            "policy[0].principal.tag: callers of kind anonymous have none; those of kind key, token do",
        ),
        ('condition.ipp = ["::/0"]', "policy[0].condition.ipp: unknown key"),
        ('effekt = "allow"', "policy[0].effekt: unknown key"),
    ],
)
def test_a_rule_that_says_nothing_is_refused_with_its_key(body: str, message: str) -> None:
    for effect in ("allow", "deny"):
        assert refusal(BASE + policies(f"{effect} {body}")).startswith(message)


def test_the_line_of_the_mistake_is_told() -> None:
    text = BASE + '[[policy]]\nid = "a"\neffect = "allow"\n\n[policy.condition]\nip = ["x"]\n'
    with pytest.raises(SettingsError, match=r"^isochrone\.toml:20: policy\[0\]\.condition\.ip: 'x' does not appear"):
        parse(text)


@pytest.mark.parametrize(
    ("network", "ip", "message"),
    [
        ('deny = ["10.0.0.0/8"]', '["10.1.0.0/16"]', "never matches: network.deny holds all of it"),
        ('deny = ["10.0.0.0/9", "10.128.0.0/9"]', '["10.0.0.0/8"]', "never matches: network.deny holds all of it"),
        ('allow = ["192.0.2.0/24"]', '["10.1.0.0/16", "::1/128"]', "never matches: none of it lies in network.allow"),
    ],
)
def test_a_rule_about_addresses_from_where_nobody_may_ask_is_refused(network: str, ip: str, message: str) -> None:
    rule = policies(f"allow condition.ip = {ip}")
    assert refusal(f"{BASE}[network]\n{network}\n{rule}") == f"policy[0].condition.ip: {message}"
    parse(f"{BASE}[network]\n{network}\n" + policies('allow condition.ip = ["192.0.2.0/25", "10.0.0.0/7"]'))


@pytest.mark.parametrize(
    "body",
    [
        'condition.country = ["XK", "AQ", "GB"]',
        'condition.time = { from = "22:00", until = "06:00" }',
        'condition.ip = ["10.0.0.0/8"]\ncondition.not_ip = ["10.1.0.0/16"]',
        'condition.ip = ["10.0.0.0/8", "::/0"]\ncondition.not_ip = ["0.0.0.0/0"]',
        'resource.model = ["edge/*"]',
        'resource.model = ["m*"]',
        'principal.tag = ["g*"]',
        "condition.time.before = 2001-01-01T00:00:00Z",  # an edge must start, also after the last day of a rule
    ],
)
def test_a_rule_that_says_something_is_taken(body: str) -> None:
    assert len(parse(BASE + policies(f"allow {body}")).policy) == 1


@pytest.mark.parametrize("body", ['principal.tenant = ["b"]', 'principal.key = ["b"]', 'principal.tag = ["b"]'])
def test_names_that_may_come_from_the_directory_are_not_checked(body: str) -> None:
    parse(BASE + SHARED + policies(f"allow {body}"))
    assert refusal(BASE + SHARED + "[auth]\nkeys = false\n" + policies(f"allow {body}"))


def test_names_that_may_come_from_tokens_are_not_checked() -> None:
    about = ('principal.tenant = ["b"]', 'principal.subject = ["x"]', 'principal.attributes.dept = ["y"]')
    parse(BASE + ISSUER + policies(*(f"allow {one}" for one in about)))
    assert "'silver'" in refusal(BASE + ISSUER + policies('allow principal.tag = ["silver"]'))


ALLOWING = (
    'principal.tag = ["gold"]\nresource.model = ["mini"]\ncondition.ip = ["10.1.0.0/16"]\ncondition.country = ["FR"]'
)


@pytest.mark.parametrize(
    "denying",
    [
        "",
        'principal.tag = ["g*"]',
        'action = ["generate"]',
        'resource.model = ["*"]\nprincipal.tag = ["silver", "gold"]',
        'condition.ip = ["10.0.0.0/8"]\ncondition.country = ["DE", "FR"]',
    ],
)
def test_an_allowing_rule_in_the_shadow_of_a_denying_one_is_refused(denying: str) -> None:
    text = BASE.replace('"gold"', '"gold", "silver"') + policies(f"allow {ALLOWING}", f"deny {denying}")
    assert refusal(text) == "policy[0].effect: never matches: 'r1' denies all that it allows"


@pytest.mark.parametrize(
    "denying",
    [
        'principal.tag = ["silver"]',
        'action = ["read"]',
        'condition.ip = ["10.1.1.0/24"]',
        'condition.not_ip = ["10.1.1.0/24"]',
        'condition.country = ["DE"]',
        'condition.not_country = ["US"]',
        "condition.tokens.min = 5",
        'condition.time.until = "12:00"',
        'principal.tenant = ["team-a"]',
    ],
)
def test_a_denying_rule_that_leaves_something_is_no_shadow(denying: str) -> None:
    rules = policies_in(policies(f"allow {ALLOWING}", f"deny {denying}"), "a.toml")
    assert shadow_of(rules[0], rules) is None


@pytest.mark.parametrize(
    ("allowing", "denying", "shadowed"),
    [
        ("condition.tokens = { min = 10, max = 20 }", "condition.tokens = { min = 5, max = 20 }", True),
        ("condition.tokens = { min = 10 }", "condition.tokens = { min = 5, max = 20 }", False),
        ("condition.tokens = { max = 10 }", "condition.tokens = { min = 5 }", False),
        ('condition.not_ip = ["10.0.0.0/8"]', 'condition.not_ip = ["10.1.0.0/16"]', True),
        ('condition.not_ip = ["10.1.0.0/16"]', 'condition.not_ip = ["10.0.0.0/8"]', False),
        ('condition.not_country = ["FR", "DE"]', 'condition.not_country = ["FR"]', True),
        ('principal.attributes = { a = ["x"], b = ["y"] }', 'principal.attributes = { a = ["x*"] }', True),
        ('principal.attributes = { b = ["x"] }', 'principal.attributes = { a = ["x*"] }', False),
        ('resource.model = ["a"]', 'action = ["generate"]', True),
        ("", 'resource.model = ["*"]', False),
    ],
)
def test_what_is_wider(allowing: str, denying: str, shadowed: bool) -> None:
    rules = policies_in(policies(f"allow {allowing}", f"deny {denying}"), "a.toml")
    assert (shadow_of(rules[0], rules) is not None) == shadowed


def test_a_rule_has_ended_when_its_before_is_over() -> None:
    (rule,) = policies_in(policies("allow condition.time.before = 2026-11-20T12:00:00Z"), "a.toml")
    assert has_ended(rule, datetime(2026, 11, 20, 12, tzinfo=UTC))
    assert not has_ended(rule, datetime(2026, 11, 20, 11, 59, tzinfo=UTC))


@pytest.mark.parametrize(
    ("glob", "like", "unlike"),
    [
        ("a", ["a"], ["", "aa", "A"]),
        ("*", ["", "a", "a\nb"], []),
        ("a*", ["a", "ab"], ["", "ba"]),
        ("*a", ["a", "ba", "aba"], ["ab"]),
        ("a*a", ["aa", "aba"], ["a"]),
        ("a*b*c", ["abc", "axbxbxc"], ["acb", "ab"]),
        ("[a]?", ["[a]?"], ["ab"]),
    ],
)
def test_star_is_any_text_and_nothing_else_is_special(glob: str, like: list[str], unlike: list[str]) -> None:
    assert all(matches(glob, text) for text in like)
    assert not any(matches(glob, text) for text in unlike)


@pytest.mark.parametrize(
    ("wide", "narrow", "expected"),
    [("*", "a*b", True), ("a*", "a*b", True), ("a*", "*", False), ("a*b", "a*", False), ("a", "a", True)],
)
def test_what_covers_what(wide: str, narrow: str, expected: bool) -> None:
    assert covers(wide, narrow) == expected
