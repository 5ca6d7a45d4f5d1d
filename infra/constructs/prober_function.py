"""The prober function: each minute one look at every backend, which the edges of its region read from the table."""

from __future__ import annotations

from aws_cdk import Duration
from constructs import Construct

from infra.constructs.function_parts import LayerVersions
from infra.constructs.own_function import OwnFunction
from infra.constructs.rights import TableActions, tables_use
from infra.settings import Deployment

TABLE_ACTIONS: TableActions = {"fleet": ("GetItem", "UpdateItem")}
EVERY = Duration.minutes(1)
# Enough CPU to start within a second or two; a round of probes is waiting, not work.
MEMORY_MB = 256
TIMEOUT = Duration.seconds(30)


class ProberFunction(OwnFunction):
    """The function and its schedule."""

    def __init__(self, scope: Construct, id: str, *, deployment: Deployment, layers: LayerVersions) -> None:
        super().__init__(
            scope,
            id,
            "prober",
            "looks at every backend and tells the edges of its region",
            deployment=deployment,
            layers=layers,
            may=tables_use(scope, deployment, TABLE_ACTIONS),
            memory_mb=MEMORY_MB,
            timeout=TIMEOUT,
        )
        self.run_every(EVERY, "one round of probes")
