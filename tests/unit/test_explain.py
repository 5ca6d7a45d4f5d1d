from __future__ import annotations

import json

import pytest

from isochrone.explain import explain
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
