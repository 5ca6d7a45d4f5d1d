"""The warmer function: from time to time it makes answers before they are asked for."""

from __future__ import annotations

from math import ceil

from aws_cdk import Duration
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from infra.acknowledge import acknowledge
from infra.constructs.edge_function import edge_role
from infra.constructs.function_parts import LayerVersions, handler_code, own_log_group
from infra.settings import Deployment

# It waits for backends; a run that has more to do than fits goes on with the next one.
MEMORY_MB = 512
TIMEOUT = Duration.minutes(15)


class WarmerFunction(Construct):
    """Function, its own role, its log group and its schedule. It asks as an edge does, so it may what an edge may."""

    def __init__(self, scope: Construct, id: str, *, deployment: Deployment, layers: LayerVersions) -> None:
        super().__init__(scope, id)
        name = f"{deployment.name}-warmer"
        every = Duration.minutes(ceil(deployment.settings.warm.interval / 60))
        log_group = own_log_group(self, name)
        self.function = lambda_.Function(
            self,
            "Function",
            function_name=name,
            description="Isochrone: makes answers before they are asked for",
            runtime=lambda_.Runtime.PYTHON_3_13,
            architecture=lambda_.Architecture.ARM_64,
            handler="handler.handler",
            code=handler_code("warmer", deployment),
            layers=[version for layer, version in layers.by_name.items() if layer not in ("geoip", "streaming")],
            memory_size=MEMORY_MB,
            timeout=TIMEOUT,
            retry_attempts=0,
            max_event_age=every,
            role=edge_role(self, log_group=log_group, deployment=deployment),
            log_group=log_group,
            environment={"ISOCHRONE_CONFIG": "/var/task/isochrone.toml"},
        )
        acknowledge(self.function, L1="the wheels of its layer are built for this version")
        events.Rule(
            self,
            "Schedule",
            rule_name=f"{name}-schedule",
            description="Isochrone: one run of the warmer",
            schedule=events.Schedule.rate(every),
            targets=[targets.LambdaFunction(self.function)],
        )
