"""What functions may do with tables, as statements for their roles. The right to use the operator's key in KMS comes
along: a table asks KMS in the name of who reads or writes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from aws_cdk import Stack
from aws_cdk import aws_iam as iam
from constructs import Construct

from infra.constructs.encryption import table_key_use
from infra.settings import Deployment
from isochrone.settings import table_name

TableActions = Mapping[str, tuple[str, ...]]
"""What a function does with each table that its code opens, and nothing else."""


def tables_use(
    scope: Construct, deployment: Deployment, table_actions: TableActions, *, region: str | None = None
) -> Iterator[iam.PolicyStatement]:
    """To use these tables as declared, in the region of `scope` if no other is given."""
    for table, actions in table_actions.items():
        yield iam.PolicyStatement(
            actions=[f"dynamodb:{action}" for action in actions],
            resources=[table_arn(scope, deployment, table, region=region)],
        )
    if table_actions:
        yield from table_key_use(scope, deployment, region or Stack.of(scope).region)


def partitions_use(
    scope: Construct, deployment: Deployment, table: str, partitions: Sequence[str], actions: Sequence[str]
) -> Iterator[iam.PolicyStatement]:
    """To do this in these partitions of a table, and nowhere else in it."""
    yield iam.PolicyStatement(
        actions=[f"dynamodb:{action}" for action in actions],
        resources=[table_arn(scope, deployment, table)],
        conditions={"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": list(partitions)}},
    )
    yield from table_key_use(scope, deployment, Stack.of(scope).region)


def table_arn(scope: Construct, deployment: Deployment, table: str, *, region: str | None = None) -> str:
    """The ARN of a table of `deployment`, in the region of `scope` if no other is given."""
    name = table_name(deployment.settings, table)
    return Stack.of(scope).format_arn(service="dynamodb", resource="table", resource_name=name, region=region)
