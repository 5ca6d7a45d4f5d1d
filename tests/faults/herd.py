"""A herd of identical requests at edges that are processes over one table, and what must hold when they are killed.

    python -m tests.faults.herd                     # everything, about five minutes
    python -m tests.faults.herd --only kill --times 100

The backend runs in this process and counts its calls by prompt; every byte goes through a socket. The emulator of the
table shares this machine with all of them, so that edges are patient with it: what is tested is not its speed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from random import Random
from unittest.mock import patch
from uuid import uuid4

import aiohttp
from msgspec import Struct, field

from tests.upstream import TEXT, WORDS, Exchange, Upstream, completion, ending, refusal, words

REGION = "us-east-1"
# The text is told within about this time.
TELLING_SECONDS = 1.2
DEADLINE_SECONDS = 20.0
_PATIENT_SECONDS = 5.0
_SLACK_SECONDS = 1.0
# By then edges know from the table only.
_FORGOTTEN_SECONDS = 1.5
_START_SECONDS = 60.0
_CONFIG = """
[service]
name = "{service}"
[state]
kind = "dynamodb"
endpoint_url = "{cloud}"
spool = "{spool}"
[[region]]
name = "us-east-1"
[[backend]]
name = "pool"
region = "us-east-1"
base_url = "{base_url}"
max_concurrency = 1000
models = {{ m = "herd" }}
[retry]
attempts = 1
[routing]
probe_interval = 0
[answers]
ttl = {ttl}
memory_ttl = 1
[auth]
required = false
"""


class Backend:
    """A backend that tells its text word by word; `calls` are counted by prompt. The first call for one of `failing` is
    refused at once, and that for one of `stuck` says nothing until `go_on`."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.calls: Counter[str] = Counter()
        self.left: Counter[str] = Counter()
        self.failing: set[str] = set()
        self.stuck: set[str] = set()
        self.go_on = asyncio.Event()
        upstream.scripts["herd"] = self._tell

    def was_asked(self, prompts: Sequence[str]) -> bool:
        """For all of them."""
        return all(self.calls[prompt] for prompt in prompts)

    async def _tell(self, exchange: Exchange) -> None:
        prompt = exchange.received.fields["messages"][-1]["content"]
        self.calls[prompt] += 1
        first = self.calls[prompt] == 1
        try:
            if first and prompt in self.failing:
                await refusal(503, "overloaded")(exchange)
            elif first and prompt in self.stuck:
                await self.go_on.wait()
                await self._say(exchange, " (at last)")
            else:
                await self._say(exchange)
        finally:
            self.left[prompt] += exchange.received.client_left.is_set()

    async def _say(self, exchange: Exchange, more: str = "") -> None:
        texts = [*WORDS, more] if more else list(WORDS)
        pause = TELLING_SECONDS / len(texts)
        if not exchange.wants_stream:
            await _slept(exchange, TELLING_SECONDS)
            await exchange.json(completion({"content": "".join(texts)}))
            return
        await exchange.begin_stream()
        for piece in [*words(texts), *ending(exchange)]:
            await exchange.send(piece)
            await _slept(exchange, pause)
        await exchange.end()


async def _slept(exchange: Exchange, seconds: float) -> None:
    """Raises ConnectionError when the caller has left meanwhile."""
    with suppress(TimeoutError):
        await asyncio.wait_for(exchange.received.client_left.wait(), seconds)
        raise ConnectionResetError


class Told(Struct, kw_only=True):
    """What one client got: `text` of a whole answer, None of any other; `status` is 0 where the connection broke."""

    status: int
    cache: str = ""
    text: str | None = None
    seconds: float = 0.0
    error: str = ""


class Edge:
    """One `isochrone serve`."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, session: aiohttp.ClientSession) -> None:
        self.process = process
        self.url = url
        self._session = session

    async def ask(self, prompt: str, *, stream: bool, on_first: Callable[[], None] | None = None) -> Told:
        """One answer, read to its end."""
        asked = {"model": "m", "stream": stream, "messages": [{"role": "user", "content": prompt}]}
        headers = {"x-isochrone-timeout": str(DEADLINE_SECONDS)}
        begun, body = time.monotonic(), bytearray()
        try:
            async with self._session.post(self.url + "/v1/chat/completions", json=asked, headers=headers) as reply:
                async for piece in reply.content.iter_any():
                    body += piece
                    if on_first:
                        on_first()
        except aiohttp.ClientError as error:
            return Told(status=0, error=str(error), seconds=time.monotonic() - begun)
        return Told(
            status=reply.status,
            cache=reply.headers.get("x-isochrone-cache", ""),
            text=text_of(bytes(body), stream=stream) if reply.status == 200 else None,
            seconds=time.monotonic() - begun,
            error="" if reply.status == 200 else body.decode(),
        )

    def send(self, number: signal.Signals) -> None:
        """SIGKILL, SIGSTOP, SIGCONT."""
        self.process.send_signal(number)


def text_of(body: bytes, *, stream: bool) -> str | None:
    """None for a stream that did not come to its end."""
    if not stream:
        text: str = json.loads(body)["choices"][0]["message"]["content"]
        return text
    events = [line[6:] for line in body.split(b"\n") if line.startswith(b"data: ")]
    if events[-1:] != [b"[DONE]"]:
        return None
    chunks = [json.loads(event) for event in events[:-1]]
    return "".join(choice["delta"].get("content") or "" for one in chunks for choice in one.get("choices", ()))


class Herd:
    """Edges over one table, and the backend behind them."""

    def __init__(self, backend: Backend, start: Callable[[], Awaitable[Edge]], edges: list[Edge]) -> None:
        self.backend = backend
        self.edges = edges
        self._start = start

    async def ask_all(self, prompt: str, edges: Sequence[Edge], count: int) -> list[Told]:
        """So many at once, in turn at each edge; every other one wants a stream."""
        asking = [edges[at % len(edges)].ask(prompt, stream=at // len(edges) % 2 == 0) for at in range(count)]
        return await asyncio.gather(*asking)

    async def replace(self, edge: Edge) -> None:
        """A new process in place of one that was killed."""
        await edge.process.wait()
        self.edges[self.edges.index(edge)] = await self._start()


def _prompt() -> str:
    return f"How far is it? ({uuid4().hex})"


class Report(Struct, kw_only=True):
    """`calls` is how many calls of the backend each prompt took, and how often that was so."""

    what: str
    requests: int = 0
    calls: Counter[int] = field(default_factory=Counter)
    slowest_s: float = 0.0
    caches: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def judge(self, told: Sequence[Told], calls: int, *, most: int, text: str = TEXT) -> None:
        """Every answer is whole and in time, and they took at most so many calls."""
        self.requests += len(told)
        self.calls[calls] += 1
        self.slowest_s = max([self.slowest_s, *(one.seconds for one in told)])
        self.caches.update(one.cache for one in told)
        if not 1 <= calls <= most:
            self.faults.append(f"{calls} calls for one prompt")
        self.faults += [f"{one.status} {one.text!r} {one.error}" for one in told if one.text != text]
        late = [one.seconds for one in told if one.seconds > DEADLINE_SECONDS + _SLACK_SECONDS]
        self.faults += [f"{seconds:.1f} s" for seconds in late]


# -- what is done to them ----------------------------------------------------------------------------------------------


async def at_once(herd: Herd, count: int = 100) -> Report:
    """Identical requests at once over all edges: one call."""
    report, prompt = Report(what=f"{count} at once over {len(herd.edges)} processes"), _prompt()
    told = await herd.ask_all(prompt, herd.edges, count)
    report.judge(told, herd.backend.calls[prompt], most=1)
    return report


async def expiry(herd: Herd, ttl: int, count: int = 500) -> Report:
    """Identical requests at the moment when what was known expires: one call."""
    report, prompt = Report(what=f"{count} at the moment of expiry over {len(herd.edges)} processes"), _prompt()
    await herd.edges[0].ask(prompt, stream=True)
    await asyncio.sleep(ttl * 1.15)
    before = herd.backend.calls[prompt]
    told = await herd.ask_all(prompt, herd.edges, count)
    report.judge(told, herd.backend.calls[prompt] - before, most=1)
    return report


async def kill(herd: Herd, times: int, chance: Random, lanes: int = 4) -> Report:
    """The holder of `lanes` generations is killed at a random moment, until `times` of them have lost theirs: at most
    two calls for each, every follower gets the whole text in time, and what is known afterwards is that text."""
    report = Report(what=f"{times} holders killed at a random moment")
    while sum(report.calls.values()) < times:
        prompts = [_prompt() for _ in range(min(lanes, times - sum(report.calls.values())))]
        holder, others = herd.edges[0], herd.edges[1:]
        first = [asyncio.create_task(holder.ask(prompt, stream=chance.random() < 0.5)) for prompt in prompts]
        await _until(partial(herd.backend.was_asked, prompts))
        following = [asyncio.create_task(herd.ask_all(prompt, others, 2 * len(others))) for prompt in prompts]
        await asyncio.sleep(chance.uniform(0, TELLING_SECONDS * 2))
        holder.send(signal.SIGKILL)
        for prompt, told in zip(prompts, await asyncio.gather(*following), strict=True):
            report.judge(told, herd.backend.calls[prompt], most=2)
        await asyncio.gather(*first)
        await herd.replace(holder)
        for prompt in prompts:
            known = await herd.edges[0].ask(prompt, stream=False)
            report.faults += [] if known.text == TEXT else [f"known afterwards: {known}"]
    return report


async def pause(herd: Herd) -> Report:
    """The holder sleeps past its lease and wakes: a successor has answered. What the woken one is told then, another
    answer, goes to its own client and is not kept."""
    report, prompt = Report(what="a holder paused past its lease"), _prompt()
    herd.backend.stuck.add(prompt)
    holder, others = herd.edges[0], herd.edges[1:]
    first = asyncio.create_task(holder.ask(prompt, stream=True))
    await _until(lambda: herd.backend.calls[prompt] == 1)
    following = asyncio.create_task(herd.ask_all(prompt, others, 2 * len(others)))
    await asyncio.sleep(0.5)
    holder.send(signal.SIGSTOP)
    try:
        report.judge(await following, herd.backend.calls[prompt], most=2)
    finally:
        holder.send(signal.SIGCONT)
    herd.backend.go_on.set()
    own = await first
    report.faults += [] if own.text == TEXT + " (at last)" else [f"the woken one's client got {own}"]
    await asyncio.sleep(_FORGOTTEN_SECONDS)
    known = [await edge.ask(prompt, stream=False) for edge in others]
    report.faults += [f"a stale answer was kept: {one}" for one in known if one.text != TEXT]
    return report


async def failing(herd: Herd) -> Report:
    """The holder fails at once: one successor answers all others."""
    report, prompt = Report(what="a holder that fails at once"), _prompt()
    herd.backend.failing.add(prompt)
    told = await herd.ask_all(prompt, herd.edges, 8 * len(herd.edges))
    failed = [one for one in told if one.status == 503]
    report.faults += [] if len(failed) == 1 else [f"{len(failed)} were told of the failure"]
    report.judge([one for one in told if one.status != 503], herd.backend.calls[prompt], most=2)
    return report


async def leaving(herd: Herd) -> Report:
    """The first asker leaves in the middle: nobody else notices. All leave: the backend is let go."""
    report, prompt = Report(what="askers that leave"), _prompt()
    heard = asyncio.Event()
    first = asyncio.create_task(herd.edges[0].ask(prompt, stream=True, on_first=heard.set))
    await heard.wait()
    following = asyncio.create_task(herd.ask_all(prompt, herd.edges, 2 * len(herd.edges)))
    await asyncio.sleep(0.2)
    first.cancel()
    report.judge(await following, herd.backend.calls[prompt], most=1)
    prompt, heard = _prompt(), asyncio.Event()
    last = asyncio.create_task(herd.edges[0].ask(prompt, stream=True, on_first=heard.set))
    await heard.wait()
    last.cancel()
    begun = time.monotonic()
    await _until(lambda: herd.backend.left[prompt] == 1)
    took = time.monotonic() - begun
    report.faults += [] if took < 1.0 else [f"the backend was let go after {took:.1f} s"]
    return report


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not condition():  # noqa: ASYNC110 nobody tells
            await asyncio.sleep(0.01)


# -- the processes -----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def herd_of(processes: int, cloud: str, folder: Path, *, ttl: int = 86_400) -> AsyncIterator[Herd]:
    """So many edges over tables of their own; all of them have ended on the way out."""
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(Upstream())
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        config = folder / "herd.toml"
        facts = {"service": f"t{uuid4().hex[:12]}", "cloud": cloud, "spool": folder / "spool", "ttl": ttl}
        config.write_text(_CONFIG.format(**facts, base_url=upstream.base_url))
        await _run("isochrone.cli", "tables", "create", "--config", str(config))
        started: list[asyncio.subprocess.Process] = []
        stack.push_async_callback(_stop_all, started)
        start = partial(_start, config, session, started)
        yield Herd(Backend(upstream), start, list(await asyncio.gather(*(start() for _ in range(processes)))))


async def _start(config: Path, session: aiohttp.ClientSession, started: list[asyncio.subprocess.Process]) -> Edge:
    command = ["-m", "tests.faults.herd", "--edge", str(config)]
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
    started.append(process)
    assert process.stdout
    async with asyncio.timeout(_START_SECONDS):
        url = (await process.stdout.readline()).decode().removeprefix("ready ").strip()
    return Edge(process, url, session)


async def _stop_all(started: list[asyncio.subprocess.Process]) -> None:
    for process in started:
        if process.returncode is None:
            process.send_signal(signal.SIGCONT)
            process.terminate()
    for process in started:
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), 30)
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _run(*module: str) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", *module, stdout=asyncio.subprocess.DEVNULL)
    assert await process.wait() == 0, module


def _serve_patiently(config: str) -> None:
    """One edge that gives the emulator time."""
    from isochrone.answers.generations import Generations, Pace
    from isochrone.cli import main
    from isochrone.stores.dynamodb.client import Timeouts

    generations = partial(Generations, pace=Pace(patience=_PATIENT_SECONDS))
    timeouts = Timeouts(connect=_PATIENT_SECONDS, total=2 * _PATIENT_SECONDS)
    with (
        patch("isochrone.wiring.Generations", generations),
        patch("isochrone.stores.dynamodb.clients.DEFAULT_TIMEOUTS", timeouts),
    ):
        main(["serve", "--config", config, "--region", REGION, "--port", "0"])


# -- the command -------------------------------------------------------------------------------------------------------

EVERYTHING = ("at-once", "expiry", "kill", "pause", "failing", "leaving")


async def stampede(only: Sequence[str], cloud: str, folder: Path, *, times: int) -> AsyncIterator[Report]:
    """One report after the other."""
    if "expiry" in only:
        async with herd_of(4, cloud, folder, ttl=3) as herd:
            yield await expiry(herd, 3)
    async with herd_of(4, cloud, folder) as herd:
        tests: dict[str, Callable[[], Awaitable[Report]]] = {
            "at-once": lambda: at_once(herd),
            "kill": lambda: kill(herd, times, Random(1)),
            "pause": lambda: pause(herd),
            "failing": lambda: failing(herd),
            "leaving": lambda: leaving(herd),
        }
        for name, test in tests.items():
            if name in only:
                yield await test()


async def _main(only: Sequence[str], times: int) -> bool:
    from tests.conftest import free_port, running_ministack

    kept = True
    with tempfile.TemporaryDirectory() as scratch, running_ministack(free_port(), Path(scratch) / "cloud.log") as cloud:
        async for report in stampede(only, cloud, Path(scratch), times=times):
            kept = kept and not report.faults
            facts = {"requests": report.requests, "calls": dict(report.calls), "slowest_s": round(report.slowest_s, 2)}
            print(f"{report.what}: {facts} {dict(report.caches)} {report.faults[:3] or 'kept'}", flush=True)
    return kept


def main() -> int:
    """Print one line for each; exit status 1 when a promise is not kept."""
    parser = argparse.ArgumentParser(description="Identical requests at edges that are killed and paused.")
    parser.add_argument("--only", choices=EVERYTHING, nargs="*", default=EVERYTHING, help="default: all")
    parser.add_argument("--times", type=int, default=100, help="how many holders are killed (default: 100)")
    parser.add_argument("--edge", metavar="CONFIG", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.edge:
        _serve_patiently(args.edge)
    return 0 if asyncio.run(_main(args.only, args.times)) else 1


if __name__ == "__main__":
    sys.exit(main())
