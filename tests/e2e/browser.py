"""A real browser for tests: Chromium without a screen, driven over its DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import itertools
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
_START_SECONDS = 30.0
_FLAGS = (
    "--headless", "--hide-scrollbars", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--no-first-run", "--remote-debugging-port=0",
    "about:blank",
)  # fmt: skip


class Tab:
    """One page. `requested` has every URL that it asked for, `complaints` what its console said went wrong."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.requested: list[str] = []
        self.complaints: list[str] = []

    async def listen(self) -> None:
        """Take what the browser says, until the tab is closed."""
        async for message in self._socket:
            said = message.json()
            if "id" in said:
                self._waiting.pop(said["id"]).set_result(said)
            else:
                self._note(said["method"], said["params"])

    def _note(self, event: str, facts: dict[str, Any]) -> None:
        if event == "Network.requestWillBeSent":
            self.requested.append(facts["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(str(facts["exceptionDetails"]))
        elif event == "Log.entryAdded" and facts["entry"]["level"] == "error":
            self.complaints.append(facts["entry"]["text"])

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the DevTools protocol."""
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        said = await asyncio.wait_for(answer, _START_SECONDS)
        assert "error" not in said, said
        result: dict[str, Any] = said["result"]
        return result

    async def open(self, url: str, *, width: int = 1280, language: str = "en-US", scheme: str = "light") -> None:
        """Go to `url` as a browser of this width, language and colour scheme would."""
        for domain in ("Page", "Network", "Runtime", "Log"):
            await self.call(f"{domain}.enable")
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
        )
        agent = await self.evaluate("navigator.userAgent")
        await self.call("Emulation.setUserAgentOverride", userAgent=agent, acceptLanguage=language)
        await self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        await self.call("Page.navigate", url=url)
        await self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        said = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in said, said
        return said["result"].get("value")

    async def until(self, expression: str, within: float = 20.0) -> None:
        """Wait until the expression is true."""
        deadline = asyncio.get_running_loop().time() + within
        while not await self.evaluate(expression):
            assert asyncio.get_running_loop().time() < deadline, f"not so within {within:g} s: {expression}"
            await asyncio.sleep(0.05)

    async def picture(self) -> bytes:
        """The whole page, as long as it is, as a PNG."""
        size = (await self.call("Page.getLayoutMetrics"))["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        said = await self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        return base64.b64decode(said["data"])


@asynccontextmanager
async def tab(folder: Path) -> AsyncIterator[Tab]:
    """A tab of a browser of its own, whose profile is an empty `folder`."""
    assert CHROMIUM
    process = await asyncio.create_subprocess_exec(
        CHROMIUM, *_FLAGS, f"--user-data-dir={folder}",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        port = await _port(folder / "DevToolsActivePort")
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/json/list") as reply:
            url = next(target for target in await reply.json() if target["type"] == "page")["webSocketDebuggerUrl"]
            async with session.ws_connect(url, max_msg_size=0) as socket, _listening(Tab(socket)) as listening:
                yield listening
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _port(file: Path) -> int:
    async with asyncio.timeout(_START_SECONDS):
        while not (lines := _lines(file)):  # noqa: ASYNC110 - another process writes it, and no event tells
            await asyncio.sleep(0.05)
    return int(lines[0])


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


@asynccontextmanager
async def _listening(tab: Tab) -> AsyncIterator[Tab]:
    listening = asyncio.create_task(tab.listen())
    try:
        yield tab
    finally:
        listening.cancel()
        with suppress(asyncio.CancelledError):
            await listening
