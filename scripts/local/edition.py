"""The local edition from the first check to the ready banner, and what happens to its processes afterwards."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from local import banner, checks, config, ministack
from local.errors import LocalError
from local.layout import ROOT, Edge, Layout, Pool
from local.processes import Child, Children, answers, follow, until, until_ready
from local.screen import Screen

_HERE = Path(__file__).parent
_BIN = Path(sys.executable).parent
_EDGES_FIRST, _THEN_POOLS, _CLOUD_LAST = 1, 2, 3  # edges settle their last answers in the cloud's tables
_STOP_SECONDS = 10.0
_RESTART_PAUSE = 1.0  # seconds, so that a pool that cannot start does not spin


class Edition:
    """One run of the local edition."""

    def __init__(self, layout: Layout, screen: Screen, *, threads: int, restart: bool) -> None:
        self._layout = layout
        self._screen = screen
        self._threads = threads
        self._restart = restart
        self._children = Children(layout.logs, ministack.client_environment(os.environ))

    async def run(self) -> None:
        """Start everything, say so, and watch until cancelled. Raises LocalError."""
        checks.check_installed()
        checks.check_ports(self._layout)
        checks.make_folder(self._layout)
        held = checks.lock(self._layout.folder)
        try:
            checks.check_disk(self._layout.folder)
            config.write(self._layout)
            await self._start_and_watch()
        finally:
            await self._children.stop_all(_STOP_SECONDS)
            held.close()

    def hasten(self) -> None:
        """End every process at once."""
        self._children.kill_all()

    async def _start_and_watch(self) -> None:
        cloud = await self._start_cloud()
        pools = {pool: await self._start_pool(pool) for pool in self._layout.pools}
        wan = await self._start_wan()
        with self._screen.step(f"MiniStack at {self._layout.cloud_url}"):
            await until_ready(cloud, partial(answers, self._layout.cloud_port, ministack.HEALTH), 60)
        with self._screen.step(f"SmolLM2-135M on llama.cpp, {len(pools)} times"):
            for pool, child in pools.items():
                await until_ready(child, partial(answers, pool.port, "/health"), 120)
        with self._screen.step(f"CDK app in {len(self._layout.edges)} regions") as news:
            apis = await self._deploy(news)
        console = await self._start_console()
        with self._screen.step(f"edges in {len(self._layout.edges)} regions"):
            edges = await self._start_edges()
        self._screen.say(banner.ready(self._layout, {pool.name: child.pid for pool, child in pools.items()}, apis))
        async with asyncio.TaskGroup() as watching:
            for child in (cloud, *wan, *edges, console):
                watching.create_task(self._report_end(child))
            for pool, child in pools.items():
                watching.create_task(self._watch_pool(pool, child))

    async def _start_cloud(self) -> Child:
        scratch = ministack.scratch(self._layout)
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        environ = ministack.environment(self._layout)
        return await self._children.start("ministack", ministack.COMMAND, environ=environ, round=_CLOUD_LAST)

    async def _start_pool(self, pool: Pool) -> Child:
        command = (sys.executable, _HERE / "model_server.py", "--port", str(pool.port), "--threads", str(self._threads))
        return await self._children.start(pool.name, command, round=_THEN_POOLS)

    async def _start_wan(self) -> list[Child]:
        links = [f"{link.port}:{link.pool.port}:{link.rtt_ms}" for link in self._layout.links]
        command = (sys.executable, str(_HERE / "wan.py"), *links)
        return [await self._children.start("wan", command, round=_THEN_POOLS)] if links else []

    async def _deploy(self, news: Callable[[str], None]) -> dict[str, str]:
        """The URL of each region's API in the emulator."""
        what = (self._layout.config, self._layout.cloud_url, self._layout.folder, self._layout.apis)
        command = (sys.executable, _HERE / "deploying.py", *what)
        path = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "scripts")])}
        child = await self._children.start("deploying", command, environ=path, round=_EDGES_FIRST)
        await follow(child, news)
        if child.process.returncode != 0:
            raise LocalError(f"the deploy {child.ending()}")
        apis: dict[str, str] = json.loads(self._layout.apis.read_text())
        return apis

    async def _start_edges(self) -> list[Child]:
        edges = {edge: await self._start_edge(edge) for edge in self._layout.edges}
        for edge, child in edges.items():
            await until_ready(child, partial(answers, edge.port, "/readyz"), 60)
        return list(edges.values())

    async def _start_edge(self, edge: Edge) -> Child:
        command = (_BIN / "isochrone", "serve", "--config", self._layout.edge_config(edge), "--region", edge.region)
        where = ("--host", "127.0.0.1", "--port", str(edge.port))
        return await self._children.start(f"edge-{edge.region}", (*command, *where), round=_EDGES_FIRST)

    async def _start_console(self) -> Child:
        """The edition runs on without it, so nobody waits for it."""
        edges = [f"--edge={edge.region}=http://127.0.0.1:{edge.port}" for edge in self._layout.edges]
        pools = [f"--pool={pool.name}=http://127.0.0.1:{pool.port}" for pool in self._layout.pools]
        command = (sys.executable, "-m", "local.console", "--port", str(self._layout.console_port), *edges, *pools)
        path = {"PYTHONPATH": str(ROOT / "scripts")}
        return await self._children.start("console", command, environ=path, round=_EDGES_FIRST)

    async def _report_end(self, child: Child) -> None:
        await child.end()
        self._screen.say(f"{child.name} {child.ending()} (log: {banner.shown(child.log)})", "red")

    async def _watch_pool(self, pool: Pool, child: Child) -> None:
        await self._report_end(child)
        while self._restart:
            await asyncio.sleep(_RESTART_PAUSE)
            child = await self._start_pool(pool)
            self._screen.say(f"{pool.name} started again, pid {child.pid}")
            await self._report_end(child)
        while True:
            self._screen.say(f"  start it again with: {banner.revive(pool.port)}")
            await until(partial(answers, pool.port, "/health"))
            self._screen.say(f"{pool.name} answers again", "green")
            await until(partial(_is_silent, pool.port))
            self._screen.say(f"{pool.name} does not answer any more", "red")


async def _is_silent(port: int) -> bool:
    """Whether a pool that somebody else started has gone."""
    return not await answers(port, "/health")
