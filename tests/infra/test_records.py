"""How clients find an edge, by each of the three ways of DNS."""

from __future__ import annotations

from typing import Any

import pytest

from tests.infra.conftest import BASE, Synthesis, Synthesise, Template, only, resources

REGIONS = ("us-east-1", "eu-west-1", "ap-southeast-1")
SHARED = "llm.example.com."


def _records(edge: Template) -> list[dict[str, Any]]:
    grouped = [record for group in resources(edge, "AWS::Route53::RecordSetGroup") for record in group["RecordSets"]]
    return [*resources(edge, "AWS::Route53::RecordSet"), *grouped]


def _shared(app: Synthesis, region: str) -> list[dict[str, Any]]:
    return [record for record in _records(app.edge(region)) if record["Name"] == SHARED]


@pytest.fixture
def variant(synthesise: Synthesise, request: pytest.FixtureRequest) -> Synthesis:
    return synthesise(BASE.replace('dns = "latency"', f'dns = "{request.param}"'))


@pytest.mark.parametrize("variant", ["latency", "geolocation", "geoproximity"], indirect=True)
@pytest.mark.parametrize("region", REGIONS)
def test_every_shared_record_is_taken_out_when_its_own_region_fails(variant: Synthesis, region: str) -> None:
    edge = variant.edge(region)
    check = only(edge, "AWS::Route53::HealthCheck")["HealthCheckConfig"]
    assert check["FullyQualifiedDomainName"] == f"{region}.llm.example.com"
    assert (check["Type"], check["ResourcePath"], check["EnableSNI"]) == ("HTTPS", "/healthz", True)
    records = _shared(variant, region)
    assert records
    assert all("Ref" in record["HealthCheckId"] for record in records)


@pytest.mark.parametrize("region", REGIONS)
def test_region_answers_on_a_name_of_its_own_that_no_routing_moves(app: Synthesis, region: str) -> None:
    (own,) = [record for record in _records(app.edge(region)) if record["Name"] == f"{region}.llm.example.com."]
    assert "SetIdentifier" not in own
    certificate = only(app.edge(region), "AWS::CertificateManager::Certificate")
    assert certificate["DomainName"] == "llm.example.com"
    assert certificate["SubjectAlternativeNames"] == [f"{region}.llm.example.com"]


@pytest.mark.parametrize("region", REGIONS)
def test_latency_sends_a_client_to_the_fastest_region(app: Synthesis, region: str) -> None:
    (record,) = _shared(app, region)
    assert (record["Region"], record["SetIdentifier"]) == (region, region)


@pytest.mark.parametrize("variant", ["geoproximity"], indirect=True)
@pytest.mark.parametrize("region", REGIONS)
def test_geoproximity_sends_a_client_to_the_closest_region(variant: Synthesis, region: str) -> None:
    (record,) = _shared(variant, region)
    assert record["GeoProximityLocation"] == {"AWSRegion": region}
    assert set(record["AliasTarget"]) == {"DNSName", "HostedZoneId"}


@pytest.mark.parametrize("variant", ["geolocation"], indirect=True)
def test_geolocation_follows_what_each_region_serves_and_has_one_default(variant: Synthesis) -> None:
    locations = {region: [record["GeoLocation"] for record in _shared(variant, region)] for region in REGIONS}
    assert locations == {
        "us-east-1": [{"ContinentCode": "NA"}, {"ContinentCode": "SA"}, {"CountryCode": "*"}],
        "eu-west-1": [{"ContinentCode": "EU"}, {"ContinentCode": "AF"}, {"CountryCode": "IL"}],
        "ap-southeast-1": [{"ContinentCode": "AS"}, {"ContinentCode": "OC"}],
    }
