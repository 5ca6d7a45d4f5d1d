"""One region's entry point: API, edge, prober, warmer and admin functions, tables, records, alarms."""

from __future__ import annotations

from aws_cdk import CfnOutput, Stack
from constructs import Construct

from infra.constructs.admin_function import AdminFunction
from infra.constructs.alarms import Alarms
from infra.constructs.audit import AuditTrail
from infra.constructs.domain import EdgeDomain, import_zone
from infra.constructs.edge_function import EdgeFunction
from infra.constructs.function_parts import LayerVersions
from infra.constructs.gateway_errors import answer_errors
from infra.constructs.prober_function import ProberFunction
from infra.constructs.records import EdgeRecords
from infra.constructs.streaming_api import StreamingApi
from infra.constructs.tables import Tables
from infra.constructs.waf import WebAcl
from infra.constructs.warmer_function import WarmerFunction
from infra.layers import Layers
from infra.settings import Deployment
from isochrone.stores.tables import TABLES


class EdgeStack(Stack):
    """Needs nothing of the other stacks to be deployed: it knows them by fixed names."""

    def __init__(self, scope: Construct, id: str, *, deployment: Deployment, region: str, layers: Layers) -> None:
        super().__init__(
            scope, id, stack_name=f"{deployment.name}-edge-{region}", description=f"Isochrone: the edge in {region}"
        )
        domain = deployment.settings.service.domain
        Tables(
            self,
            "Tables",
            tables=[table for table in TABLES if table.scope == "regional"],
            deployment=deployment,
        )
        versions = LayerVersions(self, "Layers", layers=layers)
        edge = EdgeFunction(self, "Edge", deployment=deployment, layers=versions)
        if deployment.settings.audit.to == "firehose":
            AuditTrail(self, "Audit", deployment=deployment)
        if deployment.probes:
            ProberFunction(self, "Prober", deployment=deployment, layers=versions)
        if deployment.warms:
            WarmerFunction(self, "Warmer", deployment=deployment, layers=versions)
        front = StreamingApi(
            self, "Front", name=f"{deployment.name}-{region}", handler=edge.alias, only_by_domain=domain is not None
        )
        if deployment.administered:
            AdminFunction(self, "Admin", deployment=deployment, layers=versions).serve(front.api)
        stage_arn = front.api.deployment_stage.stage_arn
        acl = WebAcl(self, "Waf", name=f"{deployment.name}-{region}", stage_arn=stage_arn, deployment=deployment)
        answer_errors(front.api)
        Alarms(
            self,
            "Alarms",
            deployment=deployment,
            region=region,
            api=front,
            function=edge.function,
            web_acl=acl.name,
        )
        if domain is not None:
            self._name(deployment, region, domain, front)
        CfnOutput(self, "ApiId", value=front.api.rest_api_id)
        CfnOutput(self, "ApiUrl", value=f"https://{domain}/" if domain else front.api.url)
        CfnOutput(self, "FunctionName", value=edge.function.function_name)
        CfnOutput(self, "FunctionAlias", value=edge.alias.function_arn)

    def _name(self, deployment: Deployment, region: str, domain: str, front: StreamingApi) -> None:
        zone = import_zone(self, deployment)
        names = EdgeDomain(self, "Domain", domain=domain, region=region, zone=zone, api=front.api)
        EdgeRecords(self, "Records", deployment=deployment, region=region, zone=zone, domain=names)
