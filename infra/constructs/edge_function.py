"""The edge function: one Lambda that answers every request of its region and streams from Python."""

from __future__ import annotations

from collections.abc import Iterator

from aws_cdk import Acknowledgment, Duration, Stack, Validations
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from infra.constructs.audit import audit_writing
from infra.constructs.function_parts import LayerVersions
from infra.constructs.own_function import OwnFunction
from infra.constructs.rights import TableActions, partitions_use, table_arn, tables_use
from infra.constructs.secrets import parameter_reading, secret_reading
from infra.settings import Deployment
from isochrone.stores.tables import ANSWERS, DIRECTORY

TABLE_ACTIONS: TableActions = {
    "answers": ("DeleteItem", "GetItem", "PutItem"),
    "directory": ("Query",),
    "fleet": ("GetItem", "UpdateItem"),
    "ledger": ("PutItem", "Query", "UpdateItem"),
}
# What tenants lay down in the directory by themselves; the rest of it is the operator's.
TENANTS_PARTITIONS = ("revoked",)
MEMORY_MB = 512
TIMEOUT = Duration.minutes(15)


class EdgeFunction(OwnFunction):
    """The function, and the live alias that carries the snapshot."""

    def __init__(self, scope: Construct, id: str, *, deployment: Deployment, layers: LayerVersions) -> None:
        super().__init__(
            scope,
            id,
            "edge",
            "takes a request, finds the soonest answer, streams it",
            deployment=deployment,
            layers=layers,
            has=layers.by_name,
            may=edge_rights(scope, deployment),
            memory_mb=MEMORY_MB,
            timeout=TIMEOUT,
            environment=_environment(layers),
            snap_start=True,
        )
        Validations.of(self.function).acknowledge(
            Acknowledgment(
                id="Annotation::@aws-cdk/aws-lambda:snapStartRequirePublish",
                reason="the API calls the live alias, which is a published version",
            )
        )
        self.alias = lambda_.Alias(self, "Live", alias_name="live", version=self.function.current_version)


def edge_rights(scope: Construct, deployment: Deployment) -> Iterator[iam.PolicyStatement]:
    """What an edge may and nothing else: use its tables, what other regions count for all, its backends' keys."""
    yield from tables_use(scope, deployment, TABLE_ACTIONS)
    yield from partitions_use(scope, deployment, DIRECTORY.name, TENANTS_PARTITIONS, ("DeleteItem", "PutItem"))
    yield from audit_writing(scope, deployment)
    for home in deployment.fleet_homes:
        if home != Stack.of(scope).region:
            yield from tables_use(scope, deployment, {"fleet": TABLE_ACTIONS["fleet"]}, region=home)
    if deployment.semantic:
        yield from _similar(scope, deployment)
    if deployment.secrets:
        yield from secret_reading(scope, deployment, deployment.secrets)
    if deployment.parameters:
        yield from parameter_reading(scope, deployment, deployment.parameters)


def _similar(scope: Construct, deployment: Deployment) -> Iterator[iam.PolicyStatement]:
    """To search the index of questions, and to write down what was learned about one."""
    table = table_arn(scope, deployment, ANSWERS.name)
    assert ANSWERS.vectors is not None
    yield iam.PolicyStatement(actions=["dynamodb:SearchVectors"], resources=[f"{table}/index/{ANSWERS.vectors.name}"])
    yield iam.PolicyStatement(actions=["dynamodb:UpdateItem"], resources=[table])


def _environment(layers: LayerVersions) -> dict[str, str]:
    environment = {"AWS_LAMBDA_EXEC_WRAPPER": "/opt/isochrone-streaming"}
    if "geoip" in layers.by_name:
        environment["ISOCHRONE_GEO_DATABASE"] = "/opt/geoip"
    return environment
