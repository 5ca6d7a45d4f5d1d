"""The operator's own key in KMS, where `state.kms_key` names one: what it encrypts, and who may use it.

A multi-Region key (its id begins with mrk-) has the same id in every region, so one ARN names it everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from aws_cdk import Stack
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from constructs import Construct

from infra.settings import Deployment

# A table asks KMS in the name of who reads or writes. These are what aws-cdk grants such a principal, without its
# wildcards; making and replicating the table needs kms:CreateGrant too, of who deploys.
_TABLE_USE = (
    "kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey", "kms:GenerateDataKeyWithoutPlaintext",
    "kms:ReEncryptFrom", "kms:ReEncryptTo",
)  # fmt: skip


def key_arn(deployment: Deployment, region: str) -> str | None:
    """The key's ARN in that region; None where the services' own keys encrypt."""
    if deployment.kms_key is None:
        return None
    arn, partition, service, _, account, resource = deployment.kms_key.split(":", 5)
    return ":".join((arn, partition, service, region, account, resource))


def key_in(scope: Construct, deployment: Deployment, region: str) -> kms.IKey | None:
    """The key of that region, as a construct of `scope`."""
    arn = key_arn(deployment, region)
    return kms.Key.from_key_arn(scope, f"Key-{region}", arn) if arn else None


def table_encryption(
    scope: Construct, deployment: Deployment, replicas: Sequence[str]
) -> dynamodb.TableEncryptionV2 | None:
    """For the tables of one stack, with replicas in these regions."""
    key = key_in(scope, deployment, Stack.of(scope).region)
    if key is None:
        return None
    elsewhere = {region: arn for region in replicas if (arn := key_arn(deployment, region))}
    return dynamodb.TableEncryptionV2.customer_managed_key(key, elsewhere)


def table_key_use(scope: Construct, deployment: Deployment, *regions: str) -> Iterator[iam.PolicyStatement]:
    """What a role of `scope` needs beside its rights on tables of these regions; nothing without a key."""
    for region in regions:
        yield from _use(scope, deployment, region, "dynamodb", _TABLE_USE)


def secret_key_use(
    scope: Construct, deployment: Deployment, *, region: str | None = None, writes: bool = False
) -> Iterator[iam.PolicyStatement]:
    """What a role of `scope` needs to read (and write) secrets of that region, else its own; nothing without a key."""
    actions = ("kms:Decrypt", "kms:GenerateDataKey") if writes else ("kms:Decrypt",)
    yield from _use(scope, deployment, region or Stack.of(scope).region, "secretsmanager", actions)


def parameter_key_use(scope: Construct, deployment: Deployment) -> Iterator[iam.PolicyStatement]:
    """What a role of `scope` needs to read parameters of its region; nothing without a key: SSM's own lets it."""
    yield from _use(scope, deployment, Stack.of(scope).region, "ssm", ("kms:Decrypt",))


def _use(
    scope: Construct, deployment: Deployment, region: str, service: str, actions: Sequence[str]
) -> Iterator[iam.PolicyStatement]:
    if arn := key_arn(deployment, region):
        via = f"{service}.{region}.{Stack.of(scope).url_suffix}"
        conditions = {"StringEquals": {"kms:ViaService": via}}
        yield iam.PolicyStatement(actions=list(actions), resources=[arn], conditions=conditions)
