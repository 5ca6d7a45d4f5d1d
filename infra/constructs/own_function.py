"""A Lambda function of ours: one handler of functions/, with a role and a log group that nobody else has."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from aws_cdk import Duration, RemovalPolicy
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra.acknowledge import acknowledge
from infra.constructs.function_parts import PROGRAM, LayerVersions, handler_code
from infra.settings import Deployment

LOG_RETENTION = logs.RetentionDays.ONE_MONTH


class OwnFunction(Construct):
    """functions/<handler> under the service's name. It may write its log, and what `may` says.

    `has`: the layers it is made of. `snap_start`: published versions begin with a snapshot.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        handler: str,
        description: str,
        *,
        deployment: Deployment,
        layers: LayerVersions,
        has: Collection[str] = PROGRAM,
        may: Iterable[iam.PolicyStatement],
        memory_mb: int,
        timeout: Duration,
        environment: Mapping[str, str] | None = None,
        snap_start: bool = False,
    ) -> None:
        super().__init__(scope, id)
        self.name = f"{deployment.name}-{handler}"
        log_group = self._log_group()
        self.function = lambda_.Function(
            self,
            "Function",
            function_name=self.name,
            description=f"Isochrone: {description}",
            runtime=lambda_.Runtime.PYTHON_3_13,
            architecture=lambda_.Architecture.ARM_64,
            handler="handler.handler",
            code=handler_code(handler, deployment),
            layers=[version for name, version in layers.by_name.items() if name in has],
            memory_size=memory_mb,
            timeout=timeout,
            role=self._role(log_group, may),
            log_group=log_group,
            snap_start=lambda_.SnapStartConf.ON_PUBLISHED_VERSIONS if snap_start else None,
            environment={"ISOCHRONE_CONFIG": "/var/task/isochrone.toml", **(environment or {})},
        )
        acknowledge(
            self.function, L1="layers hold wheels, and a streaming loop, that were built and tested for this one"
        )

    def _log_group(self) -> logs.LogGroup:
        return logs.LogGroup(
            self,
            "Logs",
            log_group_name=f"/aws/lambda/{self.name}",
            retention=LOG_RETENTION,
            removal_policy=RemovalPolicy.DESTROY,
        )

    def _role(self, log_group: logs.LogGroup, may: Iterable[iam.PolicyStatement]) -> iam.Role:
        role = iam.Role(self, "Role", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
        log_group.grant_write(role)
        for statement in may:
            role.add_to_policy(statement)
        return role

    def run_every(self, period: Duration, description: str) -> None:
        """Call it so often. A run that failed is not repeated: the next one is near."""
        self.function.configure_async_invoke(retry_attempts=0, max_event_age=period)
        events.Rule(
            self,
            "Schedule",
            rule_name=f"{self.name}-schedule",
            description=f"Isochrone: {description}",
            schedule=events.Schedule.rate(period),
            targets=[targets.LambdaFunction(self.function)],
        )
