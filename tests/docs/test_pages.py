"""What holds for every page: links lead somewhere, commands and paths exist, code blocks say what they are."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.docs.repository import ROOT, Page, page, pages

# A first step of a path that can only be meant from the root.
_TOP = ("docs", "functions", "infra", "layers", "scripts", "tests")
_TARGET = re.compile(r"^([a-z]+):", re.MULTILINE)
_MAKE = re.compile(r"\bmake ([a-z]+)\b")

every_page = pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)


@every_page
def test_relative_links_lead_to_files_and_headings_that_exist(page: Page) -> None:
    assert [link for link in page.links if not _resolves(page, link)] == []


def _resolves(page: Page, link: str) -> bool:
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return True
    target = page.path.parent / unquote(parts.path) if parts.path else page.path
    if not target.exists():
        return False
    return not parts.fragment or unquote(parts.fragment) in Page(target).anchors


@every_page
def test_make_targets_that_are_shown_exist(page: Page) -> None:
    shown = [name for text in (*page.code, *(fence.text for fence in page.fences)) for name in _MAKE.findall(text)]
    targets = _TARGET.findall((ROOT / "Makefile").read_text())
    assert sorted(set(shown) - set(targets)) == []


@every_page
def test_paths_in_backticks_exist(page: Page) -> None:
    assert [text for text in page.code if _looks_like_a_path(text) and not _exists(text, page.path.parent)] == []


def _looks_like_a_path(text: str) -> bool:
    first, slash, _ = text.partition("/")
    return bool(slash) and first in _TOP and not re.search(r"[\s<>{}()=$]", text)


def _exists(text: str, folder: Path) -> bool:
    name = text.partition(":")[0].rstrip("/")
    places = (ROOT, ROOT / "layers/core/python/isochrone", folder)
    return any(place.joinpath(name).exists() or any(place.glob(name)) for place in places)


@every_page
def test_toml_blocks_are_toml(page: Page) -> None:
    for fence in page.fences:
        if fence.language == "toml":
            tomllib.loads(fence.text)


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, to_read = set[Path](), [ROOT / "README.md"]
    while to_read:
        path = to_read.pop()
        if path in reached:
            continue
        reached.add(path)
        targets = [(path.parent / urlsplit(link).path).resolve() for link in Page(path).links if "://" not in link]
        to_read += [target for target in targets if target.suffix == ".md" and target.exists()]
    documents = {page.path for page in pages() if page.name.startswith("docs/") or page.path.parent == ROOT}
    assert sorted(document.name for document in documents - reached) == []


def test_every_decision_is_in_the_index() -> None:
    index = page("docs/decisions/README.md")
    decisions = {path.name for path in (ROOT / "docs/decisions").glob("0*.md")}
    assert {urlsplit(link).path for link in index.links if re.match(r"\d{4}-", link)} == decisions
