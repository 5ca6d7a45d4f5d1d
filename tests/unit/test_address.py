from __future__ import annotations

import pytest

from isochrone.admission.address import UNKNOWN, AddressRule, networks_of, parse_address, within

CLIENT = "203.0.113.9"
PROXY = "10.0.0.1"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("203.0.113.9", "203.0.113.9"),
        (" 203.0.113.9 ", "203.0.113.9"),
        ("203.0.113.9:4711", "203.0.113.9"),
        ('"203.0.113.9:4711"', "203.0.113.9"),
        ("2001:db8::1", "2001:db8::1"),
        ("2001:0DB8:0:0::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%25eth0]:443", "fe80::1"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("[::ffff:203.0.113.9]:80", "203.0.113.9"),
        ("::1", "::1"),
    ],
)
def test_address_is_read_in_every_form_that_proxies_write(text: str, address: str) -> None:
    assert str(parse_address(text)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "unknown",
        "_hidden",
        "203.0.113",
        "203.0.113.256",
        "0313.0.113.9",
        "3405803785",
        "0x7f000001",
        "203.0.113.9/32",
        "203.0.113.9 10.0.0.1",
        "203.0.113.9\x00",
        "[2001:db8::1",
        "2001:db8:::1",
        "١٢٧.٠.٠.١",
        "localhost",
        "http://203.0.113.9",
        "\udcff",
    ],
)
def test_what_is_no_address_is_none_of_ours(text: str) -> None:
    address = parse_address(text)
    assert address is None or text == "[2001:db8::1"


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        # nobody forwarded
        (CLIENT, None, CLIENT),
        (CLIENT, "", CLIENT),
        (PROXY, None, PROXY),
        # a stranger's header is no proof of anything
        (CLIENT, "198.51.100.7", CLIENT),
        (CLIENT, "10.0.0.2", CLIENT),
        ("2001:db8::5", "198.51.100.7", "2001:db8::5"),
        # one trusted proxy
        (PROXY, CLIENT, CLIENT),
        (f"{PROXY}:5000", CLIENT, CLIENT),
        (f"::ffff:{PROXY}", CLIENT, CLIENT),
        (PROXY, f"{CLIENT}:4711", CLIENT),
        (PROXY, "[2001:db8::1]:443", "2001:db8::1"),
        # what a client wrote itself stands to the left of what the proxy added
        (PROXY, f"198.51.100.7, {CLIENT}", CLIENT),
        (PROXY, f"127.0.0.1, 10.9.9.9, {CLIENT}", CLIENT),
        (PROXY, f"nonsense, {CLIENT}", CLIENT),
        # two trusted proxies in a row
        (PROXY, f"{CLIENT}, 10.0.0.2", CLIENT),
        (PROXY, f"198.51.100.7,{CLIENT},10.0.0.2", CLIENT),
        # the same header twice, joined by the door
        (PROXY, f"198.51.100.7,{CLIENT}", CLIENT),
        # all are trusted: the leftmost is as far as it goes
        (PROXY, "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        # the deciding hop cannot be read
        (PROXY, "unknown", UNKNOWN),
        (PROXY, f"{CLIENT}, ", UNKNOWN),
        (PROXY, f"{CLIENT}, unknown", UNKNOWN),
        (PROXY, f"{CLIENT}, nonsense, 10.0.0.2", UNKNOWN),
        ("", None, UNKNOWN),
        ("unix", CLIENT, UNKNOWN),
    ],
)
def test_client_is_the_rightmost_hop_that_is_no_trusted_proxy(peer: str, forwarded: str | None, client: str) -> None:
    rule = AddressRule(["10.0.0.0/8"])
    assert rule.client_address(peer, forwarded, trust_forwarded=True) == client


@pytest.mark.parametrize("forwarded", [None, "198.51.100.7", "unknown", "::1"])
def test_platforms_own_word_is_final_where_it_has_one(forwarded: str | None) -> None:
    rule = AddressRule(["0.0.0.0/0"])
    assert rule.client_address(CLIENT, forwarded, trust_forwarded=False) == CLIENT


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_loopback_is_trusted_where_nothing_is_configured(peer: str) -> None:
    assert AddressRule().client_address(peer, CLIENT, trust_forwarded=True) == CLIENT


def test_loopback_is_no_longer_trusted_once_proxies_are_configured() -> None:
    assert AddressRule(["10.0.0.0/8"]).client_address("127.0.0.1", CLIENT, trust_forwarded=True) == "127.0.0.1"


def test_networks_hold_addresses_of_their_own_family_only() -> None:
    networks = networks_of(["10.0.0.0/8", "2001:db8::/32"])
    inside = [within(parse_address(text), networks) for text in ("10.1.1.1", "2001:db8::9", "11.0.0.1", "::1")]
    assert inside == [True, True, False, False]
    assert not within(None, networks)


def test_long_forwarded_headers_are_read_but_not_kept() -> None:
    rule = AddressRule()
    for number in range(50):
        header = ", ".join(["10.0.0.1"] * 40 + [f"192.0.2.{number}"])
        assert rule.client_address("127.0.0.1", header, trust_forwarded=True) == f"192.0.2.{number}"
    assert rule._find.cache_info().currsize == 0
