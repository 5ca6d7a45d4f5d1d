"""Route 53: how a client finds its edge, and how an edge that fails is taken out."""

from __future__ import annotations

from collections.abc import Iterator

from aws_cdk import Duration
from aws_cdk import aws_route53 as route53
from aws_cdk import aws_route53_targets as targets
from constructs import Construct

from infra.constructs.domain import EdgeDomain
from infra.settings import Deployment

# The least that Route 53 allows; each more region adds a request every 30 s to every edge.
CHECKER_REGIONS = ("us-east-1", "eu-west-1", "ap-southeast-1")


class EdgeRecords(Construct):
    """The region's own name, a health check on it, and the record(s) of the shared name by `service.dns`."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        deployment: Deployment,
        region: str,
        zone: route53.IHostedZone,
        domain: EdgeDomain,
    ) -> None:
        super().__init__(scope, id)
        self._region, self._zone, self._domain = region, zone, domain
        self._shared_name = f"{deployment.settings.service.domain}."
        route53.ARecord(
            self,
            "OwnName",
            zone=zone,
            record_name=f"{domain.regional_name}.",
            target=route53.RecordTarget.from_alias(targets.ApiGatewayDomain(domain.regional)),
        )
        self._check = self._health_check()
        match deployment.settings.service.dns:
            case "latency":
                self._latency()
            case "geolocation":
                self._geolocation(deployment)
            case "geoproximity":
                self._geoproximity()

    def _health_check(self) -> route53.HealthCheck:
        return route53.HealthCheck(
            self,
            "HealthCheck",
            type=route53.HealthCheckType.HTTPS,
            fqdn=self._domain.regional_name,
            resource_path="/healthz",
            request_interval=Duration.seconds(30),
            failure_threshold=2,
            regions=list(CHECKER_REGIONS),
        )

    def _latency(self) -> None:
        route53.ARecord(
            self,
            "Latency",
            zone=self._zone,
            record_name=self._shared_name,
            target=self._shared_target(),
            region=self._region,
            set_identifier=self._region,
            health_check=self._check,
        )

    def _geolocation(self, deployment: Deployment) -> None:
        for name, location in _locations(deployment, self._region):
            route53.ARecord(
                self,
                f"Geo{name}",
                zone=self._zone,
                record_name=self._shared_name,
                target=self._shared_target(),
                geo_location=location,
                set_identifier=f"{self._region}-{name}",
                health_check=self._check,
            )

    def _geoproximity(self) -> None:
        # Only the record set *group* knows geoproximity.
        alias = self._domain.shared
        route53.CfnRecordSetGroup(
            self,
            "Geoproximity",
            hosted_zone_id=self._zone.hosted_zone_id,
            record_sets=[
                route53.CfnRecordSetGroup.RecordSetProperty(
                    name=self._shared_name,
                    type="A",
                    set_identifier=self._region,
                    geo_proximity_location=route53.CfnRecordSetGroup.GeoProximityLocationProperty(
                        aws_region=self._region
                    ),
                    health_check_id=self._check.health_check_id,
                    alias_target=route53.CfnRecordSetGroup.AliasTargetProperty(
                        dns_name=alias.domain_name_alias_domain_name,
                        hosted_zone_id=alias.domain_name_alias_hosted_zone_id,
                    ),
                )
            ],
        )

    def _shared_target(self) -> route53.RecordTarget:
        return route53.RecordTarget.from_alias(targets.ApiGatewayDomain(self._domain.shared))


def _locations(deployment: Deployment, region: str) -> Iterator[tuple[str, route53.GeoLocation]]:
    """What the region serves; the default region also takes whoever no rule names."""
    served = deployment.region(region)
    for code in served.serves:
        yield code, _location(code)
    if served.default:
        yield "Default", route53.GeoLocation.default()


# Continents and countries are both two letters; where a code is both (NA, SA, AS, AF), the continent is meant.
_CONTINENT = {
    "AF": route53.Continent.AFRICA,
    "AN": route53.Continent.ANTARCTICA,
    "AS": route53.Continent.ASIA,
    "EU": route53.Continent.EUROPE,
    "NA": route53.Continent.NORTH_AMERICA,
    "OC": route53.Continent.OCEANIA,
    "SA": route53.Continent.SOUTH_AMERICA,
}


def _location(code: str) -> route53.GeoLocation:
    if continent := _CONTINENT.get(code):
        return route53.GeoLocation.continent(continent)
    return route53.GeoLocation.country(code)
