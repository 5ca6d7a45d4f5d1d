"""The folders that become Lambda layers: two are source, scripts/build_layers.py builds the others."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from infra.settings import Profile

ROOT = Path(__file__).resolve().parent.parent

# What does not belong into a layer: what Python and its tools leave in a source folder (it would change its hash), and
# the simulation, which is a command for people.
LEFTOVERS = (
    *("**/__pycache__", "**/*.pyc", "**/*.egg-info", "**/.mypy_cache", "**/.ruff_cache", ".complete"),
    "**/isochrone/simulation",
)


_WAYS = {
    "semantic": ".venv/bin/python scripts/build_layers.py --semantic",
    "dependencies-light": ".venv/bin/python scripts/build_layers.py --light",
}


class LayerMissing(Exception):
    """A layer has not been built; the message is one line that says how to."""


class Layers(NamedTuple):
    """Asset folders. Each is unpacked under /opt; `geoip` is None where the machine's own database is used, `semantic`
    where no answer is semantic."""

    core: Path
    streaming: Path
    dependencies: Path
    geoip: Path | None
    semantic: Path | None = None


def find_layers(profile: Profile, root: Path = ROOT, *, semantic: bool = False, light: bool = False) -> Layers:
    """The layers of `profile`, with the embedder (`semantic`) and the libraries of light work (`light`) where they are
    used. Raises LayerMissing."""
    built = root / "build" / "layers"
    if profile == "local":
        # The emulator runs functions on this machine, which holds the database and the embedder already: 210 MB less
        # for each region.
        found = Layers(root / "layers/core", root / "layers/streaming", built / "machine/dependencies", None)
    else:
        found = Layers(
            root / "layers/core",
            root / "layers/streaming",
            built / ("lambda/dependencies-light" if light else "lambda/dependencies"),
            built / "lambda/geoip",
            built / "lambda/semantic" if semantic else None,
        )
    for folder in found:
        if folder is not None and not (folder / ".complete").exists() and built in folder.parents:
            way = _WAYS.get(folder.name, "make install")
            raise LayerMissing(f"layer {folder.relative_to(root)} is not built: run `{way}` first")
    return found
