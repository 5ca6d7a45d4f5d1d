"""docs/http.md says what the edge's code does: routes, headers, and every way a request can end."""

from __future__ import annotations

import ast
import asyncio
import re
import time
from collections.abc import Iterator

import msgspec
import pytest

from isochrone import settings
from isochrone.api import errors
from isochrone.api.errors import ApiError
from isochrone.api.exchange import Reply, Request
from isochrone.api.requests import OPERATIONS
from isochrone.ledger.entry import LOST, Entry
from isochrone.ledger.figures import figures
from isochrone.routing.probe import Probe
from isochrone.upstream.failure import Cause
from isochrone.wiring import build_edge
from tests.docs.repository import CORE, constants, page, trees

PAGE = page("docs/http.md")
ERRORS = [error for error in vars(errors).values() if isinstance(error, type) and issubclass(error, ApiError)]
# `POST /v1/chat/completions`, as the first cell of a table's row
_ROUTE = re.compile(r"^\| `(GET|POST|DELETE) (/[^`]*)` \|", re.MULTILINE)


def _rows(title: str) -> dict[str, list[str]]:
    """The table under a heading: first cell (without backticks) -> the other cells."""
    lines = [line for line in PAGE.section(title).text.splitlines() if line.startswith("|")][2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {first.strip("`"): rest for first, *rest in cells}


def test_every_route_of_the_edge_is_described() -> None:
    tree = ast.parse((CORE / "edge.py").read_text(encoding="utf-8"))
    paths = {text for text in constants(tree) if re.fullmatch(r"/[a-z]+(/[a-z]+)*/?", text)}
    paths |= {"/v1" + operation.path for operation in OPERATIONS}
    described = {path.partition("{")[0] for _, path in _ROUTE.findall(PAGE.text)}
    assert sorted(paths - {"/v1"} - described) == []


@pytest.mark.parametrize(("method", "path"), _ROUTE.findall(PAGE.text))
def test_described_route_exists(method: str, path: str) -> None:
    reply = asyncio.run(_ask(method, path))
    assert reply.status != 405
    assert b"unknown_url" not in reply.body


async def _ask(method: str, path: str) -> Reply:
    edge = build_edge(
        settings.parse(
            '[[region]]\nname = "eu-west-1"\n[[backend]]\nname = "p"\nbase_url = "http://127.0.0.1:9/v1"\n'
            'models = { "m" = "m" }\n[auth]\nrequired = false\n'
        ),
        region="eu-west-1",
        environ={},
        resident=True,
    )
    try:
        edge.pipeline.rooms.fleet.states[0].on_probe(Probe(at=time.monotonic(), reached=True))
        return await edge.handle(Request(method=method, path=path, headers={}, body=b"", peer="127.0.0.1"))
    finally:
        await edge.close()


@pytest.mark.parametrize(
    "error", [error for error in ERRORS if error is not ApiError], ids=lambda error: error.__name__
)
def test_every_kind_of_error_has_a_row_with_its_status_and_type(error: type[ApiError]) -> None:
    status, kind = _rows("Errors")[error.__name__][:2]
    passed_on = error is errors.UpstreamRefused
    assert status == ("4xx" if passed_on else str(error.status))
    assert passed_on or kind == f"`{error.type}`"


@pytest.mark.parametrize("error", [error for error in ERRORS if error.default_code], ids=lambda error: error.__name__)
def test_row_of_an_error_names_its_usual_code(error: type[ApiError]) -> None:
    assert f"`{error.default_code}`" in " ".join(_rows("Errors")[error.__name__])


def test_every_code_that_the_program_gives_is_described() -> None:
    text = PAGE.section("Errors").text
    assert [code for code in sorted(set(_codes())) if f"`{code}`" not in text] == []


def _codes() -> Iterator[str]:
    """Texts that are given as `code=` anywhere in the program."""
    for _, tree in trees(CORE):
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg == "code":
                yield from constants(node.value)


def test_every_field_of_the_status_is_described() -> None:
    status = msgspec.json.decode(asyncio.run(_ask("GET", "/v1/status")).body)
    (backend,) = status["backends"]
    parts = [status, backend, backend["probe"], *backend["offers"], *status["models"]]
    parts += [status[name] for name in ("ledger", "fleet", "answers", "audit", "limits", "client")]
    sums = {"memory.hits": 1.0}
    parts += [status["answers"]["false_hits"], figures(sums)["tiers"], figures(sums)["tiers"]["memory"]]
    assert sorted({field for part in parts for field in part} - _named_in("Status")) == []


def test_every_field_and_every_outcome_of_the_ledger_is_described() -> None:
    outcomes = {"ok", "cancelled", "hedged", LOST, *(cause.value for cause in Cause)}
    assert {*Entry.__struct_fields__, *outcomes} == _named_in("Ledger")


def _named_in(title: str) -> set[str]:
    """What stands in backticks in the tables of a section, in the first cells; of the status, anywhere."""
    rows = [line for line in PAGE.section(title).text.splitlines() if line.startswith("|")]
    cells = rows if title == "Status" else [row.split("|")[1] for row in rows]
    return {name for cell in cells for name in re.findall(r"`([a-z_]+)`", cell)}


def test_headers_that_are_described_are_those_of_the_program() -> None:
    described = {name for title in ("Request headers", "Response headers") for name in _rows(title)}
    named = {text for _, tree in trees(CORE) for text in constants(tree) if re.fullmatch(r"x-isochrone-[a-z]+", text)}
    assert {name for name in described if name.startswith("x-isochrone-")} == named


def test_headers_that_are_not_read_are_not_in_the_program() -> None:
    unread = set(re.findall(r"`([a-z-]+)`", PAGE.section("Not read yet").text))
    named = {text for _, tree in trees(CORE) for text in constants(tree)}
    assert unread
    assert sorted(unread & named) == []
