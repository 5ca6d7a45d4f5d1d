"""Libraries that not every edge needs share the layer of dependencies, and come where the configuration uses them."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from build_layers import EXTRAS, dependencies_layer, main
from infra.layers import BUDGET_MB, ROOT, LayerMissing, LayersTooLarge, find_layers, size_mb
from infra.settings import load
from tests.infra.conftest import BASE

LIGHT = '\n[[light]]\ntask = "tokens"\nmodel = "count"\n'
TOKENS = '\n[[issuer]]\nname = "a"\nurl = "https://id.example.com"\naudience = "llm"\ntenant = "a"\n'
POLICY = '\n[[policy]]\nid = "all"\neffect = "allow"\n'
SHARED = "\n[auth]\npolicies = true\n"


def built(root: Path, *names: str, megabytes: float = 0.0) -> Path:
    for name in names:
        folder = root / "build/layers/lambda" / name
        folder.mkdir(parents=True)
        (folder / ".complete").write_text("")
        with (folder / "library").open("wb") as file:
            file.truncate(int(megabytes * 1e6))
    return root


@pytest.mark.parametrize(
    ("text", "extras"),
    [
        ("", ()),
        (LIGHT, ("light",)),
        (TOKENS, ("tokens",)),
        (POLICY, ("policies",)),
        (SHARED, ("policies",)),
        (LIGHT + TOKENS + POLICY, EXTRAS),
    ],
)
def test_libraries_are_wanted_where_the_configuration_uses_them(
    tmp_path: Path, text: str, extras: tuple[str, ...]
) -> None:
    (tmp_path / "isochrone.toml").write_text(BASE + text)
    assert load(tmp_path / "isochrone.toml").extras == extras


def test_each_set_of_libraries_is_a_layer_of_its_own(tmp_path: Path) -> None:
    built(tmp_path, "dependencies", "dependencies-light-policies", "geoip")
    assert find_layers("aws", tmp_path).dependencies.name == "dependencies"
    assert find_layers("aws", tmp_path, extras=("light", "policies")).dependencies.name == "dependencies-light-policies"
    how = r"scripts/build_layers\.py --with tokens --with policies` first"
    with pytest.raises(LayerMissing, match=how):
        find_layers("aws", tmp_path, extras=("tokens", "policies"))


def test_layers_that_no_function_can_have_are_refused_with_their_sizes(tmp_path: Path) -> None:
    built(tmp_path, "dependencies", "geoip", "semantic", megabytes=90)
    find_layers("aws", tmp_path)
    with pytest.raises(LayersTooLarge, match=r"take 270 MB .* allows 262 \(.*dependencies 90, geoip 90, semantic 90\)"):
        find_layers("aws", tmp_path, semantic=True)


def test_what_is_built_here_fits_without_libraries_of_a_few() -> None:
    usual = find_layers("aws")
    assert sum(size_mb(folder) for folder in usual if folder) < BUDGET_MB


def test_what_is_not_deployed_is_not_counted(tmp_path: Path) -> None:
    (tmp_path / "python/isochrone/simulation").mkdir(parents=True)
    (tmp_path / "python/isochrone/simulation/data").write_text("x" * 1000)
    (tmp_path / "python/a.py").write_text("x" * 1000)
    assert size_mb(tmp_path) == 0.001


@pytest.mark.parametrize("name", EXTRAS)
def test_layer_is_made_anew_when_the_list_of_an_extra_changes(tmp_path: Path, name: str) -> None:
    for file in ("requirements.txt", f"requirements-{name}.txt"):
        (tmp_path / file).write_text("a")
    before = dependencies_layer(tmp_path, (name,), tmp_path)
    (tmp_path / f"requirements-{name}.txt").write_text("b")
    assert dependencies_layer(tmp_path, (name,), tmp_path).recipe != before.recipe
    assert before.source == tmp_path / "requirements.txt"


def test_layer_is_made_of_all_lists_and_has_the_licences_that_wheels_lack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed: list[str] = []

    def install(requirements: Path, _options: tuple[str, ...], *more: Path) -> object:
        installed.extend(path.name for path in (requirements, *more))
        return lambda folder: None

    monkeypatch.setattr("build_layers.wheels", install)
    layer = dependencies_layer(tmp_path, ("policies", "light"))
    layer.fill(tmp_path)
    assert layer.folder.name == "dependencies-light-policies"
    assert installed == ["requirements.txt", "requirements-light.txt", "requirements-policies.txt"]
    assert "CC-BY-SA-3.0" in (tmp_path / "licences/README.md").read_text()


@pytest.mark.parametrize("name", EXTRAS)
def test_every_extra_has_a_list_whose_versions_are_those_of_the_tests(name: str) -> None:
    tested = (ROOT / "requirements-dev.txt").read_text()
    pinned = [
        line.split(" ")[0] for line in (ROOT / f"requirements-{name}.txt").read_text().splitlines() if "==" in line
    ]
    assert pinned
    assert name == "light" or all(f"{one} " in tested for one in pinned)


def test_extras_are_not_for_this_machine() -> None:
    with pytest.raises(click.UsageError, match="--with makes a layer for Lambda"):
        main.callback(output=Path("x"), machine=True, semantic=False, extras=("light",))  # type: ignore[misc]
