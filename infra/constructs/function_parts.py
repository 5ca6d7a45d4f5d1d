"""What every function here is made of: layers, code with its configuration, a log group, a role of its own."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

import jsii
from aws_cdk import AssetHashType, BundlingOptions, DockerImage, ILocalBundling, RemovalPolicy, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra.constructs.encryption import table_key_use
from infra.layers import LEFTOVERS, ROOT, Layers
from infra.settings import Deployment
from isochrone.settings import table_name

LOG_RETENTION = logs.RetentionDays.ONE_MONTH

TableActions = Mapping[str, tuple[str, ...]]
"""What a function does with each table that its code opens, and nothing else."""


class LayerVersions(Construct):
    """The layers of one stack, which its functions share, by name; `only` those of these names."""

    def __init__(self, scope: Construct, id: str, *, layers: Layers, only: Collection[str] = Layers._fields) -> None:
        super().__init__(scope, id)
        self.by_name = {
            name: lambda_.LayerVersion(
                self,
                name.capitalize(),
                code=lambda_.Code.from_asset(str(folder), exclude=list(LEFTOVERS)),
                compatible_runtimes=[lambda_.Runtime.PYTHON_3_13],
                compatible_architectures=[lambda_.Architecture.ARM_64],
                description=f"Isochrone: {name}",
            )
            for name, folder in layers._asdict().items()
            if folder is not None and name in only
        }


def own_log_group(scope: Construct, function_name: str) -> logs.LogGroup:
    """Where the function writes, for a month."""
    return logs.LogGroup(
        scope,
        "Logs",
        log_group_name=f"/aws/lambda/{function_name}",
        retention=LOG_RETENTION,
        removal_policy=RemovalPolicy.DESTROY,
    )


def own_role(
    scope: Construct, *, log_group: logs.LogGroup, deployment: Deployment, table_actions: TableActions
) -> iam.Role:
    """A role that may write to the log group, and use the tables as declared and the key that encrypts them."""
    role = iam.Role(scope, "Role", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
    log_group.grant_write(role)
    for table, actions in table_actions.items():
        role.add_to_policy(
            iam.PolicyStatement(
                actions=[f"dynamodb:{action}" for action in actions],
                resources=[table_arn(scope, table_name(deployment.settings, table))],
            )
        )
    if table_actions:
        for statement in table_key_use(scope, deployment, Stack.of(scope).region):
            role.add_to_policy(statement)
    return role


def handler_code(name: str, deployment: Deployment) -> lambda_.Code:
    """functions/<name> and the configuration, in one asset whose hash is that of its content."""
    folder = ROOT / "functions" / name
    return lambda_.Code.from_asset(
        str(folder),
        asset_hash_type=AssetHashType.OUTPUT,
        bundling=BundlingOptions(
            image=DockerImage.from_registry("scratch"), local=_HandlerAndConfiguration(folder, deployment)
        ),
    )


@jsii.implements(ILocalBundling)
class _HandlerAndConfiguration:
    """Puts both into the asset without a container, and the curated answers that the configuration names."""

    def __init__(self, folder: Path, deployment: Deployment) -> None:
        self._folder = folder
        self._config = deployment.config
        self._standards = deployment.standards

    def try_bundle(self, output_dir: str, *_args: object, **_options: object) -> bool:
        output = Path(output_dir)
        for source in sorted(self._folder.glob("*.py")):
            shutil.copyfile(source, output / source.name)
        shutil.copyfile(self._config, output / "isochrone.toml")
        if self._standards:
            (output / self._standards).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self._config.parent / self._standards, output / self._standards)
        return True


def table_arn(scope: Construct, name: str, *, region: str | None = None) -> str:
    """The ARN of a table of this account, in the stack's own region if no other is given."""
    return Stack.of(scope).format_arn(service="dynamodb", resource="table", resource_name=name, region=region)
