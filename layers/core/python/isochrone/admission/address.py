"""Whose request this is, by network address. GeoIP, allow-lists, limits and the ledger all use this one value.

On AWS the platform's own field is final. At the local server, X-Forwarded-For counts only as far as the hops that
wrote it are trusted: read from the right, the first hop that is no trusted proxy is the client.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

LOOPBACK = ("127.0.0.0/8", "::1/128")
UNKNOWN = ""
# A longer header is read anew each time: thousands of long ones must not stay in memory.
_LONGEST_KEPT = 200


def networks_of(texts: Sequence[str]) -> tuple[Network, ...]:
    """Parsed networks; the configuration was checked before, so a bad one is a ValueError."""
    return tuple(ip_network(text) for text in texts)


class AddressRule:
    """Finds the client's address behind `trusted` proxies (default: loopback only)."""

    def __init__(self, trusted: Sequence[str] = ()) -> None:
        self._trusted = networks_of(trusted or LOOPBACK)
        self._find = lru_cache(maxsize=4096)(self._find_uncached)

    def client_address(self, peer: str, forwarded_for: str | None, *, trust_forwarded: bool) -> str:
        """The address in its normal form, or UNKNOWN when what should name the client cannot be read."""
        header = forwarded_for if trust_forwarded else None
        find = self._find if len(header or "") <= _LONGEST_KEPT else self._find_uncached
        return find(peer, header)

    def _find_uncached(self, peer: str, forwarded_for: str | None) -> str:
        address = parse_address(peer)
        hops = forwarded_for.split(",") if forwarded_for else []
        while address is not None and hops and self._is_trusted(address):
            address = parse_address(hops.pop())
        return UNKNOWN if address is None else str(address)

    def _is_trusted(self, address: Address) -> bool:
        return within(address, self._trusted)


def parse_address(text: str) -> Address | None:
    """An address from a header or a socket: brackets, ports and zone ids are dropped, IPv4-mapped becomes IPv4."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def within(address: Address | None, networks: Sequence[Network]) -> bool:
    """True when the address lies in one of the networks; an unknown address lies in none."""
    return address is not None and any(address in network for network in networks)
