"""Who may come in, and what is looked at: what could never have an effect, or would shut everybody out, is refused."""

from __future__ import annotations

import pytest

from isochrone.admin import make_key
from isochrone.api.errors import BadRequest
from isochrone.settings import SettingsError, parse

BASE = """
[[region]]
name = "eu-west-1"
[[backend]]
name = "pool"
region = "eu-west-1"
base_url = "http://127.0.0.1:9/v1"
models = { "mini" = "m" }
"""
SHARED = '[state]\nkind = "dynamodb"\n'
ISSUER = '[[issuer]]\nname = "a"\nurl = "{}"\naudience = "x"\ntenant = "team-b"\n'


def key(name: str, *more: str, digit: str = "0") -> str:
    return "\n".join(("[[key]]", f'id = "{name}"', 'tenant = "team-a"', f'sha256 = "{digit * 64}"', *more, ""))


def refusal(text: str) -> str:
    with pytest.raises(SettingsError) as caught:
        parse(BASE + text)
    return str(caught.value).partition(": ")[2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '[network]\nallow = ["10.0.0.0/8"]\ndeny = ["10.0.0.0/8"]',
            "network.deny: holds all of allow: nobody could ask",
        ),
        ('[network]\ndeny = ["0.0.0.0/0", "::/0"]', "network.deny: holds all of the Internet: nobody could ask"),
        (
            key("a", 'networks = ["10.1.0.0/16"]', 'denied_networks = ["10.0.0.0/8"]'),
            "key[0].denied_networks: nobody could use this key: every network that it allows is denied",
        ),
        (
            key("a", 'denied_networks = ["0.0.0.0/0", "::/0"]'),
            "key[0].denied_networks: nobody could use this key: every network that it allows is denied",
        ),
        (
            key("a", 'networks = ["10.1.0.0/16"]') + '[network]\ndeny = ["10.0.0.0/8"]',
            "key[0].networks: nobody could use this key: every network that it allows is denied",
        ),
        (
            key("a", 'networks = ["10.1.0.0/16"]') + '[network]\nallow = ["192.0.2.0/24"]',
            "key[0].networks: nobody could use this key: none of these lies in network.allow",
        ),
        (
            key("a") + key("b"),
            "key[1].sha256: is the same as that of key 'a': nobody could tell the two apart",
        ),
        ('[waf]\nblock_countries = ["FR", "UK"]', "waf.block_countries: 'UK' is no country; codes are those of ISO"),
        ('[content]\non_error = "deny"', "content.on_error: needs content.moderation"),
        ('[audit]\nto = "file"\nobject_lock = true', 'audit.object_lock: needs audit.to = "firehose"'),
        ('[pii]\nmode = "log"\nkinds = []', "pii.kinds: give at least one kind"),
    ],
)
def test_what_could_never_have_an_effect_is_refused(text: str, message: str) -> None:
    assert refusal(text).startswith(message)


@pytest.mark.parametrize("pattern", ["", "x*", "(a|)", ".*"])
def test_a_rule_for_contents_that_finds_something_in_every_text_is_refused(pattern: str) -> None:
    complaint = f"content.rule[0].pattern: {pattern!r} finds something in every text, so that nothing could be asked"
    assert refusal(f'[[content.rule]]\nname = "a"\npattern = "{pattern}"') == complaint


@pytest.mark.parametrize("pattern", ["^$", "x+", "[a-z]"])
def test_a_rule_for_contents_that_finds_something_in_some_texts_is_taken(pattern: str) -> None:
    assert len(parse(f'{BASE}[[content.rule]]\nname = "a"\npattern = "{pattern}"').content.rule) == 1


def test_two_rules_for_contents_have_two_names() -> None:
    rule = '[[content.rule]]\nname = "a"\npattern = "x"\n'
    assert refusal(rule + rule) == "content.rule[1].name: 'a' stands twice"


@pytest.mark.parametrize(
    "text",
    [
        '[network]\nallow = ["10.0.0.0/8"]\ndeny = ["10.0.0.0/9"]',
        '[network]\ndeny = ["0.0.0.0/0"]',  # all of IPv6 may ask
        key("a", 'networks = ["10.0.0.0/8"]', 'denied_networks = ["10.1.0.0/16"]'),
        key("a", 'networks = ["192.0.0.0/16"]') + '[network]\nallow = ["192.0.2.0/24"]',
        key("a") + key("b", digit="1"),
        '[[tenant]]\nname = "whose-key-is-made-next"',
        '[waf]\nblock_countries = ["KP", "GB", "XK"]',
        '[content]\nmoderation = "pool"\non_error = "deny"',
        '[audit]\nto = "firehose"\nobject_lock = true',
    ],
)
def test_what_has_an_effect_is_taken(text: str) -> None:
    parse(BASE + text)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://login.example.com", "only https is asked"),
        ("https://10.0.0.1/x", "10.0.0.1 is no public address"),
        ("https://169.254.169.254/", "169.254.169.254 is no public address"),
        ("https://user:hunter2@a.example", "it names a user, or a fragment"),
        ("https://keycloak:8443/realms/x", "keycloak is no full name"),
    ],
)
def test_an_address_that_would_never_be_asked_is_refused_with_its_line(url: str, why: str) -> None:
    assert refusal(ISSUER.format(url)) == f"issuer[0].url: cannot be asked: {why}"
    other = ISSUER.format("https://login.example.com") + f'jwks_url = "{url}"'
    assert refusal(other) == f"issuer[0].jwks_url: cannot be asked: {why}"
    told = refusal(f'[limits]\nnotify_url = "{url}"')
    assert told.startswith("limits.notify_url: ")
    assert "hunter2" not in told
    with pytest.raises(SettingsError, match=r"^isochrone\.toml:11: issuer\[0\]\.url: "):
        parse(BASE + ISSUER.format(url))


@pytest.mark.parametrize("url", ["https://login.example.com:9443/x", "http://127.0.0.1:9/x", "http://localhost/x"])
def test_a_public_address_or_this_machine_may_be_asked(url: str) -> None:
    parse(BASE + ISSUER.format(url) + f'[limits]\nnotify_url = "{url}"')


def test_keys_on_another_machine_are_not_taken_from_this_one() -> None:
    text = ISSUER.format("https://login.example.com") + 'jwks_url = "http://127.0.0.1/keys"'
    assert refusal(text) == "issuer[0].jwks_url: cannot be asked: 127.0.0.1 is this machine"


def test_no_key_and_no_token_is_of_the_tenant_of_those_who_show_none() -> None:
    complaint = "tenant: 'anonymous' is the tenant of those who show no key; choose another name"
    assert refusal(key("a").replace("team-a", "anonymous")) == f"key[0].{complaint}"
    issuer = ISSUER.format("https://login.example.com").replace("team-b", "anonymous")
    assert refusal(issuer) == f"issuer[0].{complaint}"


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"tenant": "anonymous"}, "tenant: 'anonymous' is the tenant of those who show no key"),
        (
            {"tenant": "a", "networks": ["10.0.0.0/8"], "denied_networks": ["10.0.0.0/8"]},
            "denied_networks: nobody could use this key",
        ),
        ({"tenant": "a", "networks": ["office"]}, "networks: 'office' does not appear to be"),
    ],
)
def test_a_key_that_nobody_could_use_is_not_made(wish: dict[str, object], message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        make_key(parse(BASE + SHARED), wish, random=bytes(32), now=0)
    assert caught.value.message.startswith(message)
