"""Writes the TOML files of the local edition: one with the pools' own addresses, one per edge with its WAN links."""

from __future__ import annotations

import json
from collections.abc import Callable

from local.layout import ROOT, Layout, Pool
from local.model_server import MODEL

GEO_DATABASE = ROOT / "node_modules" / "@ip-location-db" / "dbip-city-mmdb"

_HEAD = """\
# Written by scripts/run.py at every start: changes are lost. docs/configuration.md explains the keys.
[service]
name = "isochrone"

[state]
kind = "dynamodb"
endpoint_url = "{cloud_url}"
spool = {spool}

[geo]
database = {geo}
trusted_proxies = ["127.0.0.1/32", "::1/128"]

[auth]
required = false

[[region]]
name = "us-east-1"
serves = ["NA", "SA"]
default = true

[[region]]
name = "eu-west-1"
serves = ["EU", "AF"]

[[region]]
name = "ap-southeast-1"
serves = ["AS", "OC"]
"""

_POOL = """
[[backend]]
name = "{name}"
kind = "pool"
region = "{region}"
base_url = "http://127.0.0.1:{port}/v1"
engine = "llama.cpp"
max_concurrency = 16
prefill = true
models = {{ "{model}" = "{model}" }}
"""


def write(layout: Layout) -> None:
    """(Re)write every configuration file of `layout`."""
    layout.edge_config(layout.edges[0]).parent.mkdir(parents=True, exist_ok=True)
    layout.config.write_text(_text(layout, lambda pool: pool.port))
    for edge in layout.edges if layout.wan else []:
        ways = {link.pool: link.port for link in layout.links if link.edge == edge}
        layout.edge_config(edge).write_text(_text(layout, ways.__getitem__))


def _text(layout: Layout, port_of: Callable[[Pool], int]) -> str:
    pools = [_POOL.format(name=pool.name, region=pool.region, port=port_of(pool), model=MODEL) for pool in layout.pools]
    spool, geo = json.dumps(str(layout.folder / "spool")), json.dumps(str(GEO_DATABASE))
    return _HEAD.format(cloud_url=layout.cloud_url, spool=spool, geo=geo) + "".join(pools)
