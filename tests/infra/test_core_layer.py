"""The core layer holds the program, and nothing that only people start."""

from __future__ import annotations

from tests.infra.conftest import Synthesis


def test_the_simulation_is_no_part_of_a_function(app: Synthesis) -> None:
    found = {
        path.relative_to(asset).as_posix()
        for asset in app.folder.iterdir()
        if asset.name.startswith("asset.") and asset.is_dir()
        for path in asset.rglob("*")
    }
    assert "python/isochrone/routing/plan.py" in found
    assert not [name for name in found if "simulation" in name]
