"""DynamoDB tables, from the one definition that the stores and the emulator use too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from aws_cdk import RemovalPolicy
from aws_cdk import aws_dynamodb as dynamodb
from constructs import Construct

from infra.acknowledge import acknowledge
from infra.constructs.encryption import table_encryption
from infra.settings import Deployment
from isochrone.settings import table_name
from isochrone.stores.tables import Table

# A first deployment that fails takes its tables with it: what stood in the way of the next try held nothing yet.
# Deletion protection would keep CloudFormation from just that.
KEPT = RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE


class Tables(Construct):
    """The tables of one scope. `replicas`: further regions, for tables of global scope."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        tables: Iterable[Table],
        deployment: Deployment,
        replicas: Sequence[str] = (),
    ) -> None:
        super().__init__(scope, id)
        self._settings = deployment.settings
        self._replicas = replicas
        self._encryption = table_encryption(self, deployment, replicas)
        self.by_name = {table.name: self._build(table) for table in tables}

    def _build(self, table: Table) -> dynamodb.TableV2:
        built = dynamodb.TableV2(
            self,
            table.name.capitalize(),
            table_name=table_name(self._settings, table.name),
            partition_key=_string(table.partition_key),
            sort_key=_string(table.sort_key) if table.sort_key else None,
            billing=dynamodb.Billing.on_demand(),
            time_to_live_attribute=table.ttl,
            removal_policy=KEPT if table.durable else RemovalPolicy.DESTROY,
            point_in_time_recovery_specification=dynamodb.PointInTimeRecoverySpecification(
                point_in_time_recovery_enabled=table.durable
            ),
            replicas=[dynamodb.ReplicaTableProps(region=region) for region in self._replicas],
            encryption=self._encryption,
        )
        if table.vectors:
            _index_vectors(built, table)
        if not table.durable:
            acknowledge(built, DDB3=f"{table.name} can be lost without harm: it is refilled by traffic")
        return built


def _index_vectors(built: dynamodb.TableV2, table: Table) -> None:
    """TableV2 has no vector indexes yet; the resource below it has."""
    assert table.vectors is not None
    resource = built.node.default_child
    assert isinstance(resource, dynamodb.CfnGlobalTable)
    resource.add_property_override("VectorIndexes", table.vector_indexes)
    keys = [key for key in (table.partition_key, table.sort_key) if key]
    partition = {"AttributeName": table.vectors.partition, "AttributeType": "S"}
    resource.add_property_override(f"AttributeDefinitions.{len(keys)}", partition)


def _string(name: str) -> dynamodb.Attribute:
    return dynamodb.Attribute(name=name, type=dynamodb.AttributeType.STRING)
