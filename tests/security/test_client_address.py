"""Who a caller is, by address: one value for location, allow-list, limits and audit, that a caller cannot choose.

    SPOOFS   what a caller may write into headers to seem to be somebody else
    SHAPES   how a request reaches an edge, as a table: name -> the request that the platform makes of such headers

Every spoof is tried in every shape. The true caller is in Sweden, who they want to be is in Britain.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from isochrone.api.exchange import Request
from isochrone.doors.events import convert, request_of
from tests.faults.harness import RunningEdge, backend, running_edge
from tests.upstream import Upstream

KEY = {"id": "k", "tenant": "t", "sha256": sha256(b"the-key").hexdigest(), "networks": ["203.0.113.0/24"]}
BEARER = {"authorization": "Bearer the-key"}


CLIENT, WANTED = "89.160.20.112", "81.2.69.160"
DATABASE = Path(__file__).parents[1] / "data/geoip/GeoIP2-City-Test.mmdb"
CLIENTS_KEY = {"id": "c", "tenant": "t", "sha256": sha256(b"clients").hexdigest(), "networks": [f"{CLIENT}/32"]}
WANTED_KEY = {"id": "w", "tenant": "t", "sha256": sha256(b"wanted").hexdigest(), "networks": [f"{WANTED}/32"]}
Headers = list[tuple[str, str]]

_FORWARDED = (
    *(WANTED, f"{WANTED}, {WANTED}", f" {WANTED} ", f"{WANTED}:443", f"::ffff:{WANTED}", f"[::ffff:{WANTED}]:1"),
    *("127.0.0.1", "::1", "10.0.0.1", "169.254.169.254", "localhost", "unknown", "_hidden", "", ",", "é"),
    *("1359103392", "0x510245a0", "0121.0002.0105.0240", f"{WANTED}%eth0", "fe80::1%25eth0", f'"{WANTED}"'),
    *(f"for={WANTED}", f"{WANTED};{WANTED}", f"{WANTED}\t{WANTED}", f"{WANTED}," * 300 + WANTED),
)
_OTHER_NAMES = (
    *("X-Real-IP", "X-Client-IP", "Client-IP", "True-Client-IP", "CF-Connecting-IP", "CF-Connecting-IPv6"),
    *("CF-Pseudo-IPv4", "Fastly-Client-IP", "Fly-Client-IP", "DO-Connecting-IP", "X-Cluster-Client-IP"),
    *("X-Forwarded", "Forwarded-For", "X-Original-Forwarded-For", "X-Originating-IP", "X-Remote-IP", "X-Remote-Addr"),
    *("Remote-Addr", "X-ProxyUser-Ip", "X-Envoy-External-Address", "X-Appengine-User-Ip", "X-Azure-ClientIP"),
    *("X-Azure-SocketIP", "X-Vercel-Forwarded-For", "X-Amzn-Source-Ip", "X-Source-Ip", "Via", "X-Isochrone-Client"),
    *("X_Forwarded_For", "X-Forwarded_For", "x_real_ip", "HTTP_X_FORWARDED_FOR"),
)
SPOOFS: list[Headers] = [
    *([("X-Forwarded-For", value)] for value in _FORWARDED),
    *([(name, WANTED)] for name in _OTHER_NAMES),
    [("Forwarded", f"for={WANTED}")],
    [("Forwarded", f'for="[::ffff:{WANTED}]";by=10.0.0.1;proto=https')],
    [("X-Forwarded-For", WANTED), ("X-Real-IP", WANTED), ("Forwarded", f"for={WANTED}")],
    [("Connection", "close, X-Forwarded-For"), ("X-Forwarded-For", WANTED)],
]


def listed(headers: Headers) -> dict[str, list[str]]:
    lists: dict[str, list[str]] = {}
    for name, value in headers:
        lists.setdefault(name, []).append(value)
    return lists


def joined(headers: Headers) -> dict[str, str]:
    return {name: ", ".join(values) for name, values in listed(headers).items()}


def appended(headers: Headers, name: str = "X-Forwarded-For") -> Headers:
    """As a proxy that saw CLIENT passes them on."""
    before = [value for known, value in headers if known == name]
    others = [(known, value) for known, value in headers if known != name]
    return [*others, (name, ", ".join([*before, CLIENT]))]


def rest(headers: Headers, **more: Any) -> dict[str, Any]:
    context = {"identity": {"sourceIp": CLIENT}}
    event = {"httpMethod": "GET", "path": "/v1/status", "requestContext": context}
    return {**event, "headers": dict(headers), "multiValueHeaders": listed(headers), **more}


def second(headers: Headers) -> dict[str, Any]:
    context = {"http": {"method": "GET", "sourceIp": CLIENT}}
    return {"version": "2.0", "rawPath": "/v1/status", "requestContext": context, "headers": joined(headers)}


def balancer(**more: Any) -> dict[str, Any]:
    context = {"elb": {"targetGroupArn": "arn"}}
    return {"httpMethod": "GET", "path": "/v1/status", "requestContext": context, **more}


SHAPES: dict[str, Callable[[Headers], dict[str, Any]]] = {
    "REST API": rest,
    "HTTP API, payload 1.0": lambda headers: rest(headers, version="1.0"),
    "HTTP API, payload 2.0": second,
    "Function URL": lambda headers: {**second(headers), "routeKey": "$default"},
    "ALB": lambda headers: balancer(headers=dict(appended(headers))),
    "ALB with lists": lambda headers: balancer(multiValueHeaders=listed(appended(headers))),
}


@pytest.fixture
async def guarded(upstream: Upstream) -> AsyncIterator[RunningEdge]:
    """Finds places, and has a key for the caller's own address and one for the address that they want."""
    keys = [CLIENTS_KEY, WANTED_KEY]
    async with running_edge(
        backend(upstream), key=keys, auth={"required": True}, geo={"database": str(DATABASE)}
    ) as edge:
        yield edge


async def verdict(edge: RunningEdge, request: Request, key: str) -> tuple[int, str, str | None]:
    """The status, and the address and country that limits and audit hear of."""
    request.headers = {**request.headers, "authorization": f"Bearer {key}"}
    reply = await edge.edge.handle(request)
    return reply.status, request.trail.address, request.trail.country


@pytest.mark.parametrize("shape", SHAPES)
async def test_no_header_makes_a_caller_somebody_else(guarded: RunningEdge, shape: str) -> None:
    for headers in ([], *SPOOFS):
        asked = [request_of(convert(SHAPES[shape](headers)), time_left=None) for _ in range(2)]
        assert await verdict(guarded, asked[0], "clients") == (200, CLIENT, "SE"), headers
        assert await verdict(guarded, asked[1], "wanted") == (403, CLIENT, "SE"), headers


async def test_balancer_that_sends_two_lines_of_addresses_names_nobody(guarded: RunningEdge) -> None:
    """Which of them it went on with is not known, so a key that is bound to addresses is refused."""
    for lines in ([WANTED, CLIENT], [CLIENT, WANTED], [CLIENT, CLIENT]):
        event = balancer(multiValueHeaders={"x-forwarded-for": lines})
        asked = [request_of(convert(event), time_left=None) for _ in range(2)]
        assert await verdict(guarded, asked[0], "clients") == (403, "", None)
        assert await verdict(guarded, asked[1], "wanted") == (403, "", None)


async def test_balancer_without_the_header_names_nobody(guarded: RunningEdge) -> None:
    request = request_of(convert(balancer(headers={"x-real-ip": CLIENT})), time_left=None)
    assert await verdict(guarded, request, "clients") == (403, "", None)


async def address_seen(edge: RunningEdge, headers: Headers) -> dict[str, Any]:
    shown = (await edge.request("GET", "/v1/status", headers=headers)).fields["client"]
    return {name: shown[name] for name in ("address", "country")}


async def test_local_server_believes_nobody_who_is_no_proxy(upstream: Upstream) -> None:
    geo = {"database": str(DATABASE), "trusted_proxies": ["10.0.0.0/8"]}
    async with running_edge(backend(upstream), geo=geo) as edge:
        for headers in SPOOFS:
            assert await address_seen(edge, headers) == {"address": "127.0.0.1", "country": None}, headers


@pytest.mark.parametrize("in_a_line_of_its_own", [False, True])
async def test_local_server_believes_a_proxy_only_what_it_saw_itself(
    upstream: Upstream, in_a_line_of_its_own: bool
) -> None:
    async with running_edge(backend(upstream), geo={"database": str(DATABASE)}) as edge:
        for headers in SPOOFS:
            sent = [*headers, ("X-Forwarded-For", CLIENT)] if in_a_line_of_its_own else appended(headers)
            assert await address_seen(edge, sent) == {"address": CLIENT, "country": "SE"}, headers


def test_there_are_sixty_spoofs() -> None:
    assert len(SPOOFS) >= 60


async def test_forwarded_address_is_believed_from_a_trusted_peer_only(upstream: Upstream) -> None:
    forwarded = {"x-forwarded-for": "203.0.113.9"}
    async with running_edge(backend(upstream)) as edge:
        believed = await edge.request("GET", "/v1/status", headers=forwarded)
        assert believed.fields["client"]["address"] == "203.0.113.9"
    async with running_edge(backend(upstream), geo={"trusted_proxies": ["10.0.0.0/8"]}) as edge:
        doubted = await edge.request("GET", "/v1/status", headers=forwarded)
        assert doubted.fields["client"]["address"] == "127.0.0.1"


async def test_header_sent_twice_counts_from_the_right(upstream: Upstream) -> None:
    async with running_edge(backend(upstream)) as edge:
        headers = [("x-forwarded-for", "203.0.113.9"), ("x-forwarded-for", "198.51.100.7")]
        answer = await edge.request("GET", "/v1/status", headers=headers)
        assert answer.fields["client"]["address"] == "198.51.100.7"


@pytest.mark.parametrize(
    ("forwarded", "status"),
    [
        ("203.0.113.9", 200),
        ("[::ffff:203.0.113.9]:443", 200),
        ("198.51.100.7", 403),
        ("203.0.113.9, 198.51.100.7", 403),
        ("203.0.113.9, unknown", 403),
        ("nonsense", 403),
    ],
)
async def test_key_with_networks_is_refused_from_anywhere_else(upstream: Upstream, forwarded: str, status: int) -> None:
    async with running_edge(backend(upstream), key=[KEY], auth={"required": True}) as edge:
        answer = await edge.chat(headers={**BEARER, "x-forwarded-for": forwarded})
        assert answer.status == status
        assert len(upstream.requests) == (status == 200)


async def test_secrets_appear_in_no_reply(upstream: Upstream) -> None:
    facts = backend(upstream, "unauthorized", api_key_env="POOL_KEY")
    async with running_edge(facts, key=[KEY], auth={"required": True}) as edge:
        headers = {**BEARER, "x-forwarded-for": "203.0.113.9"}
        replies = [await edge.chat(headers=headers), await edge.chat(headers={"authorization": "Bearer guessed-key"})]
        replies += [await edge.request("GET", path, headers=headers) for path in ("/v1/status", "/v1/ledger")]
        replies.append(await edge.request("GET", "/metrics"))
        seen = b"".join(reply.body + repr(reply.headers).encode() for reply in replies)
        for secret in (b"the-key", b"pool-secret", b"guessed-key", KEY["sha256"].encode()):  # type: ignore[attr-defined]
            assert secret not in seen


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/m", "/v1/status", "/v1/ledger"])
async def test_every_route_that_tells_something_wants_a_key(upstream: Upstream, path: str) -> None:
    async with running_edge(backend(upstream), key=[KEY], auth={"required": True}) as edge:
        answer = await edge.request("GET", path)
        assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
        assert answer.headers["www-authenticate"] == "Bearer"
