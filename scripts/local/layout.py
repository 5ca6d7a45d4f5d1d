"""What the local edition consists of: which edge, pool, WAN link and emulator listens where."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from isochrone.routing.rtt import rtt_between_regions

ROOT = Path(__file__).resolve().parents[2]
REGIONS = ("us-east-1", "eu-west-1", "ap-southeast-1")
POOL_NAMES = ("pool-us", "pool-eu", "pool-ap")


@dataclass(frozen=True)
class Edge:
    region: str
    port: int


@dataclass(frozen=True)
class Pool:
    name: str
    region: str
    port: int


@dataclass(frozen=True)
class Link:
    """The way from one edge to one pool: bytes that enter at `port` leave for `pool.port`, later."""

    edge: Edge
    pool: Pool
    port: int
    rtt_ms: float


@dataclass(frozen=True, kw_only=True)
class Layout:
    """All ports are on 127.0.0.1; `folder` holds everything that a run writes."""

    folder: Path
    edge_port: int
    pool_port: int
    wan_port: int
    cloud_port: int
    console_port: int
    pool_count: int
    wan: bool

    @property
    def logs(self) -> Path:
        return self.folder / "log"

    @property
    def config(self) -> Path:
        """The configuration that is deployed: pools at their own addresses."""
        return self.folder / "isochrone.toml"

    @property
    def apis(self) -> Path:
        """Written by the deploy: {region: URL of the API in the emulator} as JSON."""
        return self.folder / "apis.json"

    def edge_config(self, edge: Edge) -> Path:
        """The configuration of one edge: pools behind its WAN links."""
        return self.folder / "edges" / f"{edge.region}.toml" if self.wan else self.config

    @property
    def cloud_url(self) -> str:
        return f"http://127.0.0.1:{self.cloud_port}"

    @property
    def edges(self) -> list[Edge]:
        return [Edge(region, self.edge_port + i) for i, region in enumerate(REGIONS)]

    @property
    def pools(self) -> list[Pool]:
        pools = zip(POOL_NAMES, REGIONS, strict=True)
        return [Pool(name, region, self.pool_port + i) for i, (name, region) in enumerate(pools)][: self.pool_count]

    @property
    def links(self) -> list[Link]:
        """One for each pair of edge and pool, edge by edge; none without the WAN."""
        pairs = [(edge, pool) for edge in self.edges for pool in self.pools] if self.wan else []
        return [
            Link(edge, pool, self.wan_port + i, _rtt_ms(edge.region, pool.region))
            for i, (edge, pool) in enumerate(pairs)
        ]

    def ports(self) -> dict[str, list[int]]:
        """The ports that it needs, by the option that moves them."""
        return {
            "--edge-port": [edge.port for edge in self.edges],
            "--pool-port": [pool.port for pool in self.pools],
            "--wan-port": [link.port for link in self.links],
            "--cloud-port": [self.cloud_port],
            "--console-port": [self.console_port],
        }

    def clashes(self) -> set[int]:
        """Ports that two parts want."""
        counted = Counter(port for ports in self.ports().values() for port in ports)
        return {port for port, times in counted.items() if times > 1}


def _rtt_ms(a: str, b: str) -> float:
    rtt = rtt_between_regions(a, b)
    assert rtt is not None, f"{a} and {b} are regions that the matrix knows"
    return rtt.ms
