"""docs/operations.md knows every counter."""

from __future__ import annotations

import re

from isochrone.ledger.counters import Counters
from tests.docs.repository import CORE, page

PAGE = page("docs/operations.md")


def test_every_counter_is_described() -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in CORE.rglob("*.py"))
    counted = set(re.findall(r"(?:counters\.add|self\._count)[(,]\s*f?\"([a-z_]+)", source))
    assert {"cache_", "status_", "answers_too_large", "semantic_embedded"} < counted
    assert [name for name in sorted(counted) if _shown_as(name) not in PAGE.text] == []


def _shown_as(name: str) -> str:
    """What /metrics calls it, as far as that is the same for all counters whose names begin so (`status_`)."""
    counters = Counters()
    counters.add(f"{name}x" if name.endswith("_") else name)
    return re.split(r"[{ ]|x_total", counters.exposition())[0]
