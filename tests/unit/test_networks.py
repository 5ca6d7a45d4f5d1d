from __future__ import annotations

import pytest

from isochrone.admission.networks import check_address, normal_networks
from isochrone.api.errors import Forbidden

INSIDE = ("10.0.0.0/8", "2001:db8::/32")
# Address, allowed, denied -> may it?
TABLE = [
    ("203.0.113.9", (), (), True),
    ("", (), (), True),
    ("10.1.2.3", INSIDE, (), True),
    ("2001:db8::7", INSIDE, (), True),
    ("::ffff:10.1.2.3", INSIDE, (), True),
    ("203.0.113.9", INSIDE, (), False),
    ("2001:db9::7", INSIDE, (), False),
    ("10.1.2.3", (), ("10.1.0.0/16",), False),
    ("10.2.2.3", (), ("10.1.0.0/16",), True),
    ("10.1.2.3", INSIDE, ("10.1.2.3/32",), False),
    ("10.1.2.4", INSIDE, ("10.1.2.3/32",), True),
    ("10.1.2.3", (), ("::ffff:10.1.0.0/112",), False),
    ("10.1.2.3", ("::ffff:10.1.0.0/112",), (), True),
    ("10.1.2.3", ("::ffff:0:0/96",), (), True),
    ("203.0.113.9", ("0.0.0.0/0",), (), True),
    ("2001:db9::7", ("0.0.0.0/0",), (), False),
    ("", INSIDE, (), False),
    ("", (), ("10.1.0.0/16",), False),
    ("nonsense", INSIDE, (), False),
    ("nonsense", (), ("10.1.0.0/16",), False),
    ("010.1.2.3", INSIDE, (), False),
    ("167838211", INSIDE, (), False),
    ("0x0a010203", INSIDE, (), False),
]


@pytest.mark.parametrize(("address", "allowed", "denied", "may"), TABLE)
def test_what_is_denied_is_denied_and_an_unknown_address_keeps_no_rule(
    address: str, allowed: tuple[str, ...], denied: tuple[str, ...], may: bool
) -> None:
    rules = normal_networks(allowed), normal_networks(denied)
    if may:
        check_address(address, *rules, "Key 'a'")
        return
    with pytest.raises(Forbidden) as caught:
        check_address(address, *rules, "Key 'a'")
    assert caught.value.code == "address_not_allowed"
    assert caught.value.message == f"Key 'a' may not be used from {address or 'an unknown address'}."
