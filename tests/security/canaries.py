"""Canaries: words that stand for secrets and for what people say, and where to look for them.

They go in wherever something comes in; a test then looks into a sink with `leaks`.
"""

from __future__ import annotations

import json
import re
import zlib
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from tests.faults.harness import RunningEdge, backend, running_edge
from tests.upstream import Upstream

PROMPT = "canaryprompt7f3a"
ANSWER = "canaryanswer91bc"
KEY = "iso-canarykey5d2e" + "0" * 32
JWT = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJjYW5hcnlqd3Q4In0.canaryjwt8signature"
UPSTREAM_KEY = "pool-secret"  # as the harness sets it
CANARIES = {"prompt": PROMPT, "answer": ANSWER, "key": KEY, "jwt": JWT, "upstream key": UPSTREAM_KEY}
_BASE64 = re.compile(
    r"(?<![A-Za-z0-9+/])(?:[A-Za-z0-9+/]{4}){6,}(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?(?![A-Za-z0-9+/=])"
)
KEYS = [{"id": "a", "tenant": "a", "sha256": sha256(KEY.encode()).hexdigest()}]
BEARER = {"authorization": f"Bearer {KEY}"}


def leaks(text: str | bytes, *, but: str = "") -> list[str]:
    """The names of the canaries in it, as they are or as JSON or a percent-encoding may write them."""
    text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return [name for name, canary in CANARIES.items() if canary in text and name not in but.split(",")]


@asynccontextmanager
async def edge_over(upstream: Upstream, folder: Path, *models: str, **sections: Any) -> AsyncIterator[RunningEdge]:
    served = backend(upstream, models={name: name for name in models}, api_key_env="POOL_KEY")
    usual: dict[str, Any] = {
        "key": KEYS,
        "auth": {"required": True},
        "audit": {"to": "file", "folder": str(folder / "audit")},
        "answers": {"warm": True},
        "retry": {"attempts": 2},
        "deadlines": {"connect": 1.0, "first_token": 0.2, "stall": 0.2, "total": 3.0},
    }
    async with running_edge(served, **{**usual, **sections}) as edge:
        yield edge


def question(**more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": PROMPT}], "user": PROMPT, **more}


async def reports(edge: RunningEdge) -> str:
    """What the routes say that report to who has the key, and what an edge tells CloudWatch."""
    return await reports_to(edge, BEARER)


async def reports_to(edge: RunningEdge, headers: dict[str, str]) -> str:
    """The same for who shows these."""
    paths = ("/v1/status", "/v1/ledger?limit=1000", "/v1/models", "/metrics", "/healthz", "/readyz")
    told = [(await edge.request("GET", path, headers=headers)).body.decode() for path in paths]
    return "\n".join([*told, json.dumps(edge.edge.saved())])


def files_in(folder: Path) -> str:
    return "\n".join(path.read_bytes().decode("utf-8", "replace") for path in folder.rglob("*") if path.is_file())


async def items_of(client: Any, table: str) -> list[dict[str, Any]]:
    """Every item, in DynamoDB's JSON; of what is kept in bytes all that can be read, packed or not."""

    class Page(msgspec.Struct):
        Items: list[dict[str, Any]]

    page: Page = await client.call("Scan", {"TableName": table}, Page)
    return [{name: _readable(value) for name, value in item.items()} for item in page.Items]


def _readable(value: dict[str, Any]) -> dict[str, Any]:
    kind, kept = next(iter(value.items()))
    if kind == "B":
        return {kind: _texts_in(b64decode(kept))}
    if kind == "S":
        return {kind: " ".join([kept, *(_texts_in(b64decode(run)) for run in _BASE64.findall(kept))])}
    if kind == "M":
        return {kind: {name: _readable(inner) for name, inner in kept.items()}}
    return {kind: [_readable(inner) for inner in kept]} if kind == "L" else value


def _texts_in(kept: bytes) -> str:
    """The bytes as text, and unpacked where they are packed, with a byte before them or without."""
    found = [kept]
    for start, framing in ((0, 15), (1, 15), (0, -15), (1, -15)):
        with suppress(zlib.error):
            found.append(zlib.decompressobj(framing).decompress(kept[start:]))
    return " ".join(text.decode("utf-8", "replace") for text in found)
