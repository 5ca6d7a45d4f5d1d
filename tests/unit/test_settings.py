from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest

from isochrone.settings import (
    Deadlines,
    OwnDeadlines,
    Settings,
    SettingsError,
    document_of,
    home_of,
    load,
    main_region,
    parse,
    table_name,
)
from isochrone.toml_errors import in_plain_words

GOOD = """\
[[region]]
name = "us-east-1"
default = true

[[region]]
name = "eu-west-1"

[[backend]]
name = "pool-us"
region = "us-east-1"
base_url = "http://127.0.0.1:9101/v1"
models = { "m" = "there" }

[[backend]]
name = "pool-eu"
region = "eu-west-1"
base_url = "http://127.0.0.1:9102/v1"
models = { "m" = "there", "big" = "big" }
"""


def error_of(text: str) -> str:
    with pytest.raises(SettingsError) as caught:
        parse(text, name="edge.toml")
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_good_configuration_has_the_defaults_of_the_design() -> None:
    settings = parse(GOOD)
    assert [region.name for region in settings.region] == ["us-east-1", "eu-west-1"]
    assert (settings.deadlines.first_token, settings.deadlines.total) == (10.0, 600.0)
    assert (settings.retry.attempts, settings.retry.budget_ratio) == (3, 0.2)
    assert settings.auth.required
    assert settings.backend[0].models == {"m": "there"}
    assert table_name(settings, "answers") == "isochrone-answers"


def test_document_is_plain_data_and_keeps_every_section() -> None:
    document = document_of(parse(GOOD))
    assert document["backend"][1]["models"] == {"m": "there", "big": "big"}
    assert document["answers"]["ttl"] == 86_400


@pytest.mark.parametrize(
    ("extra", "line", "key", "words"),
    [
        ("[service]\nnam = 'x'", 21, "service.nam", "unknown key"),
        ("[servce]\nname = 'x'", 20, "servce", "unknown key"),
        ("[service]\nname = 'Not A Name'", 21, "service.name", "expected a name: small letters, digits and -"),
        ("[service]\ndns = 'nearest'", 21, "service.dns", "nearest"),
        ("[deadlines]\n\nstall = 0", 22, "deadlines.stall", "> 0"),
        ("[deadlines]\nstall = '10'", 21, "deadlines.stall", "got str"),
        ("[retry]\nattempts = 11", 21, "retry.attempts", "<= 10"),
        ("[retry]\nbudget_ratio = 1.5", 21, "retry.budget_ratio", "<= 1"),
        ("[answers]\nttl = 0", 21, "answers.ttl", ">= 1"),
        ("[auth]\nrequired = 'no'", 21, "auth.required", "got str"),
        ("[auth]\npolicies = true", 21, "auth.policies", "needs state.kind"),
        ("[[key]]\nid = 'a'\ntenant = 't'\nsha256 = 'abc'", 23, "key[0].sha256", "expected 64 digits from 0 to f"),
        ("[[key]]\nid = 'a'\ntenant = 't'", 20, "key[0].sha256", "is missing"),
        ("[[region]]\nnmae = 'x'", 21, "region[2].nmae", "unknown key"),
        ("[[region]]\nname = 'ap'\nserves = ['Asia']", 22, "region[2].serves[0]", "expected two capital letters"),
        (
            "[[backend]]\nname = 'c'\nbase_url = 'ftp://x'\nmodels = {m='m'}",
            22,
            "backend[2].base_url",
            "https:// or http://",
        ),
        ("[[backend]]\nname = 'c'\nbase_url = 'http://x/v1'\nmodels = {}", 23, "backend[2].models", "length >= 1"),
        (
            "[[backend]]\nname = 'c'\nbase_url = 'http://x/v1'\nmodels = {m='m'}\nengine = 'tgi'",
            24,
            "backend[2].engine",
            "tgi",
        ),
        (
            "[[backend]]\nname = 'c'\nbase_url = 'http://x/v1'\nmodels = {m='m'}\napi_key = 'secret'",
            24,
            "backend[2].api_key",
            "unknown key",
        ),
    ],
)
def test_wrong_key_is_one_line_with_file_line_and_key(extra: str, line: int, key: str, words: str) -> None:
    message = error_of(GOOD + "\n" + extra + "\n")
    assert message.startswith(f"edge.toml:{line}: {key}: ")
    assert words in message


@pytest.mark.parametrize(
    ("extra", "line", "key", "words"),
    [
        ("[[region]]\nname = 'us-east-1'", 21, "region[2].name", "stands twice"),
        ("[[region]]\nname = 'x'\ndefault = true", 22, "region[2].default", "exactly one"),
        ("[service]\ndomain = 'llm.example.com'", 21, "service.domain", "hosted_zone"),
        (
            "[[backend]]\nname = 'pool-us'\nbase_url = 'http://x/v1'\nmodels = {m='m'}",
            21,
            "backend[2].name",
            "stands twice",
        ),
        (
            "[[backend]]\nname='c'\nbase_url='http://x/v1'\nmodels={m='m'}\napi_key_env='A'\napi_key_secret='b'",
            25,
            "backend[2].api_key_secret",
            "not both",
        ),
        ("[[model]]\nname = 'lost'", 21, "model[0].name", "no backend serves 'lost'"),
        ("[[model]]\nname = 'm'\nfallback = ['m']", 22, "model[0].fallback", "no fallback of itself"),
        ("[[model]]\nname = 'm'\nprimary = 'api'", 22, "model[0].primary", "no backend of kind 'api' serves 'm'"),
        ("[[backend]]\nname='c'\nbase_url='http://x:99999/v1'\nmodels={m='m'}", 22, "backend[2].base_url", "port"),
        ("[routing]\nmax_wait = inf", 21, "routing.max_wait", "1000000000"),
        ("[[model]]\nname = 'm'\nfallback = ['big', 'lost']", 22, "model[0].fallback", "no backend serves 'lost'"),
        (
            "[[model]]\nname = 'm'\nregions = ['eu-west-1', 'mars']",
            22,
            "model[0].regions",
            "no backend that serves 'm'",
        ),
        ("[[model]]\nname = 'm'\nstandby_above_ms = 500", 22, "model[0].standby_above_ms", "none can stand by"),
        (
            f"[[key]]\nid='a'\ntenant='t'\nsha256='{'0' * 64}'\nregions=['mars']",
            24,
            "key[0].regions",
            "no backend stands in 'mars'",
        ),
        ("[[model]]\nname = 'm'\n[[model]]\nname = 'm'", 23, "model[1].name", "stands twice"),
        ("[geo]\ntrusted_proxies = ['10.0.0.0/33']", 21, "geo.trusted_proxies", "10.0.0.0/33"),
        ("[geo]\ntrusted_proxies = ['10.0.0.1/8']", 21, "geo.trusted_proxies", "host bits"),
        (
            f"[[key]]\nid='a'\ntenant='t'\nsha256='{'0' * 64}'\nnetworks=['office']",
            24,
            "key[0].networks",
            "office",
        ),
    ],
)
def test_contradiction_is_one_line_with_file_line_and_key(extra: str, line: int, key: str, words: str) -> None:
    message = error_of(GOOD + "\n" + extra + "\n")
    assert message.startswith(f"edge.toml:{line}: {key}: ")
    assert words in message


def test_geolocation_needs_a_default_region() -> None:
    text = GOOD.replace("default = true\n", "") + "\n[service]\ndns = 'geolocation'\n"
    assert "service.dns: geolocation needs exactly one" in error_of(text)


@pytest.mark.parametrize("code", ["UK", "XX"])
def test_place_that_geolocation_does_not_know_names_the_line(code: str) -> None:
    text = GOOD.replace("default = true\n", f"default = true\nserves = ['EU', '{code}']\n", 1)
    complaint = f"edge.toml:4: region[0].serves: {code!r} is no continent and no country; codes are those of ISO 3166"
    assert error_of(text + "\n[service]\ndns = 'geolocation'\n").startswith(complaint)
    assert parse(text).region[0].serves == ("EU", code), "nothing reads it without geolocation"


def test_continents_and_countries_can_be_served() -> None:
    everywhere = ("AF", "AN", "AS", "EU", "NA", "OC", "SA", "GB", "TW", "JP")
    text = GOOD.replace("default = true\n", f"default = true\nserves = {list(everywhere)}\n", 1)
    assert parse(text + "\n[service]\ndns = 'geolocation'\n").region[0].serves == everywhere


def test_pool_without_a_region_cannot_be_created() -> None:
    text = GOOD.replace('region = "eu-west-1"\n', "") + "\n[pool]\ncreate = true\n"
    assert "backend[1].region: pool.create needs one of the regions us-east-1, eu-west-1" in error_of(text)


def test_every_pattern_of_a_key_is_told_in_words() -> None:
    schema = json.dumps(msgspec.json.schema_components((Settings,)))
    patterns = {json.loads(text) for text in re.findall(r'"pattern": ("(?:[^"\\]|\\.)*")', schema)}
    assert r"^[0-9a-f]{64}$" in patterns
    for pattern in patterns:
        said = in_plain_words(f"Expected `str` matching regex {pattern!r}", (), Settings)
        assert said.startswith("expected ")
        assert said != "expected another form", pattern


@pytest.mark.parametrize("text", ["", "[service]\n"])
def test_configuration_without_regions_says_so(text: str) -> None:
    assert error_of(text) == "edge.toml:1: region: is missing"


def test_configuration_without_backends_says_so() -> None:
    assert error_of("[[region]]\nname = 'x'\n") == "edge.toml:1: backend: is missing"


def test_what_is_no_toml_names_the_line() -> None:
    assert error_of("[service\n").startswith("edge.toml:1: no TOML: ")
    assert error_of("[service]\n[service]\n").startswith("edge.toml:2: no TOML: ")


def test_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.toml", tmp_path):
        with pytest.raises(SettingsError) as caught:
            load(path)
        assert str(caught.value).startswith(f"{path}: ")
    garbled = tmp_path / "garbled.toml"
    garbled.write_bytes(b"# caf\xe9\n")
    with pytest.raises(SettingsError, match="not UTF-8"):
        load(garbled)


def test_file_is_read_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "edge.toml"
    path.write_text(GOOD, encoding="utf-8")
    assert load(path) == parse(GOOD)


def test_own_deadlines_go_before_those_of_all_and_the_first_one_that_says_something_wins() -> None:
    own, models = OwnDeadlines(first_token=20), OwnDeadlines(first_token=30, stall=5)
    assert Deadlines().but(own, models) == Deadlines(first_token=20, stall=5)
    assert Deadlines(connect=1).but(OwnDeadlines()) == Deadlines(connect=1)


@pytest.mark.parametrize(
    ("stands", "home"),
    [
        ('region = "eu-west-1"', "eu-west-1"),
        ('region = "us-east-1"', "us-east-1"),
        ('region = "sa-east-1"', "us-east-1"),
        ("location = [53.35, -6.26]", "us-east-1"),
        ("", "us-east-1"),
    ],
)
def test_home_of_a_backend_is_where_an_edge_stands_beside_it_else_the_main_region(stands: str, home: str) -> None:
    settings = parse(GOOD.replace('region = "eu-west-1"', stands))
    assert home_of(settings.backend[1], settings) == home


def test_main_region_is_the_default_one_else_the_first() -> None:
    without = GOOD.replace("default = true\n", "")
    second = without.replace('name = "eu-west-1"', 'name = "eu-west-1"\ndefault = true', 1)
    assert [main_region(parse(text)) for text in (GOOD, without, second)] == ["us-east-1", "us-east-1", "eu-west-1"]


def test_a_word_that_may_not_stand_there_is_answered_with_those_that_may() -> None:
    with pytest.raises(SettingsError, match=r"service\.dns: 'nearest' is none of geolocation, geoproximity, latency$"):
        parse(GOOD + '\n[service]\ndns = "nearest"')


def test_a_mistake_in_a_table_within_a_table_is_found_on_its_line() -> None:
    rules = '\n[[answers.rule]]\nname = "a"\nttl = 3\npattern = "x"\n[[answers.rule]]\nname = "b"\nttl = 3'
    line = (GOOD + rules).count("\n") + 2
    with pytest.raises(SettingsError, match=rf":{line}: answers\.rule\[1\]\.pattern: no regular expression"):
        parse(GOOD + rules + '\npattern = "("')


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ('[[light]]\ntask = "keywords"\nmodel = "edge/tokens"', "light[0].model: 'edge/tokens' is a task's own name"),
        (
            '[[answers.rule]]\nname = "r"\npattern = "(?=x)"\nttl = 1',
            "answers.rule[0].pattern: no regular expression that",
        ),
        ('[[answers.rule]]\nname = "r"\npattern = "x"\nttl = "never"', "'never' is neither a whole number nor forever"),
        (
            '[[model]]\nname = "m"\nanswers = { exact = false, semantic = true }',
            "model[0].answers.semantic: needs exact answers, which are off here",
        ),
    ],
)
def test_settings_of_answers_that_could_have_no_effect_are_refused(more: str, complaint: str) -> None:
    assert complaint in error_of(GOOD + "\n" + more)
