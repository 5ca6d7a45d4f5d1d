"""Values that rooms and stores hand each other: by what a similar question finds an answer (the entry that is kept
beside it, what a search gives back), and how far a chain of the audit log has come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from msgspec import Struct

# Of the vector in every entry. An index of DynamoDB has a fixed number of them.
DIMENSIONS = 256


class Entry(NamedTuple):
    """`vector` has DIMENSIONS numbers and length 1; only questions of the same `scope` find it.

    `embedding` and `lessons` are opaque bytes of the semantic tier, empty while there are none.
    """

    scope: str
    question: str
    vector: Sequence[float]
    embedding: bytes = b""
    lessons: bytes = b""


class Neighbour(NamedTuple):
    """An answer whose question has a vector near to that searched for. `score` is their cosine, 1.0 for the same."""

    fingerprint: str
    score: float
    question: str
    embedding: bytes
    lessons: bytes
    fresh_until: float


class Checkpoint(Struct, frozen=True):
    """What was seen of a chain of the audit log at `time` (epoch milliseconds): its entry `seq` had this hash."""

    writer: str
    seq: int
    hash: str
    time: int
