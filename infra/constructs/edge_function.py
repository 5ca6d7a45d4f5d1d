"""The edge function: one Lambda that answers every request of its region and streams from Python."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import jsii
from aws_cdk import (
    Acknowledgment,
    AssetHashType,
    BundlingOptions,
    DockerImage,
    Duration,
    ILocalBundling,
    RemovalPolicy,
    Stack,
    Validations,
)
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra.acknowledge import acknowledge
from infra.constructs.secrets import secret_arn
from infra.layers import LEFTOVERS, ROOT, Layers
from infra.settings import Deployment
from isochrone.settings import table_name

# What the function does with each table that its code opens, and nothing else.
TABLE_ACTIONS: Mapping[str, tuple[str, ...]] = {
    "answers": ("GetItem", "PutItem", "DeleteItem"),
    "ledger": ("PutItem", "Query"),
}
MEMORY_MB = 512
TIMEOUT = Duration.minutes(15)
LOG_RETENTION = logs.RetentionDays.ONE_MONTH


class EdgeFunction(Construct):
    """Function, its own role, its log group and the live alias that carries the snapshot."""

    def __init__(self, scope: Construct, id: str, *, deployment: Deployment, layers: Layers) -> None:
        super().__init__(scope, id)
        self.name = f"{deployment.name}-edge"
        self.log_group = logs.LogGroup(
            self,
            "Logs",
            log_group_name=f"/aws/lambda/{self.name}",
            retention=LOG_RETENTION,
            removal_policy=RemovalPolicy.DESTROY,
        )
        self.function = lambda_.Function(
            self,
            "Function",
            function_name=self.name,
            description="Isochrone: takes a request, finds the soonest answer, streams it",
            runtime=lambda_.Runtime.PYTHON_3_13,
            architecture=lambda_.Architecture.ARM_64,
            handler="handler.handler",
            code=_code(deployment),
            layers=self._layers(layers),
            memory_size=MEMORY_MB,
            timeout=TIMEOUT,
            role=self._role(deployment),
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

    def _layers(self, layers: Layers) -> list[lambda_.ILayerVersion]:
        return [
            lambda_.LayerVersion(
                self,
                name.capitalize(),
                code=lambda_.Code.from_asset(str(folder), exclude=list(LEFTOVERS)),
                compatible_runtimes=[lambda_.Runtime.PYTHON_3_13],
                compatible_architectures=[lambda_.Architecture.ARM_64],
                description=f"Isochrone: {name}",
            )
            for name, folder in layers._asdict().items()
            if folder is not None
        ]

    def _role(self, deployment: Deployment) -> iam.Role:
        role = iam.Role(self, "Role", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
        self.log_group.grant_write(role)
        for table, actions in TABLE_ACTIONS.items():
            role.add_to_policy(
                iam.PolicyStatement(
                    actions=[f"dynamodb:{action}" for action in actions],
                    resources=[_table_arn(self, table_name(deployment.settings, table))],
                )
            )
        if deployment.secrets:
            role.add_to_policy(
                iam.PolicyStatement(
                    actions=["secretsmanager:GetSecretValue"],
                    resources=[secret_arn(self, name) for name in deployment.secrets],
                )
            )
        return role


def _environment(layers: Layers) -> dict[str, str]:
    environment = {
        "ISOCHRONE_CONFIG": "/var/task/isochrone.toml",
        "AWS_LAMBDA_EXEC_WRAPPER": "/opt/isochrone-streaming",
    }
    if layers.geoip is not None:
        environment["ISOCHRONE_GEO_DATABASE"] = "/opt/geoip"
    return environment


def _table_arn(scope: Construct, name: str) -> str:
    return Stack.of(scope).format_arn(service="dynamodb", resource="table", resource_name=name)


def _code(deployment: Deployment) -> lambda_.Code:
    """The handler and the configuration, in one asset whose hash is that of its content."""
    return lambda_.Code.from_asset(
        str(ROOT / "functions/edge"),
        asset_hash_type=AssetHashType.OUTPUT,
        bundling=BundlingOptions(
            image=DockerImage.from_registry("scratch"), local=_HandlerAndConfiguration(deployment.config)
        ),
    )


@jsii.implements(ILocalBundling)
class _HandlerAndConfiguration:
    """Puts both into the asset without a container."""

    def __init__(self, config: Path) -> None:
        self._config = config

    def try_bundle(self, output_dir: str, *_args: object, **_options: object) -> bool:
        output = Path(output_dir)
        for source in sorted((ROOT / "functions/edge").glob("*.py")):
            shutil.copyfile(source, output / source.name)
        shutil.copyfile(self._config, output / "isochrone.toml")
        return True
