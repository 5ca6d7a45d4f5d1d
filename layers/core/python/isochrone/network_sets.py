"""Sets of addresses, as lists of networks describe them. Texts must be networks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network
from itertools import chain

Network = IPv4Network | IPv6Network
EVERYWHERE = ("0.0.0.0/0", "::/0")


def all_within(inner: Sequence[str], outer: Sequence[str]) -> bool:
    """Is every address of `inner` one of `outer`? False where `inner` is empty."""
    whole = tuple(_merged(outer))
    return bool(inner) and all(any(_is_within(ip_network(one), wide) for wide in whole) for one in inner)


def have_common(some: Iterable[str], others: Sequence[str]) -> bool:
    """Is any address in both?"""
    wide = tuple(map(ip_network, others))
    return any(_overlap(ip_network(one), other) for one in some for other in wide)


def _merged(texts: Sequence[str]) -> Iterable[Network]:
    """The fewest networks that have the same addresses: what lies in several neighbours lies in one of these."""
    networks = [ip_network(text) for text in texts]
    four = [one for one in networks if isinstance(one, IPv4Network)]
    six = [one for one in networks if isinstance(one, IPv6Network)]
    return chain(collapse_addresses(four), collapse_addresses(six))


def _is_within(inner: Network, outer: Network) -> bool:
    if isinstance(inner, IPv4Network):
        return isinstance(outer, IPv4Network) and inner.subnet_of(outer)
    return isinstance(outer, IPv6Network) and inner.subnet_of(outer)


def _overlap(one: Network, other: Network) -> bool:
    return _is_within(one, other) or _is_within(other, one)
