"""The tables of design section 4, once: the CDK app and `isochrone tables create` both build them from here.

Every table is on-demand, encrypted, with point-in-time recovery where `durable`. Keys are strings; `expires` is the
TTL attribute (epoch seconds) and is checked on every read, because DynamoDB deletes late.
"""

from __future__ import annotations

from typing import Literal, NamedTuple


class Table(NamedTuple):
    """One table. `scope`: "global" is replicated to every region, "regional" exists in each region by itself."""

    name: str
    scope: Literal["global", "regional"]
    partition_key: str
    sort_key: str | None = None
    ttl: str | None = "expires"
    durable: bool = False


DIRECTORY = Table("directory", "global", "pk", "sk", ttl=None, durable=True)
ANSWERS = Table("answers", "regional", "pk")
FLEET = Table("fleet", "regional", "pk", "sk")
LEDGER = Table("ledger", "regional", "pk", "sk", durable=True)

TABLES: tuple[Table, ...] = (DIRECTORY, ANSWERS, FLEET, LEDGER)
