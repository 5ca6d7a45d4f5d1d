"""docs/commands.md knows every make target, every subcommand and every option."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from isochrone.cli import main
from tests.docs.repository import ROOT, page

PAGE = page("docs/commands.md")
DESCRIBED = [section.title for section in PAGE.sections if section.title.startswith("scripts/")]
# What stands deeper is started by these, and is described only where people start it too.
TO_DESCRIBE = [f"scripts/{path.name}" for path in sorted((ROOT / "scripts").glob("*.py"))]


def commands(group: click.Group, name: str) -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, by what is typed."""
    for word, command in group.commands.items():
        full_name = f"{name} {word}"
        if isinstance(command, click.Group):
            yield from commands(command, full_name)
        else:
            yield full_name, command


@pytest.mark.parametrize(("name", "command"), list(commands(main, "isochrone")), ids=str)
def test_subcommand_has_a_section_with_all_its_options(name: str, command: click.Command) -> None:
    options = {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
    assert sorted(options - _options_in(PAGE.section(name).text)) == []


@pytest.mark.parametrize("name", sorted({*DESCRIBED, *TO_DESCRIBE}))
def test_script_has_a_section_with_all_its_options(name: str) -> None:
    assert sorted(set(_options_of(ROOT / name)) - _options_in(PAGE.section(name).text)) == []


def _options_in(text: str) -> set[str]:
    return set(re.findall(r"--[a-z][a-z-]*", text))


def _options_of(script: Path) -> Iterator[str]:
    """What the script declares to click or argparse; also what it declares as one of two (`--wan/--no-wan`)."""
    for call in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(call, ast.Call) and _declares(call):
            for argument in call.args:
                if isinstance(argument, ast.Constant) and str(argument.value).startswith("--"):
                    yield from str(argument.value).split("/")


def _declares(call: ast.Call) -> bool:
    name = getattr(call.func, "attr", None)
    hidden = any(ast.unparse(keyword.value) == "argparse.SUPPRESS" for keyword in call.keywords)
    return name in ("option", "add_argument") and not hidden


def test_every_make_target_is_described() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert [target for target in targets if f"`make {target}`" not in PAGE.text] == []


def test_every_section_about_a_subcommand_is_about_one_that_exists() -> None:
    described = {section.title for section in PAGE.sections if section.title.startswith("isochrone ")}
    assert described == {name for name, _ in commands(main, "isochrone")}
