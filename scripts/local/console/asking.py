"""The page's "try it" box: one prompt to one edge, as if from another place, streamed back as it comes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import aiohttp
import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from local.console.watch import failure_of

# An address from a network of each place; edges believe it because it comes from loopback, as X-Forwarded-For.
PLACES = {"": "", "tokyo": "133.11.0.1", "frankfurt": "194.25.0.125", "sao-paulo": "200.147.3.157"}
_MAX_TOKENS = 200
_CONNECT_SECONDS, _STALL_SECONDS = 2, 60
_PASSED_ON = ("content-type", "x-request-id")


class Wish(Struct, forbid_unknown_fields=True):
    """What the page sends. `fresh` asks for a new answer even where one is known."""

    edge: str
    model: Annotated[str, Meta(min_length=1, max_length=200)]
    prompt: Annotated[str, Meta(min_length=1, max_length=8000)]
    place: str = ""
    fresh: bool = False


class Refused(Exception):
    """The message says which field of the wish cannot be met."""


def wish_of(body: bytes, edges: Mapping[str, str]) -> Wish:
    """The checked wish. Raises Refused."""
    try:
        wish = msgspec.json.decode(body, type=Wish)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Refused(str(error)) from None
    if wish.edge not in edges:
        raise Refused(f"edge: there is no {wish.edge[:50]!r}")
    if wish.place not in PLACES:
        raise Refused(f"place: there is no {wish.place[:50]!r}")
    return wish


async def answer(wish: Wish, url: str, session: aiohttp.ClientSession, incoming: web.Request) -> web.StreamResponse:
    """Ask the edge at `url` and pass on its status, its own headers and every byte."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=_STALL_SECONDS)
    asking = session.post(f"{url}/v1/chat/completions", json=_request(wish), headers=_headers(wish), timeout=timeout)
    response: web.StreamResponse | None = None
    try:
        async with asking as reply:
            response = web.StreamResponse(status=reply.status, headers=_shown(reply.headers))
            await response.prepare(incoming)
            async for piece in reply.content.iter_any():
                await response.write(piece)
    except (aiohttp.ClientError, TimeoutError) as error:
        return await _broken(response, error)
    await response.write_eof()
    return response


async def _broken(response: web.StreamResponse | None, error: Exception) -> web.StreamResponse:
    """The edge did not answer, or went away in the middle: never the look of a whole answer."""
    said = msgspec.json.encode({"error": {"message": failure_of(error), "type": "edge_failed"}})
    if response is None:
        return web.Response(status=502, body=said, content_type="application/json")
    await response.write(b"\n\ndata: " + said + b"\n\n")
    await response.write_eof()
    return response


def _request(wish: Wish) -> dict[str, object]:
    messages = [{"role": "user", "content": wish.prompt}]
    usage = {"include_usage": True}
    return {
        "model": wish.model,
        "messages": messages,
        "stream": True,
        "stream_options": usage,
        "max_tokens": _MAX_TOKENS,
    }


def _headers(wish: Wish) -> dict[str, str]:
    headers = {"x-forwarded-for": PLACES[wish.place]} if wish.place else {}
    return {**headers, "x-isochrone-cache": "no-cache"} if wish.fresh else headers


def _shown(headers: Mapping[str, str]) -> dict[str, str]:
    lowered = {name.lower(): value for name, value in headers.items()}
    return {name: value for name, value in lowered.items() if name in _PASSED_ON or name.startswith("x-isochrone-")}
