"""Which network addresses may be reached in somebody else's name: the public ones, and nothing of ours. Pure.

`ipaddress` knows the registries of special addresses (RFC 6890). What it calls global and is none of the public
network's is listed here: addresses that carry another one inside them, so that a translator on the way could lead
anywhere, and the addresses at which a cloud speaks to its own machines.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

Address = IPv4Address | IPv6Address

_NEVER = tuple(
    map(
        ip_network,
        (
            "192.0.0.0/24",  # protocol assignments: older versions of Python know a part of them only
            "192.88.99.0/24",  # 6to4 relays
            "168.63.129.16/32",  # Azure's own host, at a public address
            "2001::/23",  # protocol assignments, Teredo among them
            "2002::/16",  # 6to4
            "64:ff9b::/96",  # NAT64
            "64:ff9b:1::/48",  # NAT64 of one's own
            "3fff::/20",  # documentation
            "5f00::/16",  # segment routing
        ),
    )
)
# All that is given out for the public network (RFC 4291, section 2.4).
_GLOBAL_UNICAST = ip_network("2000::/3")


def is_public(address: Address) -> bool:
    """May this be reached in somebody else's name?"""
    if isinstance(address, IPv6Address) and (address not in _GLOBAL_UNICAST or address.scope_id):
        return False
    return address.is_global and not address.is_multicast and not any(address in network for network in _NEVER)


def is_loopback(address: Address) -> bool:
    """This machine; also where it is written as an IPv6 address that carries an IPv4 one."""
    carried = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (carried or address).is_loopback


def parsed(text: str) -> Address | None:
    """An address in its one usual form; None for anything else, such as 0x7f.1, 127.1 or 0177.0.0.1."""
    try:
        return ip_address(text)
    except ValueError:
        return None
