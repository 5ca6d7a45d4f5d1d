"""The prober function: each minute one look at every backend, which the edges of its region read from the table."""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from infra.acknowledge import acknowledge
from infra.constructs.function_parts import LayerVersions, TableActions, handler_code, own_log_group, own_role
from infra.settings import Deployment

TABLE_ACTIONS: TableActions = {"fleet": ("GetItem", "UpdateItem")}
EVERY = Duration.minutes(1)
# Enough CPU to start within a second or two; a round of probes is waiting, not work.
MEMORY_MB = 256
TIMEOUT = Duration.seconds(30)


class ProberFunction(Construct):
    """Function, its own role, its log group and its schedule. A round that failed is not repeated: the next is near."""

    def __init__(self, scope: Construct, id: str, *, deployment: Deployment, layers: LayerVersions) -> None:
        super().__init__(scope, id)
        name = f"{deployment.name}-prober"
        log_group = own_log_group(self, name)
        self.function = lambda_.Function(
            self,
            "Function",
            function_name=name,
            description="Isochrone: looks at every backend and tells the edges of its region",
            runtime=lambda_.Runtime.PYTHON_3_13,
            architecture=lambda_.Architecture.ARM_64,
            handler="handler.handler",
            code=handler_code("prober", deployment),
            layers=[layers.by_name["core"], layers.by_name["dependencies"]],
            memory_size=MEMORY_MB,
            timeout=TIMEOUT,
            retry_attempts=0,
            max_event_age=EVERY,
            role=own_role(self, log_group=log_group, deployment=deployment, table_actions=TABLE_ACTIONS),
            log_group=log_group,
            environment={"ISOCHRONE_CONFIG": "/var/task/isochrone.toml"},
        )
        acknowledge(self.function, L1="the wheels of its layer are built for this version")
        events.Rule(
            self,
            "EachMinute",
            rule_name=f"{name}-each-minute",
            description="Isochrone: one round of probes",
            schedule=events.Schedule.rate(EVERY),
            targets=[targets.LambdaFunction(self.function)],
        )
