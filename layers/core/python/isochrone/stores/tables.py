"""The tables of design section 4, once: the CDK app and `isochrone tables create` both build them from here.

Every table is on-demand, encrypted, with point-in-time recovery where `durable`. Keys are strings; `expires` is the
TTL attribute (epoch seconds) and is checked on every read, because DynamoDB deletes late.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from isochrone.stores.entries import DIMENSIONS


class VectorIndex(NamedTuple):
    """Finds the items whose `vector` is nearest by cosine, among those with the same `partition`. Items without either
    are not in it and cost it nothing. `include`: what a search can read of an item, besides its key."""

    name: str
    partition: str
    vector: str
    dimensions: int
    include: tuple[str, ...]


class Table(NamedTuple):
    """One table. `scope`: "global" is replicated to every region, "regional" exists in each region by itself."""

    name: str
    scope: Literal["global", "regional"]
    partition_key: str
    sort_key: str | None = None
    ttl: str | None = "expires"
    durable: bool = False
    vectors: VectorIndex | None = None

    @property
    def vector_indexes(self) -> list[dict[str, Any]]:
        """The indexes as CreateTable and CloudFormation both word them."""
        return [_worded(self.vectors)] if self.vectors else []


def _worded(index: VectorIndex) -> dict[str, Any]:
    return {
        "IndexName": index.name,
        "VectorAttribute": {"AttributeName": index.vector},
        "SearchSchema": [{"AttributeName": index.partition, "SearchSchemaElementType": "HASH"}],
        "Projection": {"ProjectionType": "INCLUDE", "NonKeyAttributes": list(index.include)},
        "Dimensions": index.dimensions,
        "DistanceFunction": "COSINE",
    }


SIMILAR = VectorIndex(
    "similar", "scope", "vector", DIMENSIONS, ("question", "embedding", "lessons", "fresh_until", "expires")
)

DIRECTORY = Table("directory", "global", "pk", "sk", ttl=None, durable=True)
ANSWERS = Table("answers", "regional", "pk", vectors=SIMILAR)
FLEET = Table("fleet", "regional", "pk", "sk")
LEDGER = Table("ledger", "regional", "pk", "sk", durable=True)

TABLES: tuple[Table, ...] = (DIRECTORY, ANSWERS, FLEET, LEDGER)
