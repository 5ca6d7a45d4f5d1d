"""The lines that say that everything runs, and what to try first."""

from __future__ import annotations

import json
import os
from pathlib import Path

from local.layout import ROOT, Edge, Layout
from local.model_server import MODEL

_TOKYO = "133.11.0.1"


def ready(layout: Layout, pids: dict[str, int], apis: dict[str, str]) -> str:
    """The banner; `pids` is by pool name, `apis` has the URL of the deployed API by region."""
    last = layout.edges[-1]
    lines = ["", "Isochrone is ready", ""]
    lines += [f"  edge  http://127.0.0.1:{edge.port}   {edge.region}{_links(layout, edge)}" for edge in layout.edges]
    lines += [f"  pool  http://127.0.0.1:{pool.port}   {pool.name}, pid {pids[pool.name]}" for pool in layout.pools]
    lines += [f"  page  http://127.0.0.1:{layout.console_port}   console: map, health, traffic, cost, a box to try it"]
    lines += [f"  AWS   {layout.cloud_url}   MiniStack, with what `cdk deploy` made; its gateway does not stream"]
    lines += [f"  API   {url}   {region}" for region, url in apis.items()]
    lines += ["", "Ask:", f"  {curl(last)}"]
    lines += ["", "See why a caller in Tokyo goes where:", f"  {plan(layout, last)}"]
    lines += [
        "",
        "Kill a pool and ask something new: the next nearest answers, and this screen says how to bring it back.",
    ]
    lines += [
        f"Logs: {shown(layout.logs)}/   Stop: Ctrl-C",
        "GeoIP: IP Geolocation by DB-IP, https://db-ip.com",
        "",
    ]
    return "\n".join(lines)


def curl(edge: Edge) -> str:
    """A command that streams an answer."""
    body = {
        "model": MODEL,
        "stream": True,
        "messages": [{"role": "user", "content": "Write two sentences about the sea."}],
    }
    url = f"http://127.0.0.1:{edge.port}/v1/chat/completions"
    return f"curl -N {url} -H 'content-type: application/json' -d '{json.dumps(body)}'"


def plan(layout: Layout, edge: Edge) -> str:
    """A command that prints the plan for a caller in Tokyo."""
    config = shown(layout.edge_config(edge))
    return f".venv/bin/isochrone plan --config {config} --region {edge.region} --client-ip {_TOKYO} --model {MODEL}"


def revive(port: int) -> str:
    """A command that starts the pool at `port` again."""
    return f".venv/bin/python scripts/local/model_server.py --port {port}"


def shown(path: Path) -> str:
    """A path as it is typed at the repository's root."""
    return os.path.relpath(path, ROOT) if path.is_relative_to(ROOT) else str(path)


def _links(layout: Layout, edge: Edge) -> str:
    ways = [f"{link.pool.name} {link.rtt_ms:.0f} ms" for link in layout.links if link.edge == edge]
    return f"   ({', '.join(ways)})" if ways else ""
