"""docs/configuration.md has a paragraph for every key of isochrone.settings, and says of each what the code says."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple, get_args

import msgspec
import pytest

from isochrone import settings
from isochrone.settings import Settings
from tests.docs.repository import CORE, ROOT, Section, page, trees

PAGE = page("docs/configuration.md")
NOT_USED = "**Not used yet.**"
# `number, seconds; default `2.0`; example `connect = 1``
_FACTS = re.compile(r"^.+?; (?:required|default (?:none|`(?P<default>[^`]+)`)); example `(?P<example>[^`]+)`$")


class Key(NamedTuple):
    """One key: `path` as in `backend.price.input`."""

    path: str
    default: Any
    required: bool


def keys() -> Iterator[Key]:
    """Every key of every table; those of a table inside a table too."""
    for table in msgspec.structs.fields(Settings):
        yield from _keys_of(table.name, _struct_in(table.type))


def _keys_of(name: str, struct: type[msgspec.Struct]) -> Iterator[Key]:
    for field in msgspec.structs.fields(struct):
        path = f"{name}.{field.encode_name}"
        if nested := _struct_or_none(field.type):
            yield from _keys_of(path, nested)
        else:
            default = None if field.required else _default_of(field)
            yield Key(path, default, field.required)


def _default_of(field: msgspec.structs.FieldInfo) -> Any:
    return field.default_factory() if field.default is msgspec.NODEFAULT else field.default


def _struct_in(annotation: Any) -> type[msgspec.Struct]:
    found = _struct_or_none(annotation)
    assert found, f"{annotation} is no table"
    return found


def _struct_or_none(annotation: Any) -> type[msgspec.Struct] | None:
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return annotation
    return next((found for part in get_args(annotation) if (found := _struct_or_none(part))), None)


KEYS = list(keys())
every_key = pytest.mark.parametrize("key", KEYS, ids=lambda key: key.path)


def section_of(key: Key) -> Section:
    """The paragraph under `### table.key`."""
    return next(section for section in PAGE.sections if (section.level, section.title) == (3, key.path))


def facts_of(key: Key) -> re.Match[str]:
    """The first line of the paragraph."""
    line = next(line for line in section_of(key).text.splitlines() if line)
    found = _FACTS.match(line)
    assert found, f"{key.path}: the line {line!r} is not like 'number, seconds; default `2.0`; example `connect = 1`'"
    return found


def test_there_is_a_heading_for_every_key_and_for_nothing_else() -> None:
    assert [section.title for section in PAGE.sections if section.level == 3] == [key.path for key in KEYS]


@every_key
def test_stated_default_is_the_codes(key: Key) -> None:
    facts = facts_of(key)
    assert ("; required;" in facts[0]) is key.required
    stated = facts["default"]
    assert _value(stated) == _plain(key.default) if stated else key.default is None


def _plain(value: Any) -> Any:
    """As TOML would give it: a list where the code has a tuple."""
    return msgspec.json.decode(msgspec.json.encode(value))


def _value(toml: str) -> Any:
    return tomllib.loads(f"value = {toml}")["value"]


@every_key
def test_example_is_taken_by_the_settings(key: Key) -> None:
    given = tomllib.loads(facts_of(key)["example"])
    *tables, name = key.path.split(".")
    assert name in _inside(given, tables[1:])
    msgspec.convert(_with(tables[0], given), Settings)


def _inside(document: dict[str, Any], tables: list[str]) -> dict[str, Any]:
    for table in tables:
        found = document[table]
        document = found[0] if isinstance(found, list) else found
    return document


def _with(table: str, given: dict[str, Any]) -> dict[str, Any]:
    """A small whole configuration in which `table` holds what is given."""
    document: dict[str, Any] = {
        "region": [{"name": "eu-west-1"}],
        "backend": [{"name": "pool", "base_url": "https://pool.example.com/v1", "models": {"m": "m"}}],
        "model": [{"name": "m"}],
        "key": [{"id": "k", "sha256": "0" * 64, "tenant": "t"}],
        "light": [{"task": "keywords"}],
        "tenant": [{"name": "t"}],
        "issuer": [{"name": "i", "url": "https://login.example.com", "audience": "a", "tenant": "t"}],
        "policy": [{"id": "p", "effect": "allow"}],
    }
    if table in document:
        return document | {table: [document[table][0] | given]}
    return document | {table: given}


@every_key
def test_paragraph_says_more_than_its_facts(key: Key) -> None:
    words = section_of(key).text.partition("example `")[2].split()
    assert len(words) >= 12


@every_key
def test_key_without_effect_is_said_to_be_not_used_yet(key: Key) -> None:
    name = key.path.rpartition(".")[2]
    assert (NOT_USED in section_of(key).text) is (name not in names_with_effect())


@cache
def names_with_effect() -> frozenset[str]:
    """Every attribute that the program, the functions or the CDK app read of anything."""
    modules = [found for place in (CORE, ROOT / "functions", ROOT / "infra") for found in trees(place)]
    return frozenset(name for path, tree in modules if path != CORE / "settings.py" for name in _attributes(tree))


def _attributes(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Attribute):
        yield node.attr.rstrip("_")  # `from_` is how Python can say `from`
    for child in ast.iter_child_nodes(node):
        yield from _attributes(child)


def test_shipped_example_is_a_configuration() -> None:
    assert settings.load(ROOT / "isochrone.toml").region
