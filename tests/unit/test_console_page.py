"""The console's files: both languages say the same, nothing is loaded from elsewhere, no text becomes markup."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from local.console import server
from local.console.asking import PLACES

FOLDER = Path(server.__file__).with_name("page")
FILES = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.iterdir()}
HTML, SCRIPT = FILES["index.html"], FILES["console.js"]
# What states and failures the server sends; the page says them through the same dictionary.
WORDS = {"healthy", "trial", "ejected", "unreachable", "unknown", "draining", "silent", "refused", "odd", "unasked"}
SOURCES = {"probe", "matrix", "estimate", "unknown"}


class Reader(HTMLParser):
    """Every element with its attributes, and the texts of both languages."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, dict[str, str]] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][1].get("id") == "texts" and data.strip():
            self.texts = json.loads(data)

    def values(self, attribute: str) -> list[str]:
        return [value for _, attributes in self.elements if (value := attributes.get(attribute))]


@pytest.fixture(scope="module")
def page() -> Reader:
    reader = Reader()
    reader.feed(HTML)
    return reader


def test_both_languages_have_every_text_with_the_same_blanks(page: Reader) -> None:
    def blanks(texts: dict[str, str]) -> dict[str, list[str]]:
        return {key: sorted(re.findall(r"\{\w+\}", text)) for key, text in texts.items()}

    assert blanks(page.texts["en"]) == blanks(page.texts["zh"])
    assert all(text.strip() for texts in page.texts.values() for text in texts.values())


def test_every_text_is_used_and_every_one_that_is_used_is_there(page: Reader) -> None:
    in_html = {*page.values("data-text"), *page.values("data-label")}
    in_script = set(re.findall(r'"([A-Za-z-]+)"', SCRIPT))
    texts = set(page.texts["en"])
    assert (in_html | WORDS | SOURCES) - texts == set()
    assert set(re.findall(r'say\("([^"]+)"', SCRIPT)) - texts == set()
    assert texts - in_html - WORDS - SOURCES - in_script == set()


def test_places_to_choose_are_those_that_the_server_knows(page: Reader) -> None:
    listed = re.search(r'<select id="place">(.*?)</select>', HTML, re.DOTALL)
    assert listed and set(re.findall(r'value="([^"]*)"', listed[1])) == set(PLACES)


def test_script_asks_only_for_elements_that_the_page_has(page: Reader) -> None:
    wanted = re.findall(r'(?:byId|draw|offer|setText)\("([^"]+)"', SCRIPT)
    assert set(wanted) - set(page.values("id")) == set()


@pytest.mark.parametrize("name", FILES)
def test_no_file_names_another_host_but_the_attribution_does(name: str) -> None:
    urls = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"'<]*", FILES[name]))
    named_only = {"http://www.w3.org/2000/svg"}  # a name of the format, never fetched
    assert urls - named_only == ({"https://db-ip.com"} if name == "index.html" else set())


def test_attribution_that_the_licence_asks_for_links_to_its_source() -> None:
    assert re.search(r'<a href="https://db-ip\.com"[^>]*>IP Geolocation by DB-IP</a>', HTML)


def test_text_from_elsewhere_never_becomes_markup_or_code() -> None:
    dangerous = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|DOMParser|srcdoc"
    assert re.findall(dangerous, SCRIPT) == []


def test_page_has_no_inline_style_or_handler_that_the_policy_would_stop(page: Reader) -> None:
    inline: list[Any] = [
        (tag, name)
        for tag, attributes in page.elements
        for name in attributes
        if name == "style" or name.startswith("on")
    ]
    blocks = [attributes for tag, attributes in page.elements if tag in ("style", "script")]
    assert inline == []
    assert [block for block in blocks if "src" not in block and block.get("type") != "application/json"] == []


def test_every_field_has_a_label_and_every_table_can_be_reached_by_keyboard(page: Reader) -> None:
    fields = [attributes["id"] for tag, attributes in page.elements if tag in ("textarea", "select", "input")]
    labels = re.findall(r"<label.*?</label>", HTML, re.DOTALL)
    assert [field for field in fields if sum(f'id="{field}"' in label for label in labels) != 1] == []
    scrolled = [attributes for _, attributes in page.elements if attributes.get("class") == "scroll"]
    assert scrolled and all(one.get("tabindex") == "0" and one.get("aria-labelledby") for one in scrolled)
