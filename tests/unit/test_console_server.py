"""The console over real HTTP, with scripted edges behind it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import aiohttp
import pytest

from local.console import watch
from local.console.server import serving
from tests.fake_edge import ANSWER, FakeEdge, attempt, fakes, seen

pytestmark = pytest.mark.anyio

REGIONS = ("us-east-1", "eu-west-1", "ap-southeast-1")
WISH = {"edge": "eu-west-1", "model": "m", "prompt": "How far?"}


class Stage(NamedTuple):
    """A console, what stands behind it, and a client for it."""

    url: str
    edges: list[FakeEdge]
    pool: FakeEdge
    session: aiohttp.ClientSession

    async def snapshot(self) -> dict[str, Any]:
        async with self.session.get(f"{self.url}/snapshot") as reply:
            assert reply.status == 200
            picture: dict[str, Any] = await reply.json()
            return picture

    async def until(self, told: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first picture that tells so."""
        async with asyncio.timeout(10):
            while not told(picture := await self.snapshot()):  # noqa: ASYNC110 - it is told by HTTP
                await asyncio.sleep(0.05)
        return picture

    async def ask(self, **changes: Any) -> tuple[int, dict[str, str], str]:
        """(status, headers, body) of the "try it" box."""
        async with self.session.post(f"{self.url}/ask", json={**WISH, **changes}) as reply:
            return reply.status, {name.lower(): value for name, value in reply.headers.items()}, await reply.text()


@pytest.fixture
async def stage(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    monkeypatch.setattr(watch, "INTERVAL", 0.1)
    monkeypatch.setattr(watch, "PATIENCE", 0.5)
    async with (
        fakes(*REGIONS, "pool-eu") as (*edges, pool),
        aiohttp.ClientSession() as session,
        serving(0, {edge.name: edge.url for edge in edges}, {"pool-eu": pool.url}) as port,
    ):
        yield Stage(f"http://127.0.0.1:{port}", edges, pool, session)


def states(picture: dict[str, Any]) -> list[str]:
    return [edge["state"] for edge in picture["edges"]]


# -- pictures --------------------------------------------------------------------------------------------------------


async def test_snapshot_merges_what_three_edges_say(stage: Stage) -> None:
    for number, edge in enumerate(stage.edges):
        edge.backends = [seen(rtt_ms=10.0 * number, in_flight=number), seen("pool-us", region="us-east-1")]
        edge.entries = [attempt(number, request_id=f"of-{edge.name}")]
        edge.counters = {"answered_200": 5, "cache_hit": 2, "cache_miss": 3}
    picture = await stage.snapshot()
    assert states(picture) == ["healthy"] * 3
    assert [edge["sees"]["pool-eu"]["rtt_ms"] for edge in picture["edges"]] == [0.0, 10.0, 20.0]
    assert {one["name"]: one["in_flight"] for one in picture["backends"]} == {"pool-eu": 3, "pool-us": 0}
    assert [one["edge"] for one in picture["attempts"]] == ["ap-southeast-1", "eu-west-1", "us-east-1"]
    assert picture["totals"] | {"since": 0} == {
        "attempts": 3, "input_tokens": 30, "output_tokens": 15, "cost": 1.5, "since": 0,
    }  # fmt: skip
    assert picture["edges"][0]["cache"] == {"hit": 2, "miss": 3}
    assert picture["models"] == ["m"]


async def test_edge_that_dies_is_shown_so_and_shown_well_again_when_it_is_back(stage: Stage) -> None:
    assert states(await stage.snapshot()) == ["healthy"] * 3
    await stage.edges[1].stop()
    picture = await stage.until(lambda picture: "unreachable" in states(picture))
    assert states(picture) == ["healthy", "unreachable", "healthy"]
    assert picture["edges"][1]["failure"] == "refused"
    await stage.edges[1].start()
    await stage.until(lambda picture: states(picture) == ["healthy"] * 3)


async def test_edge_that_hangs_is_shown_as_silent_and_holds_nobody_else_up(stage: Stage) -> None:
    stage.edges[0].healthy = False
    async with asyncio.timeout(10):  # far above PATIENCE, far below what a client waits by itself
        picture = await stage.snapshot()
    assert [edge["failure"] for edge in picture["edges"]] == ["silent", None, None]


async def test_nobody_is_silent_for_two_seconds_before_it_shows() -> None:
    assert watch.INTERVAL + watch.PATIENCE < 2.0


async def test_something_else_on_an_edges_port_is_shown_as_odd(stage: Stage) -> None:
    stage.edges[2].odd = True
    assert (await stage.snapshot())["edges"][2]["failure"] == "odd"


async def test_standing_that_no_edge_can_mean_is_odd_and_not_believed(stage: Stage) -> None:
    stage.edges[2].backends = [seen(standing="<script>")]
    assert (await stage.snapshot())["edges"][2]["failure"] == "odd"


async def test_pool_that_dies_is_shown_so_while_edges_still_believe_in_it(stage: Stage) -> None:
    assert (await stage.snapshot())["backends"][0]["standing"] == "healthy"
    await stage.pool.stop()
    await stage.until(lambda picture: picture["backends"][0]["standing"] == "unreachable")
    await stage.pool.start()
    await stage.until(lambda picture: picture["backends"][0]["standing"] == "healthy")


async def test_ledger_that_cannot_be_read_leaves_the_rest_of_the_picture(stage: Stage) -> None:
    stage.edges[0].entries = [{"no": "entry"}]
    stage.edges[1].entries = [attempt(1)]
    picture = await stage.snapshot()
    assert states(picture) == ["healthy"] * 3
    assert picture["totals"]["attempts"] == 1


async def test_burst_longer_than_a_page_of_the_ledger_is_counted_whole(stage: Stage) -> None:
    stage.edges[0].entries = [attempt(1)]
    await stage.snapshot()
    stage.edges[0].entries += [attempt(number) for number in range(2, 302)]
    picture = await stage.until(lambda picture: bool(picture["totals"]["attempts"] > 1))
    assert picture["totals"]["attempts"] == 301


async def test_all_who_look_at_once_share_one_round_of_questions(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "INTERVAL", 60.0)
    await asyncio.gather(*(stage.snapshot() for _ in range(5)))
    assert sorted(stage.edges[0].asked) == ["ledger 100", "status"]


async def test_events_go_on_while_somebody_looks_and_then_nobody_is_asked(stage: Stage) -> None:
    async with stage.session.get(f"{stage.url}/events") as reply:
        assert reply.content_type == "text/event-stream"
        for _ in range(3):
            event = await reply.content.readuntil(b"\n\n")
            assert states(json.loads(event.removeprefix(b"data: "))) == ["healthy"] * 3
        reply.close()
    await asyncio.sleep(0.3)  # what was under way ends
    asked = len(stage.edges[0].asked)
    await asyncio.sleep(0.5)
    assert len(stage.edges[0].asked) == asked


# -- try it ----------------------------------------------------------------------------------------------------------


async def test_answer_is_passed_on_byte_by_byte_with_the_edges_own_headers_only(stage: Stage) -> None:
    status, headers, body = await stage.ask()
    assert (status, body.encode()) == (200, b"".join(ANSWER))
    assert headers["content-type"] == "text/event-stream"
    assert (headers["x-isochrone-backend"], headers["x-isochrone-reason"]) == ("pool-eu", "near")
    assert "x-private" not in headers


async def test_place_is_sent_as_an_address_from_there(stage: Stage) -> None:
    await stage.ask(place="tokyo")
    await stage.ask(place="")
    (from_tokyo, body), (from_here, _) = stage.edges[1].prompts
    assert from_tokyo["x-forwarded-for"] == "133.11.0.1"
    assert "x-forwarded-for" not in from_here
    assert (body["messages"], body["stream"]) == ([{"role": "user", "content": "How far?"}], True)


async def test_fresh_answer_is_asked_for_by_the_header(stage: Stage) -> None:
    await stage.ask(fresh=True)
    await stage.ask()
    assert [headers.get("x-isochrone-cache") for headers, _ in stage.edges[1].prompts] == ["no-cache", None]


async def test_edges_own_refusal_is_passed_on(stage: Stage) -> None:
    stage.edges[1].odd = True
    status, _, body = await stage.ask()
    assert (status, json.loads(body)["error"]["message"]) == (404, "no such model")


async def test_edge_that_is_gone_is_a_502(stage: Stage) -> None:
    await stage.edges[1].stop()
    status, _, body = await stage.ask()
    assert (status, json.loads(body)["error"]["message"]) == (502, "refused")


async def test_edge_that_dies_in_the_middle_never_looks_like_a_whole_answer(stage: Stage) -> None:
    stage.edges[1].dies = True
    status, _, body = await stage.ask()
    assert status == 200
    assert "[DONE]" not in body
    last = body.strip().rpartition("\n\n")[2].removeprefix("data: ")
    assert json.loads(last)["error"]["message"] == "refused"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"edge": "nowhere"}, "edge"),
        ({"place": "moon"}, "place"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": "x" * 8001}, "prompt"),
        ({"prompt": 7}, "prompt"),
        ({"url": "http://127.0.0.1:1"}, "url"),
    ],
)
async def test_wish_that_cannot_be_met_is_a_400_that_names_the_field(
    stage: Stage, changes: dict[str, Any], named: str
) -> None:
    status, _, body = await stage.ask(**changes)
    assert status == 400
    assert named in json.loads(body)["error"]["message"]
    assert stage.edges[1].prompts == []


async def test_body_that_is_no_json_or_much_too_long_is_refused(stage: Stage) -> None:
    for body, expected in ((b"{", 400), (b"\xff", 400), (b"[" * 70_000, 413)):
        headers = {"content-type": "application/json"}
        async with stage.session.post(f"{stage.url}/ask", data=body, headers=headers) as reply:
            assert reply.status == expected


# -- who may look ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "localhost:1", ""])
@pytest.mark.parametrize("path", ["/", "/snapshot", "/events"])
async def test_name_of_somebody_else_gets_nothing(stage: Stage, host: str, path: str) -> None:
    port = stage.url.rpartition(":")[2]
    async with stage.session.get(stage.url + path, headers={"host": host.format(port=port)}) as reply:
        assert reply.status in (400, 421)
        assert "edges" not in await reply.text()
    assert stage.edges[0].asked == []


async def test_localhost_is_a_name_of_its_own(stage: Stage) -> None:
    port = stage.url.rpartition(":")[2]
    async with stage.session.get(stage.url, headers={"host": f"LocalHost:{port}"}) as reply:
        assert reply.status == 200


async def test_page_from_elsewhere_cannot_ask(stage: Stage) -> None:
    for headers, expected in (
        ({"origin": "http://evil.example", "content-type": "application/json"}, 403),
        ({"origin": "null", "content-type": "application/json"}, 403),
        ({"content-type": "text/plain"}, 415),  # what a form can send without asking first
        ({"origin": stage.url, "content-type": "application/json"}, 200),
    ):
        async with stage.session.post(f"{stage.url}/ask", data=json.dumps(WISH), headers=headers) as reply:
            assert reply.status == expected
    assert len(stage.edges[1].prompts) == 1


async def test_only_loopback_is_listened_on(stage: Stage) -> None:
    with socket.socket() as other:
        assert other.connect_ex(("127.0.0.2", int(stage.url.rpartition(":")[2]))) != 0


@pytest.mark.parametrize("path", ["/", "/console.js", "/console.css", "/world.svg", "/snapshot", "/events", "/nowhere"])
async def test_every_reply_has_the_policy_that_lets_nothing_in_from_elsewhere(stage: Stage, path: str) -> None:
    async with stage.session.get(stage.url + path) as reply:
        policy = dict(part.strip().split(" ", 1) for part in reply.headers["content-security-policy"].split(";"))
        assert reply.headers["x-content-type-options"] == "nosniff"
    assert policy["default-src"] == "'none'"
    assert "unsafe" not in "".join(policy.values())
    assert {word for value in policy.values() for word in value.split()} == {"'none'", "'self'", "data:"}


async def test_page_and_its_files_come_with_their_types(stage: Stage) -> None:
    types = {
        "/": "text/html",
        "/console.js": "text/javascript",
        "/console.css": "text/css",
        "/world.svg": "image/svg+xml",
    }
    for path, expected in types.items():
        async with stage.session.get(stage.url + path) as reply:
            assert (reply.status, reply.content_type) == (200, expected)


async def test_page_starts_without_any_edge(stage: Stage) -> None:
    for edge in stage.edges:
        await edge.stop()
    picture = await stage.snapshot()
    assert states(picture) == ["unreachable"] * 3
    assert picture["backends"] == []
    async with stage.session.get(stage.url) as reply:
        assert reply.status == 200
