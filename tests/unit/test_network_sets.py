"""Sums of networks, tried against single addresses."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.network_sets import EVERYWHERE, all_within, have_common

# Networks of sixteen addresses, so that every address can be tried.
small = st.builds(
    lambda address, cut: str(ip_network(((10 << 24) + (address >> cut << cut), 32 - cut))),
    st.integers(0, 15),
    st.integers(0, 4),
)
some = st.lists(small, min_size=1, max_size=5)


def addresses(texts: list[str]) -> set[int]:
    return {int(one) for text in texts for one in ip_network(text)}


@given(some, some)
def test_sets_are_compared_by_their_addresses(inner: list[str], outer: list[str]) -> None:
    assert all_within(inner, outer) == (addresses(inner) <= addresses(outer))
    assert have_common(inner, outer) == bool(addresses(inner) & addresses(outer))


@pytest.mark.parametrize(
    ("outer", "everything"),
    [
        (EVERYWHERE, True),
        (("::/0", "128.0.0.0/1", "0.0.0.0/1"), True),
        (("0.0.0.0/0",), False),
        (("::/0",), False),
        ((), False),
    ],
)
def test_both_families_make_everything(outer: tuple[str, ...], everything: bool) -> None:
    assert all_within(EVERYWHERE, outer) is everything


def test_nothing_lies_nowhere() -> None:
    assert not all_within((), EVERYWHERE)
    assert not have_common((), EVERYWHERE)
    assert ip_address("10.0.0.1") in ip_network("10.0.0.0/28")
