"""The names of an edge: the service's own, and the region's, which health checks use."""

from __future__ import annotations

from aws_cdk import aws_apigateway as apigateway
from aws_cdk import aws_certificatemanager as acm
from aws_cdk import aws_route53 as route53
from constructs import Construct

from infra.settings import Deployment


def import_zone(scope: Construct, deployment: Deployment) -> route53.IHostedZone:
    """The operator's hosted zone, as the file names it: nothing is looked up."""
    service = deployment.settings.service
    assert service.hosted_zone is not None
    assert service.hosted_zone_id is not None
    return route53.HostedZone.from_hosted_zone_attributes(
        scope, "Zone", hosted_zone_id=service.hosted_zone_id, zone_name=service.hosted_zone
    )


class EdgeDomain(Construct):
    """`domain` and `<region>.<domain>` on one API, with one certificate for both."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        domain: str,
        region: str,
        zone: route53.IHostedZone,
        api: apigateway.RestApi,
    ) -> None:
        super().__init__(scope, id)
        self.regional_name = f"{region}.{domain}"
        certificate = acm.Certificate(
            self,
            "Certificate",
            domain_name=domain,
            subject_alternative_names=[self.regional_name],
            validation=acm.CertificateValidation.from_dns(zone),
        )
        self.shared = self._map("Shared", domain, api, certificate)
        self.regional = self._map("Regional", self.regional_name, api, certificate)

    def _map(self, id: str, name: str, api: apigateway.RestApi, certificate: acm.ICertificate) -> apigateway.DomainName:
        return apigateway.DomainName(
            self,
            id,
            domain_name=name,
            certificate=certificate,
            endpoint_type=apigateway.EndpointType.REGIONAL,
            security_policy=apigateway.SecurityPolicy.TLS13_1_2_PFS_PQ_2025_09,
            endpoint_access_mode=apigateway.EndpointAccessMode.STRICT,
            mapping=api,
        )
