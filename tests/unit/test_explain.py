from __future__ import annotations

import json
import re
from typing import Any

import pytest

from isochrone.explain import Explained, explain
from isochrone.routing.geo import Location, NoLocator
from isochrone.settings import Settings, parse

CONFIG = """
[[region]]
name = "us-east-1"
[[region]]
name = "eu-west-1"
[[region]]
name = "ap-southeast-1"

[[backend]]
name = "pool-us"
region = "us-east-1"
base_url = "http://127.0.0.1:1/v1"
models = { m = "m" }
[[backend]]
name = "pool-eu"
region = "eu-west-1"
base_url = "http://127.0.0.1:2/v1"
models = { m = "m" }
[[backend]]
name = "pool-ap"
region = "ap-southeast-1"
base_url = "http://127.0.0.1:3/v1"
models = { m = "m" }
[[backend]]
name = "official"
kind = "api"
base_url = "http://127.0.0.1:4/v1"
models = { big = "big" }

[[model]]
name = "m"
fallback = ["big"]
"""
PLACES = {
    "133.11.0.1": Location(35.68, 139.69, "JP", "Tokyo"),
    "141.1.1.1": Location(50.11, 8.68, "DE", "Frankfurt am Main"),
    "200.1.1.1": Location(-23.55, -46.63, "BR", "São Paulo"),
}


class Places:
    """A locator that knows three addresses."""

    def locate(self, address: str) -> Location | None:
        return PLACES.get(address)


@pytest.fixture
def settings() -> Settings:
    return parse(CONFIG)


@pytest.mark.parametrize(
    ("address", "pool", "edge"),
    [
        ("133.11.0.1", "pool-ap", "ap-southeast-1"),
        ("141.1.1.1", "pool-eu", "eu-west-1"),
        ("200.1.1.1", "pool-us", "us-east-1"),
    ],
)
@pytest.mark.parametrize("region", [None, "us-east-1"])
def test_nearest_pool_is_named_first_and_the_official_api_last(
    settings: Settings, address: str, pool: str, edge: str, region: str | None
) -> None:
    explained = explain(settings, region=region, client_ip=address, model="m", locator=Places())
    told = explained.as_dict()
    assert told["plan"][0]["backend"] == pool
    assert told["plan"][-1]["backend"] == "official"
    assert [step["position"] for step in told["plan"]] == [1, 2, 3, 4]
    assert (told["nearest_edge"], told["edge"]) == (edge, region or edge)
    assert json.loads(json.dumps(told)) == told


def test_text_says_who_where_and_why(settings: Settings) -> None:
    text = explain(settings, region="us-east-1", client_ip="133.11.0.1", model="m", locator=Places()).as_text()
    first, *steps = text.splitlines()
    assert first == "client 133.11.0.1 (Tokyo, JP), model m, edge us-east-1 (nearest edge: ap-southeast-1)"
    assert steps[0].startswith("1. pool-ap ")
    assert "ms from the client" in steps[0]
    assert "as big" in steps[-1]
    assert "the last resort" in steps[-1]


def test_unknown_place_is_planned_from_the_edge(settings: Settings) -> None:
    explained = explain(settings, region="eu-west-1", client_ip="10.0.0.1", model="m", locator=NoLocator())
    assert explained.nearest_edge is None
    assert explained.steps[0].backend.facts.name == "pool-eu"
    assert "unknown place" in explained.as_text()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"client_ip": "tokyo"}, "--client-ip 'tokyo' is no IP address"),
        ({"region": "mars-1"}, "--region 'mars-1' is not in the configuration; it has us-east-1, eu-west-1"),
        ({"model": "gpt-9"}, "--model 'gpt-9' is served by no backend; there are m, big"),
    ],
)
def test_wrong_argument_is_one_line_that_names_it(settings: Settings, wrong: dict[str, str], words: str) -> None:
    arguments = {"region": None, "client_ip": "133.11.0.1", "model": "m", **wrong}
    with pytest.raises(ValueError, match="--") as caught:
        explain(settings, locator=Places(), **arguments)  # type: ignore[arg-type]
    assert str(caught.value).startswith(words)


RULES = """
[[backend]]
name = "pool-eu-2"
region = "eu-west-1"
base_url = "http://127.0.0.1:5/v1"
models = { m = "m" }
[[backend]]
name = "canary"
region = "ap-southeast-1"
base_url = "http://127.0.0.1:6/v1"
models = { m = "m" }
share = 0.05
[[backend]]
name = "api-m"
kind = "api"
base_url = "http://127.0.0.1:7/v1"
models = { m = "m" }
price = { input = 1.0, output = 2.0 }
"""


@pytest.fixture
def ruled() -> Settings:
    return parse(CONFIG.replace('fallback = ["big"]', 'fallback = ["big"]\nstandby_above_ms = 500') + RULES)


def explained(settings: Settings, **more: Any) -> Explained:
    return explain(
        settings, **{"region": "eu-west-1", "client_ip": "141.1.1.1", "model": "m", **more}, locator=Places()
    )


def test_who_stands_outside_is_listed_with_why_and_not_in_the_plan(ruled: Settings) -> None:
    told = explained(ruled, regions=["eu-west-1"])
    assert {step["backend"] for step in told.as_dict()["plan"]} == {"pool-eu", "pool-eu-2"}
    assert told.as_dict()["regions"] == ["eu-west-1"]
    whys = {each["backend"]: each["why"] for each in told.as_dict()["excluded"]}
    assert whys["pool-us"] == "us-east-1 is no region for this request"
    assert whys["official"] == "it is in no region"
    assert "-  official  as big  not asked: it is in no region" in told.as_text().splitlines()


def test_the_models_own_rule_is_told_as_well() -> None:
    settings = parse(CONFIG.replace('fallback = ["big"]', 'fallback = ["big"]\nregions = ["eu-west-1"]'))
    told = explained(settings).as_dict()
    assert told["regions"] == ["eu-west-1"]
    assert [step["backend"] for step in told["plan"]] == ["pool-eu"]


def test_request_that_may_be_answered_nowhere_is_one_line(ruled: Settings) -> None:
    with pytest.raises(ValueError, match="no backend that serves 'm' stands in sa-east-1"):
        explained(ruled, regions=["sa-east-1"])


def test_near_equals_are_told_and_how_the_choice_falls(ruled: Settings) -> None:
    by_lot, by_prompt = explained(ruled), explained(ruled, prompt="Why is the sky blue?")
    assert sorted(by_lot.as_dict()["near_equals"]) == ["pool-eu", "pool-eu-2"]
    assert "the less loaded of two drawn by lot goes first" in by_lot.as_text()
    assert "the prompt's beginning decides" in by_prompt.as_text()
    assert by_prompt.as_dict()["plan"][0]["choice"] == "affinity"


def test_prompts_are_shared_out_among_near_equals(ruled: Settings) -> None:
    firsts = {explained(ruled, prompt=f"Question {i}").steps[0].backend.facts.name for i in range(30)}
    assert firsts == {"pool-eu", "pool-eu-2"}


def test_canaries_and_the_hybrid_rule_are_told(ruled: Settings) -> None:
    told = explained(ruled)
    assert "canary: 5 % of the requests for m go to canary first" in told.as_text()
    assert "hybrid: APIs before pools while the pools' p95 to a first token is above 500 ms" in told.as_text()
    assert told.as_dict()["hybrid"] == {"primary": "pool", "standby_above_ms": 500.0}


def test_every_part_of_the_cost_is_told(ruled: Settings) -> None:
    told = explained(ruled)
    for step in told.as_dict()["plan"]:
        assert sum(step["costs_ms"].values()) == pytest.approx(step["cost_ms"], abs=0.5)
    assert re.search(r"api-m .*, cost \d+ ms: \d+ network, 3 price", told.as_text())
    assert "cost" not in next(line for line in told.as_text().splitlines() if "pool-us" in line)
