"""docs/architecture.md names modules, functions, tables and ports that are there."""

from __future__ import annotations

import re
from importlib.util import find_spec

import pytest

from isochrone.stores.tables import TABLES
from local.layout import POOL_NAMES, REGIONS
from tests.docs.repository import CORE, ROOT, constants, page, trees

PAGE = page("docs/architecture.md")


def test_modules_that_are_named_exist() -> None:
    named = {name for name in PAGE.code if re.fullmatch(r"isochrone(_streaming)?(\.[a-z_]+)+", name)}
    assert len(named) > 10
    assert [name for name in sorted(named) if find_spec(name) is None] == []


@pytest.mark.parametrize("room", ["answers", "admission", "audit", "durable", "outbound", "pii"])
def test_every_module_of_a_room_has_its_place_on_the_map(room: str) -> None:
    """By its whole name, or behind a room's as `.guards`."""
    modules = [path for path in (CORE / room).rglob("*.py") if path.stem != "__init__"]
    names = {path: ".".join(path.relative_to(CORE).with_suffix("").parts) for path in modules}
    assert sorted(n for path, n in names.items() if not {f"isochrone.{n}", f".{path.stem}"} & set(PAGE.code)) == []


def test_functions_and_classes_that_are_named_exist() -> None:
    """`pursue()` and `Pipeline.generate()`: each last name is defined somewhere."""
    named = {name.removesuffix("()").rpartition(".")[2] for name in PAGE.code if re.fullmatch(r"[A-Za-z_.]+\(\)", name)}
    text = "\n".join(
        path.read_text(encoding="utf-8") for folder in ("layers", "infra") for path, _ in trees(ROOT / folder)
    )
    assert named
    assert [name for name in sorted(named) if not re.search(rf"(def|class) {name}\b", text)] == []


def test_every_table_is_described() -> None:
    rows = PAGE.section("What is kept, and what happens without it").text
    assert [table.name for table in TABLES if f"| `{table.name}` | {table.scope} |" not in rows] == []


def test_ports_of_the_local_edition_are_those_of_make_run() -> None:
    script = next(tree for path, tree in trees(ROOT / "scripts") if path.name == "run.py")
    assert {"--edge-port", "--pool-port", "--wan-port", "--cloud-port", "--console-port"} <= set(constants(script))
    text = PAGE.section("The local edition").text
    assert [name for name in (*REGIONS, *POOL_NAMES) if name not in text] == []
    source = (ROOT / "scripts/run.py").read_text()
    defaults = re.findall(r'-port", type=PORT, default=(\d+)', source)
    assert len(defaults) == 5
    assert [port for port in defaults if port not in text] == []
