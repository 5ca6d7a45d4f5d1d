"""What exists once: the directory table with its replicas, the backends' keys, and what makes those of pools anew."""

from __future__ import annotations

from aws_cdk import Annotations, CfnOutput, Stack
from constructs import Construct

from infra.constructs.alarms import RotationAlarm
from infra.constructs.function_parts import LayerVersions
from infra.constructs.rotation import RotatorFunction
from infra.constructs.secrets import BackendSecrets
from infra.constructs.tables import Tables
from infra.layers import Layers
from infra.settings import Deployment, doubts
from isochrone.settings import table_name
from isochrone.stores.tables import DIRECTORY, TABLES


class GlobalStack(Stack):
    """Lives in the home region; everything in it is replicated to the others."""

    def __init__(self, scope: Construct, id: str, *, deployment: Deployment, layers: Layers) -> None:
        super().__init__(scope, id, stack_name=f"{deployment.name}-global", description="Isochrone: shared")
        for name, text in doubts(deployment):  # once, and not in the stack of every region again
            Annotations.of(self).add_warning_v2(f"isochrone:{name}", text)
        others = [region for region in deployment.regions if region != deployment.home]
        Tables(
            self,
            "Tables",
            tables=[table for table in TABLES if table.scope == "global"],
            deployment=deployment,
            replicas=others,
        )
        if deployment.secrets:
            keys = BackendSecrets(self, "Keys", deployment=deployment, own=deployment.own_secrets, replicas=others)
            if deployment.rotated:
                self._rotate(deployment, layers, keys)
        CfnOutput(self, "DirectoryTable", value=table_name(deployment.settings, DIRECTORY.name))

    def _rotate(self, deployment: Deployment, layers: Layers, keys: BackendSecrets) -> None:
        versions = LayerVersions(self, "Layers", layers=layers, only=("core", "dependencies"))
        rotator = RotatorFunction(self, "Rotator", deployment=deployment, layers=versions, secrets=keys)
        RotationAlarm(self, "Alarms", deployment=deployment, function=rotator.function)
