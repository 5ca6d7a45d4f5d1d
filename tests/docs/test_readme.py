"""The two READMEs: what they show works, and they show the same."""

from __future__ import annotations

import re

from isochrone import settings
from tests.docs.repository import ROOT, Fence, Page, page

ENGLISH, CHINESE = page("README.md"), page("README.zh-CN.md")


def test_both_languages_have_the_same_structure() -> None:
    assert [section.level for section in CHINESE.sections] == [section.level for section in ENGLISH.sections]


def test_both_languages_show_the_same_code() -> None:
    assert [_without_comments(fence) for fence in CHINESE.fences] == [
        _without_comments(fence) for fence in ENGLISH.fences
    ]


def _without_comments(fence: Fence) -> tuple[str, list[str]]:
    """Comments are translated, commands are not."""
    return fence.language, [line.partition("# ")[0].rstrip() for line in fence.text.splitlines()]


def test_both_languages_lead_to_the_same_pages() -> None:
    assert _links_outside(CHINESE) == _links_outside(ENGLISH)


def _links_outside(readme: Page) -> list[str]:
    """Without those to the other language and to its own headings, which are translated."""
    return [link for link in readme.links if link not in {"README.md", "README.zh-CN.md"} and not link.startswith("#")]


def test_first_screen_shows_the_two_commands() -> None:
    first_screen = "\n".join(ENGLISH.text.splitlines()[:40])
    assert "make run" in first_screen
    assert "make test" in first_screen


def test_configuration_that_is_shown_is_one() -> None:
    shown = [fence.text for fence in ENGLISH.fences if fence.language == "toml"]
    assert len(shown) == 1
    parsed = settings.parse(shown[0], name="README.md")
    assert parsed.backend


def test_attribution_that_the_geoip_licence_asks_for_is_there() -> None:
    for readme in (ENGLISH, CHINESE):
        assert "https://db-ip.com/" in readme.links


def test_python_version_that_is_named_is_the_packages() -> None:
    needed = re.search(r'requires-python = ">=(3\.\d+)"', (ROOT / "pyproject.toml").read_text())
    assert needed
    assert f"Python {needed[1]}" in ENGLISH.text
