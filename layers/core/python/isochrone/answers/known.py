"""An answer that is known already, and where from."""

from __future__ import annotations

from typing import Literal, NamedTuple

from isochrone.answers.completion import Answer

Tier = Literal["memory", "store", "semantic", "curated"]


class Known(NamedTuple):
    """`mark` is the answer's id; `stale_for` is for how many seconds its time has been over, 0.0 while it is fresh.

    `why` is short text for the header, where there is more to say than that it is known.
    """

    answer: Answer
    mark: str
    tier: Tier
    stale_for: float = 0.0
    why: str = "known answer"
