"""The repository as its documents see it: which files belong to it, and what stands in a Markdown page."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "layers/core/python/isochrone"


class Fence(NamedTuple):
    """A fenced code block: `language` is what stands behind the fence."""

    language: str
    text: str


class Section(NamedTuple):
    """A heading and what stands below it, up to the next heading of any level."""

    level: int
    title: str
    text: str


class Page:
    """One Markdown file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = path.read_text(encoding="utf-8")
        self._tokens = MarkdownIt("commonmark").enable("table").parse(self.text)

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @property
    def fences(self) -> list[Fence]:
        return [Fence(token.info.strip(), token.content) for token in self._tokens if token.type == "fence"]

    @property
    def sections(self) -> list[Section]:
        """In the order of the page; text before the first heading is not among them."""
        lines = self.text.splitlines()
        heads = [(i, token) for i, token in enumerate(self._tokens) if token.type == "heading_open"]
        starts = [token.map[0] for _, token in heads if token.map] + [len(lines)]
        return [
            Section(int(token.tag[1:]), self._tokens[i + 1].content, "\n".join(lines[start + 1 : end]))
            for (i, token), start, end in zip(heads, starts, starts[1:], strict=False)
        ]

    @property
    def anchors(self) -> set[str]:
        """What a `#fragment` may name, as GitHub makes it from headings."""
        return {_slug(section.title) for section in self.sections}

    @property
    def links(self) -> list[str]:
        """Targets of links and images."""
        return [str(token.attrs.get("href") or token.attrs["src"]) for token in self._inline("link_open", "image")]

    @property
    def code(self) -> list[str]:
        """Texts in backticks."""
        return [token.content for token in self._inline("code_inline")]

    def section(self, title: str) -> Section:
        """The one with this heading."""
        return next(section for section in self.sections if section.title == title)

    def _inline(self, *kinds: str) -> Iterator[Token]:
        for token in self._tokens:
            yield from (child for child in token.children or () if child.type in kinds)


def _slug(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


@cache
def files() -> tuple[Path, ...]:
    """Every file of the repository, without what .gitignore names; also right where there is no git."""
    ignored = [line.strip("/ ") for line in (ROOT / ".gitignore").read_text().splitlines() if line.strip()]

    def is_ours(name: str) -> bool:
        return name != ".git" and not any(fnmatch(name, pattern) for pattern in ignored)

    found: list[Path] = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = filter(is_ours, folders)
        found += [Path(folder, name) for name in names if is_ours(name)]
    return tuple(sorted(found))


@cache
def pages() -> tuple[Page, ...]:
    """Every Markdown page of the repository."""
    return tuple(Page(path) for path in files() if path.suffix == ".md")


def page(name: str) -> Page:
    """One page by its path from the root."""
    return next(page for page in pages() if page.name == name)


def trees(folder: Path) -> Iterator[tuple[Path, ast.Module]]:
    """The syntax trees of all Python files below `folder`."""
    for path in sorted(folder.rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"))


@cache
def known_tests() -> frozenset[str]:
    """The names of all tests, and of state machines that are one (`TestLimits = Machine.TestCase`)."""
    nodes = [node for _, tree in trees(ROOT / "tests") for node in ast.walk(tree)]
    functions = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    machines = {ast.unparse(node.targets[0]) for node in nodes if isinstance(node, ast.Assign) and _is_machine(node)}
    return frozenset(name for name in functions | machines if name.startswith(("test_", "Test")))


def _is_machine(node: ast.Assign) -> bool:
    return isinstance(node.value, ast.Attribute) and node.value.attr == "TestCase"


def constants(tree: ast.AST) -> Iterator[str]:
    """Every text that stands in the code, docstrings included."""
    return (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))
