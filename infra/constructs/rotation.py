"""The rotator function, and when Secrets Manager calls it: the keys between edges and pools are made anew by it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from aws_cdk import Aws, Duration
from aws_cdk import aws_iam as iam
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from infra.constructs.encryption import secret_key_use
from infra.constructs.function_parts import LayerVersions
from infra.constructs.own_function import OwnFunction
from infra.constructs.secrets import BackendSecrets
from infra.settings import Deployment

ACTIONS = ("DescribeSecret", "GetSecretValue", "PutSecretValue", "UpdateSecretVersionStage")
MEMORY_MB = 256
# It waits three minutes for nodes to learn of the new key.
TIMEOUT = Duration.minutes(5)


class RotatorFunction(OwnFunction):
    """The function, and the schedule of each secret of `deployment.rotated`."""

    def __init__(
        self, scope: Construct, id: str, *, deployment: Deployment, layers: LayerVersions, secrets: BackendSecrets
    ) -> None:
        names = dict.fromkeys(pool.api_key_secret for pool in deployment.rotated if pool.api_key_secret)
        rotated = [secrets.by_name[name] for name in names]
        super().__init__(
            scope,
            id,
            "rotator",
            "makes the keys between edges and pools anew",
            deployment=deployment,
            layers=layers,
            may=_rotating(scope, deployment, rotated),
            memory_mb=MEMORY_MB,
            timeout=TIMEOUT,
        )
        self._schedule(rotated, days=deployment.settings.pool.rotate_days)

    def _schedule(self, rotated: Sequence[secretsmanager.Secret], *, days: int) -> None:
        """By CloudFormation's own resources: the CDK's would let the function do `GetRandomPassword` on `*`."""
        self.function.add_permission(
            "SecretsManager",
            principal=iam.ServicePrincipal("secretsmanager.amazonaws.com"),
            source_account=Aws.ACCOUNT_ID,
        )
        for secret in rotated:
            schedule = secretsmanager.CfnRotationSchedule(
                self,
                secret.node.id,
                secret_id=secret.secret_arn,
                rotation_lambda_arn=self.function.function_arn,
                rotation_rules=secretsmanager.CfnRotationSchedule.RotationRulesProperty(automatically_after_days=days),
            )
            schedule.node.add_dependency(self.function)


def _rotating(
    scope: Construct, deployment: Deployment, rotated: Sequence[secretsmanager.Secret]
) -> Iterator[iam.PolicyStatement]:
    """To make new versions of these secrets."""
    yield iam.PolicyStatement(
        actions=[f"secretsmanager:{action}" for action in ACTIONS],
        resources=[secret.secret_arn for secret in rotated],
    )
    yield from secret_key_use(scope, deployment, writes=True)
