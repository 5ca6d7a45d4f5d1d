"""The keys that edges show to backends. They are made here and never stand in a file."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from aws_cdk import ArnFormat, RemovalPolicy, Stack
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from infra.acknowledge import acknowledge
from infra.constructs.tables import KEPT


class BackendSecrets(Construct):
    """One secret per name, replicated to the other regions so that every edge reads its own copy.

    Each starts with a random value: right for those of `own`, to be replaced by the operator for the others, which
    therefore stay when their backend, or the whole stack, goes.
    """

    def __init__(
        self, scope: Construct, id: str, *, names: Sequence[str], own: Collection[str], replicas: Sequence[str]
    ) -> None:
        super().__init__(scope, id)
        for name in names:
            secret = secretsmanager.Secret(
                self,
                name,
                secret_name=name,
                description="Key of an Isochrone backend",
                replica_regions=[secretsmanager.ReplicaRegion(region=region) for region in replicas],
                generate_secret_string=secretsmanager.SecretStringGenerator(
                    exclude_punctuation=True, password_length=48
                ),
                removal_policy=RemovalPolicy.DESTROY if name in own else KEPT,
            )
            acknowledge(secret, SMG4="the other side of the key (an API, running GPU nodes) cannot rotate it in step")


def secret_arn(scope: Construct, name: str) -> str:
    """ARN pattern of the secret `name` in the region of `scope`: Secrets Manager adds six characters to a name."""
    return Stack.of(scope).format_arn(
        service="secretsmanager",
        resource="secret",
        resource_name=f"{name}-??????",
        arn_format=ArnFormat.COLON_RESOURCE_NAME,
    )
