"""Network rules: from which addresses a caller may ask. What is denied is denied, whatever else allows it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_network

from isochrone.admission.address import Network, networks_of, parse_address, within
from isochrone.api.errors import Forbidden

_parse = lru_cache(maxsize=4096)(parse_address)
_MAPPED = IPv6Network("::ffff:0:0/96")


def normal_networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Parsed networks in the form that addresses have here: an IPv4-mapped one is IPv4. ValueError for a bad one."""
    return tuple(map(_unmapped, networks_of(texts)))


def check_address(address: str, allowed: Sequence[Network], denied: Sequence[Network], who: str) -> None:
    """Raise Forbidden unless `address` lies in `allowed` (empty: anywhere) and in none that is denied.

    An address that is not known lies nowhere: where there is any rule, nobody can tell that it keeps it. `who` begins
    the message.
    """
    if (allowed or denied) and not _admits(address, allowed, denied):
        raise Forbidden(f"{who} may not be used from {address or 'an unknown address'}.", code="address_not_allowed")


def _admits(address: str, allowed: Sequence[Network], denied: Sequence[Network]) -> bool:
    known = _parse(address)
    if known is None or within(known, denied):
        return False
    return not allowed or within(known, allowed)


def _unmapped(network: Network) -> Network:
    if isinstance(network, IPv4Network) or not network.subnet_of(_MAPPED):
        return network
    mapped = network.network_address.ipv4_mapped
    return ip_network(f"{mapped}/{network.prefixlen - _MAPPED.prefixlen}")
