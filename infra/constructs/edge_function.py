"""The edge function: one Lambda that answers every request of its region and streams from Python."""

from __future__ import annotations

from collections.abc import Iterator

from aws_cdk import Acknowledgment, Duration, Stack, Validations
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra.acknowledge import acknowledge
from infra.constructs.audit import audit_writing
from infra.constructs.encryption import table_key_use
from infra.constructs.function_parts import (
    LayerVersions,
    TableActions,
    handler_code,
    own_log_group,
    own_role,
    table_arn,
)
from infra.constructs.secrets import parameter_reading, secret_reading
from infra.settings import Deployment
from isochrone.settings import table_name
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


class EdgeFunction(Construct):
    """Function, its own role, its log group and the live alias that carries the snapshot."""

    def __init__(self, scope: Construct, id: str, *, deployment: Deployment, layers: LayerVersions) -> None:
        super().__init__(scope, id)
        self.name = f"{deployment.name}-edge"
        self.log_group = own_log_group(self, self.name)
        self.function = lambda_.Function(
            self,
            "Function",
            function_name=self.name,
            description="Isochrone: takes a request, finds the soonest answer, streams it",
            runtime=lambda_.Runtime.PYTHON_3_13,
            architecture=lambda_.Architecture.ARM_64,
            handler="handler.handler",
            code=handler_code("edge", deployment),
            layers=list(layers.by_name.values()),
            memory_size=MEMORY_MB,
            timeout=TIMEOUT,
            role=edge_role(self, log_group=self.log_group, deployment=deployment),
            log_group=self.log_group,
            snap_start=lambda_.SnapStartConf.ON_PUBLISHED_VERSIONS,
            environment=_environment(layers),
        )
        acknowledge(self.function, L1="the streaming loop replaces the runtime's own and is tested on this version")
        Validations.of(self.function).acknowledge(
            Acknowledgment(
                id="Annotation::@aws-cdk/aws-lambda:snapStartRequirePublish",
                reason="the API calls the live alias, which is a published version",
            )
        )
        self.alias = lambda_.Alias(self, "Live", alias_name="live", version=self.function.current_version)


def edge_role(scope: Construct, *, log_group: logs.LogGroup, deployment: Deployment) -> iam.Role:
    """What an edge may and nothing else: use its tables, what other regions count for all, its backends' keys."""
    role = own_role(scope, log_group=log_group, deployment=deployment, table_actions=TABLE_ACTIONS)
    role.add_to_policy(_lay_down(scope, deployment))
    for statement in audit_writing(scope, deployment):
        role.add_to_policy(statement)
    if elsewhere := [home for home in deployment.fleet_homes if home != Stack.of(scope).region]:
        fleet = table_name(deployment.settings, "fleet")
        role.add_to_policy(
            iam.PolicyStatement(
                actions=[f"dynamodb:{action}" for action in TABLE_ACTIONS["fleet"]],
                resources=[table_arn(scope, fleet, region=region) for region in elsewhere],
            )
        )
        for statement in table_key_use(scope, deployment, *elsewhere):
            role.add_to_policy(statement)
    if deployment.semantic:
        for statement in _similar(scope, deployment):
            role.add_to_policy(statement)
    if deployment.secrets:
        for statement in secret_reading(scope, deployment, deployment.secrets):
            role.add_to_policy(statement)
    if deployment.parameters:
        for statement in parameter_reading(scope, deployment, deployment.parameters):
            role.add_to_policy(statement)
    return role


def _lay_down(scope: Construct, deployment: Deployment) -> iam.PolicyStatement:
    """To write what tenants may say, and nothing else, into the directory."""
    return iam.PolicyStatement(
        actions=["dynamodb:DeleteItem", "dynamodb:PutItem"],
        resources=[table_arn(scope, table_name(deployment.settings, DIRECTORY.name))],
        conditions={"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": list(TENANTS_PARTITIONS)}},
    )


def _similar(scope: Construct, deployment: Deployment) -> Iterator[iam.PolicyStatement]:
    """To search the index of questions, and to write down what was learned about one."""
    table = table_arn(scope, table_name(deployment.settings, ANSWERS.name))
    assert ANSWERS.vectors is not None
    yield iam.PolicyStatement(actions=["dynamodb:SearchVectors"], resources=[f"{table}/index/{ANSWERS.vectors.name}"])
    yield iam.PolicyStatement(actions=["dynamodb:UpdateItem"], resources=[table])


def _environment(layers: LayerVersions) -> dict[str, str]:
    environment = {
        "ISOCHRONE_CONFIG": "/var/task/isochrone.toml",
        "AWS_LAMBDA_EXEC_WRAPPER": "/opt/isochrone-streaming",
    }
    if "geoip" in layers.by_name:
        environment["ISOCHRONE_GEO_DATABASE"] = "/opt/geoip"
    return environment
