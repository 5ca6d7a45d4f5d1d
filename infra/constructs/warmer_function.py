"""The warmer function: from time to time it makes answers before they are asked for."""

from __future__ import annotations

from math import ceil

from aws_cdk import Duration
from constructs import Construct

from infra.constructs.edge_function import edge_rights
from infra.constructs.function_parts import PROGRAM, LayerVersions
from infra.constructs.own_function import OwnFunction
from infra.settings import Deployment

# It waits for backends; a run that has more to do than fits goes on with the next one.
MEMORY_MB = 512
TIMEOUT = Duration.minutes(15)


class WarmerFunction(OwnFunction):
    """The function and its schedule. It asks as an edge does, so it may what an edge may."""

    def __init__(self, scope: Construct, id: str, *, deployment: Deployment, layers: LayerVersions) -> None:
        super().__init__(
            scope,
            id,
            "warmer",
            "makes answers before they are asked for",
            deployment=deployment,
            layers=layers,
            has=(*PROGRAM, "semantic"),
            may=edge_rights(scope, deployment),
            memory_mb=MEMORY_MB,
            timeout=TIMEOUT,
        )
        self.run_every(Duration.minutes(ceil(deployment.settings.warm.interval / 60)), "one run of the warmer")
