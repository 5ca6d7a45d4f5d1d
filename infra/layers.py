"""The folders that become Lambda layers: two are source, scripts/build_layers.py builds the others."""

from __future__ import annotations

from collections.abc import Sequence
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

# Lambda's limit for a function and its layers together, unpacked: 250 MiB.
BUDGET_MB = 262
_BUILD = ".venv/bin/python scripts/build_layers.py"


class LayerMissing(Exception):
    """A layer has not been built; the message is one line that says how to."""


class LayersTooLarge(Exception):
    """No function can have these layers together; the message is one line that says what takes how much."""


class Layers(NamedTuple):
    """Asset folders. Each is unpacked under /opt; `geoip` is None where the machine's own database is used, `semantic`
    where no answer is semantic."""

    core: Path
    streaming: Path
    dependencies: Path
    geoip: Path | None
    semantic: Path | None = None


def find_layers(profile: Profile, root: Path = ROOT, *, semantic: bool = False, extras: Sequence[str] = ()) -> Layers:
    """The layers of `profile`, with the embedder (`semantic`) and libraries that not every edge needs (`extras`, in the
    order of `Deployment.extras`) where they are used. Raises LayerMissing, LayersTooLarge."""
    built = root / "build" / "layers"
    core, streaming = root / "layers/core", root / "layers/streaming"
    if profile == "local":
        # The emulator runs functions on this machine, which holds the database, the embedder and all libraries already:
        # 210 MB less for each region.
        found = Layers(core, streaming, built / "machine/dependencies", None)
    else:
        dependencies = built / "lambda" / "-".join(("dependencies", *extras))
        embedder = built / "lambda/semantic" if semantic else None
        found = Layers(core, streaming, dependencies, built / "lambda/geoip", embedder)
    for folder in found:
        if folder is not None and not (folder / ".complete").exists() and built in folder.parents:
            way = _way_to(folder.name, extras)
            raise LayerMissing(f"layer {folder.relative_to(root)} is not built: run `{way}` first")
    if profile != "local":
        _check_size(found)
    return found


def _way_to(name: str, extras: Sequence[str]) -> str:
    if name == "semantic":
        return f"{_BUILD} --semantic"
    if name.startswith("dependencies") and extras:
        return " ".join((_BUILD, *(f"--with {extra}" for extra in extras)))
    return "make install"


def _check_size(layers: Layers) -> None:
    sizes = {folder.name: size_mb(folder) for folder in layers if folder is not None}
    if (total := sum(sizes.values())) > BUDGET_MB:
        parts = ", ".join(f"{name} {size:.0f}" for name, size in sizes.items())
        raise LayersTooLarge(
            f"the layers take {total:.0f} MB unpacked, and Lambda allows {BUDGET_MB} ({parts}): do without semantic "
            "answers, light work, tokens or policies, one of them or more"
        )


def size_mb(folder: Path) -> float:
    """Unpacked size in MB, as Lambda counts it."""
    left_out = {path for pattern in LEFTOVERS for path in folder.glob(pattern)}
    files = (file for file in folder.rglob("*") if file.is_file())
    return sum(file.stat().st_size for file in files if left_out.isdisjoint((file, *file.parents))) / 1e6
