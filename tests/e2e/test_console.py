"""The console page: in a real browser with scripted edges, and as `make run` serves it."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from local.console.server import serving
from local.ports import holder
from tests.e2e.browser import CHROMIUM, Tab, tab
from tests.e2e.running import PORTS, Edge, Run
from tests.fake_edge import FakeEdge, attempt, fakes, seen

pytestmark = pytest.mark.anyio
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium or chrome on the PATH: apt install chromium")

REGIONS = ("us-east-1", "eu-west-1", "ap-southeast-1")


class Stage(NamedTuple):
    """A page in a browser, and the edges and the pool behind its console."""

    page: Tab
    url: str
    edges: list[FakeEdge]
    pool: FakeEdge

    async def reads(self, part: str, words: str) -> None:
        """Wait until a part of the page says so."""
        await self.page.until(f"byId({part!r}).innerText.includes({words!r})")


@asynccontextmanager
async def staged(folder: Path, *, width: int = 1280, language: str = "en-US") -> AsyncIterator[Stage]:
    async with (
        fakes(*REGIONS, "pool-eu") as (*edges, pool),
        serving(0, {edge.name: edge.url for edge in edges}, {"pool-eu": pool.url}) as port,
        tab(folder) as page,
    ):
        for edge in edges:
            edge.backends = [seen(), seen("pool-us", region="us-east-1", location=[38.95, -77.45], standing="trial")]
            edge.entries = [attempt(1, outcome="<img src=x onerror=alert(1)>")]
        await page.open(f"http://127.0.0.1:{port}/", width=width, language=language)
        await page.until("picture !== null")
        yield Stage(page, f"http://127.0.0.1:{port}/", edges, pool)


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(tmp_path) as one:
        yield one


@in_browser
async def test_page_shows_edges_and_pools_and_asks_nobody_else(stage: Stage) -> None:
    await stage.reads("counts", "3 of 3 edges answer, 2 of 2 backends take requests")
    assert await stage.page.evaluate("document.querySelectorAll('#marks .ring').length") == 3
    assert await stage.page.evaluate("document.querySelectorAll('#marks > .sign[data-state=trial]').length") == 1
    assert await stage.page.evaluate("byId('map').getBoundingClientRect().height > 100")
    assert {url for url in stage.page.requested if not url.startswith((stage.url, "data:", "about:"))} == set()
    assert stage.page.complaints == []


@in_browser
async def test_table_says_in_words_what_the_map_draws(stage: Stage) -> None:
    head = await stage.page.evaluate("[...document.querySelectorAll('#health thead th')].map((one) => one.innerText)")
    first = await stage.page.evaluate("document.querySelector('#health tbody tr').innerText")
    assert head == ["Edge", "pool-eu", "pool-us"]
    assert re.findall(r"us-east-1|healthy|on trial|80 ms measured", first) == [
        "us-east-1", "healthy", "80 ms measured", "on trial", "80 ms measured",
    ]  # fmt: skip


@in_browser
async def test_edge_and_pool_that_die_are_told_and_their_return_too(stage: Stage) -> None:
    await stage.edges[0].stop()
    await stage.reads("changes", "us-east-1: unreachable (connection refused or broken)")
    await stage.pool.stop()
    await stage.reads("changes", "pool-eu: unreachable (connection refused or broken)")
    await stage.reads("counts", "2 of 3 edges answer, 1 of 2 backends take requests")
    await stage.edges[0].start()
    await stage.pool.start()
    await stage.reads("counts", "3 of 3 edges answer, 2 of 2 backends take requests")
    assert stage.page.complaints == []


@in_browser
async def test_answer_streams_in_as_text_with_its_headers(stage: Stage) -> None:
    await stage.page.evaluate("byId('edge').value = 'eu-west-1', byId('asking').requestSubmit()")
    await stage.reads("progress", "Complete: first token after")
    assert await stage.page.evaluate("byId('answer').innerText") == "<b>Ça va</b>, 海."
    await stage.reads("headers", "x-isochrone-backend")
    assert stage.edges[1].prompts[0][0]["x-forwarded-for"] == "133.11.0.1"


@in_browser
async def test_answer_that_breaks_off_is_not_called_complete(stage: Stage) -> None:
    stage.edges[1].dies = True
    await stage.page.evaluate("byId('edge').value = 'eu-west-1', byId('asking').requestSubmit()")
    await stage.reads("progress", "Failed: connection refused or broken")


@in_browser
async def test_markup_from_a_ledger_is_shown_as_text(stage: Stage) -> None:
    await stage.reads("attempts", "<img src=x onerror=alert(1)>")
    assert await stage.page.evaluate("document.images.length") == 0
    assert stage.page.complaints == []


@in_browser
async def test_language_can_be_switched_and_is_remembered(stage: Stage) -> None:
    await stage.page.evaluate("document.querySelector('#languages [value=zh]').click()")
    await stage.reads("counts", "3/3 个边缘节点有响应")
    assert await stage.page.evaluate("document.documentElement.lang") == "zh-Hans"
    await stage.page.call("Page.reload")
    await stage.page.until("document.readyState === 'complete' && document.title === 'Isochrone 控制台'")


@in_browser
@pytest.mark.parametrize(
    ("language", "words"), [("en-US", "Health and distance"), ("zh-CN", "健康与距离")], ids=["English", "Chinese"]
)
async def test_phone_sees_the_whole_page_in_its_language(tmp_path: Path, language: str, words: str) -> None:
    async with staged(tmp_path, width=390, language=language) as stage:
        await stage.reads("health-title", words)
        assert await stage.page.evaluate("document.documentElement.scrollWidth") == 390


@in_browser
async def test_console_that_dies_is_told_by_the_page(tmp_path: Path) -> None:
    async with tab(tmp_path) as page, fakes("eu-west-1") as (edge,):
        async with serving(0, {"eu-west-1": edge.url}, {}) as port:
            await page.open(f"http://127.0.0.1:{port}/")
            await page.until("picture !== null")
        await page.until("!byId('lost').hidden")
        async with serving(port, {"eu-west-1": edge.url}, {}):
            await page.until("byId('lost').hidden")


# -- with everything that `make run` starts --------------------------------------------------------------------------


@pytest.fixture
def console(edition: Run) -> Edge:
    return Edge(f"http://127.0.0.1:{edition.ports + PORTS - 1}")


def test_banner_names_the_page_and_it_shows_the_three_edges_and_their_pools(edition: Run, console: Edge) -> None:
    assert f"page  {console.url} " in edition.said
    picture = console.request("/snapshot").json()
    assert [(edge["name"], edge["state"]) for edge in picture["edges"]] == [(name, "healthy") for name in REGIONS]
    assert {name for edge in picture["edges"] for name in edge["sees"]} == {"pool-us", "pool-eu", "pool-ap"}
    assert all(one["place"] for one in [*picture["edges"], *picture["backends"]])


def test_prompt_from_frankfurt_is_answered_by_the_pool_there_and_shows_in_the_ledger(console: Edge) -> None:
    wish = {"edge": "us-east-1", "model": "smollm2-135m", "prompt": "One word, please.", "place": "frankfurt"}
    reply = console.request("/ask", {**wish, "fresh": True})
    assert reply.status == 200
    assert reply.headers["x-isochrone-backend"] == "pool-eu"
    assert reply.text.rstrip().endswith("data: [DONE]")
    listed = until_listed(console, reply.headers["x-request-id"])
    assert (listed["edge"], listed["backend"], listed["outcome"]) == ("us-east-1", "pool-eu", "ok")
    assert listed["output_tokens"] > 0


def until_listed(console: Edge, request_id: str) -> dict[str, Any]:
    """The attempt, once the console shows it."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for one in console.request("/snapshot").json()["attempts"]:
            if one["request_id"] == request_id:
                return dict(one)
        time.sleep(0.2)
    raise AssertionError(f"{request_id} is not among the attempts")


def test_death_of_the_console_stops_nothing_else(edition: Run, console: Edge) -> None:
    found = re.search(r"pid (\d+)", holder(edition.ports + PORTS - 1))
    assert found
    os.kill(int(found[1]), signal.SIGKILL)
    edition.wait_for("console was ended by SIGKILL", 10)
    assert edition.process.poll() is None
    assert edition.edge(1).request("/readyz").status == 200
