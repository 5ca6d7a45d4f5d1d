"""The entries of the answers table, found by the vector index of `isochrone.stores.tables`."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

from msgspec import Struct, field

from isochrone.stores.dynamodb.client import DynamoClient
from isochrone.stores.dynamodb.errors import ConditionFailed
from isochrone.stores.dynamodb.items import Binary, Done, Item, Number, Text
from isochrone.stores.entries import Entry, Neighbour
from isochrone.stores.tables import SIMILAR


class _Found(Struct):
    pk: Text
    question: Text
    expires: Number | None = None
    fresh_until: Number | None = None
    embedding: Binary = field(default_factory=lambda: Binary(b""))
    lessons: Binary = field(default_factory=lambda: Binary(b""))


class _Result(Struct):
    Item: _Found
    Score: float


class _Results(Struct):
    SearchResults: list[_Result]


def attributes_of(entry: Entry) -> Item:
    """What an entry adds to the item of its answer. Empty bytes are left out."""
    known: Item = {
        SIMILAR.partition: {"S": entry.scope},
        SIMILAR.vector: {"L": _numbers(entry.vector)},
        "question": {"S": entry.question},
    }
    said = {"embedding": entry.embedding, "lessons": entry.lessons}
    return known | {name: {"B": value} for name, value in said.items() if value}


class Similar:
    """Searches and teaches the entries of the table `table`.

    A search sees a write after a moment only: the index is filled asynchronously.
    """

    def __init__(self, client: DynamoClient, table: str) -> None:
        self._client = client
        self._table = table

    async def search(self, scope: str, vector: Sequence[float], *, limit: int, now: float) -> list[Neighbour]:
        """The nearest of the scope that have not expired at `now`, best first."""
        request = {
            "TableName": self._table,
            "IndexName": SIMILAR.name,
            "SearchVector": _numbers(vector),
            "SearchConditionExpression": "#scope = :scope",
            "ExpressionAttributeNames": {"#scope": SIMILAR.partition},
            "ExpressionAttributeValues": {":scope": {"S": scope}},
            "TopK": limit,
        }
        results = (await self._client.call("SearchVectors", request, _Results)).SearchResults
        neighbours = (_neighbour(result) for result in results if _alive(result.Item, now))
        return sorted(neighbours, key=lambda neighbour: -neighbour.score)

    async def learn(self, fingerprint: str, lessons: bytes, *, before: bytes, embedding: bytes) -> bool:
        """Replace the lessons `before`; False when others stand there, or the entry is gone."""
        assignments, values = ["lessons = :lessons"], {":lessons": {"B": lessons}}
        if embedding:
            assignments.append("embedding = :embedding")
            values[":embedding"] = {"B": embedding}
        if before:
            values[":before"] = {"B": before}
        request = {
            "TableName": self._table,
            "Key": {"pk": {"S": fingerprint}},
            "UpdateExpression": "SET " + ", ".join(assignments),
            "ConditionExpression": "attribute_exists(question) AND "
            + ("lessons = :before" if before else "attribute_not_exists(lessons)"),
            "ExpressionAttributeValues": values,
        }
        try:
            await self._client.call("UpdateItem", request, Done)
        except ConditionFailed:
            return False
        return True


def _neighbour(result: _Result) -> Neighbour:
    found = result.Item
    return Neighbour(
        fingerprint=found.pk.S,
        score=1.0 - result.Score,
        question=found.question.S,
        embedding=found.embedding.B,
        lessons=found.lessons.B,
        fresh_until=float(found.fresh_until.N) if found.fresh_until else inf,
    )


def _alive(found: _Found, now: float) -> bool:
    return found.expires is None or float(found.expires.N) > now


def _numbers(vector: Sequence[float]) -> list[dict[str, Any]]:
    return [{"N": f"{number:.5g}"} for number in vector]
