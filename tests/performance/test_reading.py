"""Reading a socket asks the system for no memory: a stream is read event by event."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

READS = 500
# Prints how many pages were taken anew for these reads, as asyncio makes them, in an edge that has just been built.
PROBE = f"""
import asyncio, resource, socket
import msgspec
from isochrone.settings import Settings
from isochrone.wiring import build_edge

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def read(ours, theirs):
    theirs.send(b"data: one event")
    ours.recv(256 * 1024)

async def main():
    pool = {{"name": "pool", "base_url": "http://127.0.0.1:9", "models": {{"m": "m"}}}}
    settings = msgspec.convert({{"region": [{{"name": "r"}}], "backend": [pool]}}, Settings)
    edge = build_edge(settings, region="r", environ={{}})
    pair = socket.socketpair()
    read(*pair)
    before = faults()
    for _ in range({READS}):
        read(*pair)
    print(faults() - before)
    await edge.close()

asyncio.run(main())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators have other ways")
def test_an_edge_reads_an_event_without_taking_new_pages() -> None:
    run = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    assert int(run.stdout) < READS / 10
