"""The keys that edges show to backends. They are made here and never stand in a file."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from aws_cdk import ArnFormat, RemovalPolicy, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from infra.acknowledge import acknowledge
from infra.constructs.encryption import key_in, parameter_key_use, secret_key_use
from infra.constructs.tables import KEPT
from infra.settings import Deployment


class BackendSecrets(Construct):
    """One secret per name, replicated to the other regions so that every edge reads its own copy.

    Each starts with a random value: right for those of `own`, to be replaced by the operator for the others, which
    therefore stay when their backend, or the whole stack, goes.
    """

    def __init__(
        self, scope: Construct, id: str, *, deployment: Deployment, own: Collection[str], replicas: Sequence[str]
    ) -> None:
        super().__init__(scope, id)
        key = key_in(self, deployment, Stack.of(self).region)
        copies = [
            secretsmanager.ReplicaRegion(region=region, encryption_key=key_in(self, deployment, region))
            for region in replicas
        ]
        rotated = {pool.api_key_secret for pool in deployment.rotated}
        self.by_name: dict[str, secretsmanager.Secret] = {}
        for name in deployment.secrets:
            self.by_name[name] = secretsmanager.Secret(
                self,
                name,
                secret_name=name,
                description="Key of an Isochrone backend",
                encryption_key=key,
                replica_regions=copies,
                generate_secret_string=secretsmanager.SecretStringGenerator(
                    exclude_punctuation=True, password_length=48
                ),
                removal_policy=RemovalPolicy.DESTROY if name in own else KEPT,
            )
            if name not in rotated:
                acknowledge(self.by_name[name], SMG4="its other side is not ours and cannot be told of a new key")


def secret_reading(
    scope: Construct, deployment: Deployment, names: Sequence[str], *, region: str | None = None
) -> Iterator[iam.PolicyStatement]:
    """To read these secrets in the region of `scope` if no other is given."""
    arns = [secret_arn(scope, name, region=region) for name in names]
    yield iam.PolicyStatement(actions=["secretsmanager:GetSecretValue"], resources=arns)
    yield from secret_key_use(scope, deployment, region=region)


def parameter_reading(scope: Construct, deployment: Deployment, names: Sequence[str]) -> Iterator[iam.PolicyStatement]:
    """To read these parameters in the region of `scope`."""
    arns = [
        Stack.of(scope).format_arn(service="ssm", resource="parameter", resource_name=name.removeprefix("/"))
        for name in names
    ]
    yield iam.PolicyStatement(actions=["ssm:GetParameter"], resources=arns)
    yield from parameter_key_use(scope, deployment)


def secret_arn(scope: Construct, name: str, *, region: str | None = None) -> str:
    """ARN pattern of the secret `name`, in the region of `scope` if no other is given: Secrets Manager adds six
    characters to a name."""
    return Stack.of(scope).format_arn(
        service="secretsmanager",
        region=region,
        resource="secret",
        resource_name=f"{name}-??????",
        arn_format=ArnFormat.COLON_RESOURCE_NAME,
    )
