"""The rotator function, and when Secrets Manager calls it: the keys between edges and pools are made anew by it."""

from __future__ import annotations

from aws_cdk import Aws, Duration
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from infra.acknowledge import acknowledge
from infra.constructs.encryption import secret_key_use
from infra.constructs.function_parts import LayerVersions, handler_code, own_log_group, own_role
from infra.constructs.secrets import BackendSecrets
from infra.settings import Deployment

ACTIONS = ("DescribeSecret", "GetSecretValue", "PutSecretValue", "UpdateSecretVersionStage")
MEMORY_MB = 256
# It waits three minutes for nodes to learn of the new key.
TIMEOUT = Duration.minutes(5)


class RotatorFunction(Construct):
    """Function, its own role, its log group, and the schedule of each secret of `deployment.rotated`."""

    def __init__(
        self, scope: Construct, id: str, *, deployment: Deployment, layers: LayerVersions, secrets: BackendSecrets
    ) -> None:
        super().__init__(scope, id)
        name = f"{deployment.name}-rotator"
        names = dict.fromkeys(pool.api_key_secret for pool in deployment.rotated if pool.api_key_secret)
        rotated = [secrets.by_name[name] for name in names]
        log_group = own_log_group(self, name)
        role = own_role(self, log_group=log_group, deployment=deployment, table_actions={})
        role.add_to_policy(
            iam.PolicyStatement(
                actions=[f"secretsmanager:{action}" for action in ACTIONS],
                resources=[secret.secret_arn for secret in rotated],
            )
        )
        for statement in secret_key_use(self, deployment, writes=True):
            role.add_to_policy(statement)
        self.function = lambda_.Function(
            self,
            "Function",
            function_name=name,
            description="Isochrone: makes the keys between edges and pools anew",
            runtime=lambda_.Runtime.PYTHON_3_13,
            architecture=lambda_.Architecture.ARM_64,
            handler="handler.handler",
            code=handler_code("rotator", deployment),
            layers=[layers.by_name["core"], layers.by_name["dependencies"]],
            memory_size=MEMORY_MB,
            timeout=TIMEOUT,
            role=role,
            log_group=log_group,
            environment={"ISOCHRONE_CONFIG": "/var/task/isochrone.toml"},
        )
        acknowledge(self.function, L1="the wheels of its layer are built for this version")
        self._schedule(rotated, days=deployment.settings.pool.rotate_days)

    def _schedule(self, rotated: list[secretsmanager.Secret], *, days: int) -> None:
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
