"""docs/operations.md knows every counter."""

from __future__ import annotations

import re

from isochrone.ledger.counters import Counters
from tests.docs.repository import CORE, page

PAGE = page("docs/operations.md")


def test_every_counter_is_described() -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in CORE.rglob("*.py"))
    counted = re.findall(r"counters\.add[(,]\s*f?\"([a-z_]+)", source)
    families = {name.partition("_")[0] if name.endswith("_") else name for name in counted}
    assert {"cache", "status"} < families
    assert [name for name in sorted(families) if _shown_as(name) not in PAGE.text] == []


def _shown_as(family: str) -> str:
    counters = Counters()
    counters.add(f"{family}_x" if "_" not in family else family)
    return re.split(r"[{ ]", counters.exposition())[0]
