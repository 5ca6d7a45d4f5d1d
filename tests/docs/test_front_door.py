"""The pages about the front door: routes, fields, headers and examples are those of the code."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any, cast, get_args

import pytest

from isochrone.admin_function import AdminApi
from isochrone.audit.entry import AuditEntry
from isochrone.ledger.entry import LOST
from isochrone.settings import OwnLimits, PiiKind, parse
from tests.docs.repository import Page, page

_REST = """
[[region]]
name = "eu-west-1"
[[backend]]
name = "pool"
base_url = "http://127.0.0.1:9/v1"
models = { deepseek-chat = "m" }
"""
EXAMPLES = [
    pytest.param(fence.text, id=f"{name} {number}")
    for name in ("docs/limits.md", "docs/content.md", "docs/privacy.md", "docs/audit.md")
    for number, fence in enumerate(one for one in page(name).fences if one.language == "toml")
]


def _first_cells(told: Page, title: str) -> list[str]:
    """What stands in backticks in the first cells of the tables of a section."""
    rows = [line.split("|")[1] for line in told.section(title).text.splitlines() if line.startswith("|")]
    return [text for row in rows for text in re.findall(r"`([^`]+)`", row)]


def test_routes_of_the_admin_api_are_those_that_are_described() -> None:
    routes = AdminApi(cast(Any, SimpleNamespace())).routes
    there = {f"{method} {path}" for path, methods in routes.items() for method in methods}
    assert set(_first_cells(page("docs/keys.md"), "The admin API")) == there


def test_fields_of_an_audit_entry_are_those_that_are_described() -> None:
    described = set(_first_cells(page("docs/audit.md"), "What an entry holds"))
    assert described == {*AuditEntry.__struct_fields__, "writer", "seq", "prev", "hash"}
    assert f"`{LOST}`" in page("docs/audit.md").section("What an entry holds").text


def test_every_kind_of_limit_is_shown() -> None:
    (example, *_) = [fence.text for fence in page("docs/limits.md").fences if fence.language == "toml"]
    assert set(OwnLimits.__struct_fields__) <= set(re.findall(r"^(\w+) = ", example, re.MULTILINE))


def test_kinds_of_personal_data_are_those_that_are_described() -> None:
    assert _first_cells(page("docs/privacy.md"), "What is found") == list(get_args(PiiKind))


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_is_a_configuration(example: str) -> None:
    """A backend of its own stands beside the one that is there."""
    assert parse(_REST + example).region
