"""The local profile is the same app, minus what the emulator cannot do."""

from __future__ import annotations

import json

import pytest

from tests.infra.conftest import Synthesis, Synthesise, function_of, resources

LOCAL = """
[service]
name = "iso"
domain = "llm.example.com"
hosted_zone = "example.com"
hosted_zone_id = "Z0123456789ABC"

[state]
kind = "dynamodb"
endpoint_url = "http://127.0.0.1:4566"

[pool]
create = true

[[region]]
name = "eu-west-1"

[[backend]]
name = "pool-eu"
region = "eu-west-1"
base_url = "http://127.0.0.1:9102/v1"
models = { "smollm2-135m" = "smollm2-135m" }
"""


@pytest.fixture(scope="module")
def local(synthesise: Synthesise) -> Synthesis:
    return synthesise(LOCAL, "local")


def test_types_that_the_emulator_does_not_know_are_left_out(local: Synthesis) -> None:
    types = {resource["Type"] for template in local.templates.values() for resource in template["Resources"].values()}
    assert not types & {"AWS::WAFv2::WebACLAssociation", "AWS::Route53::HealthCheck"}
    assert {"AWS::WAFv2::WebACL", "AWS::Route53::RecordSet", "AWS::CloudWatch::Alarm"} <= types


@pytest.mark.parametrize("dns", ["latency", "geolocation", "geoproximity"])
def test_records_stand_without_their_health_check(synthesise: Synthesise, dns: str) -> None:
    text = LOCAL.replace("[state]", f'dns = "{dns}"\n[state]').replace(
        'name = "eu-west-1"', 'name = "eu-west-1"\ndefault = true'
    )
    assert "HealthCheckId" not in json.dumps(synthesise(text, "local").edge())


def test_no_pool_is_built_on_a_laptop(local: Synthesis) -> None:
    assert set(local.templates) == {"iso-global", "iso-edge-eu-west-1"}


def test_routes_are_buffered_and_still_go_to_the_live_alias(local: Synthesis) -> None:
    for method in resources(local.edge(), "AWS::ApiGateway::Method"):
        integration = method["Integration"]
        uri = json.dumps(integration["Uri"])
        assert "ResponseTransferMode" not in integration
        assert integration["TimeoutInMillis"] == 29_000
        assert "2015-03-31/functions" in uri
        assert "EdgeLive" in uri
        assert uri.rstrip(']}"').endswith("/invocations")


def test_function_runs_without_the_wrapper_and_finds_its_configuration(local: Synthesis) -> None:
    function = function_of(local.edge(), "edge")
    assert function["Environment"]["Variables"] == {"ISOCHRONE_CONFIG": "isochrone.toml"}
    assert len(function["Layers"]) == 3
