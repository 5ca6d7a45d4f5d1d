"""The GPU pools of one region."""

from __future__ import annotations

from aws_cdk import Stack
from constructs import Construct

from infra.constructs.domain import import_zone
from infra.constructs.pool import Pool
from infra.constructs.pool_network import PoolNetwork
from infra.settings import Deployment


class PoolStack(Stack):
    """One network, and one pool for each backend of kind "pool" in `region`."""

    def __init__(self, scope: Construct, id: str, *, deployment: Deployment, region: str) -> None:
        super().__init__(
            scope, id, stack_name=f"{deployment.name}-pool-{region}", description=f"Isochrone: GPU pools in {region}"
        )
        zone = import_zone(self, deployment) if deployment.settings.service.hosted_zone else None
        network = PoolNetwork(self, "Network", region=region)
        for backend in deployment.pools(region):
            Pool(self, backend.name, deployment=deployment, backend=backend, vpc=network.vpc, zone=zone)
