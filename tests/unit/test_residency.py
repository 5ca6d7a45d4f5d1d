from __future__ import annotations

from collections.abc import Collection

import pytest

from isochrone.api.errors import Forbidden, status_of
from isochrone.routing.residency import Regions, eligible, is_inside, narrowed


@pytest.mark.parametrize(
    ("key", "model", "asked", "regions"),
    [
        ((), (), None, None),
        (("eu",), (), None, frozenset({"eu"})),
        ((), ("eu", "us"), None, frozenset({"eu", "us"})),
        ((), (), {"us"}, frozenset({"us"})),
        (("eu", "us"), ("us", "ap"), None, frozenset({"us"})),
        (("eu", "us"), (), {"us", "ap"}, frozenset({"us"})),
        (("eu", "us"), ("eu", "us"), {"eu", "us"}, frozenset({"eu", "us"})),
    ],
)
def test_what_counts_is_where_key_model_and_caller_agree(
    key: Collection[str], model: Collection[str], asked: Collection[str] | None, regions: Regions
) -> None:
    assert eligible(key, model, asked) == regions


def test_rules_that_leave_nothing_refuse_the_request_and_name_each_rule() -> None:
    with pytest.raises(Forbidden) as caught:
        eligible(["eu", "de"], [], {"us"})
    assert (caught.value.code, status_of(caught.value)) == ("region_not_allowed", 403)
    assert "the key's regions are de, eu; the caller's are us" in caught.value.message
    assert "the model's" not in caught.value.message


def test_caller_widens_no_rule() -> None:
    assert eligible(["eu"], [], {"eu", "us"}) == frozenset({"eu"})


@pytest.mark.parametrize(
    ("region", "regions", "inside"),
    [
        ("eu", None, True),
        (None, None, True),
        ("eu", frozenset({"eu"}), True),
        ("us", frozenset({"eu"}), False),
        (None, frozenset({"eu"}), False),
        ("eu", frozenset(), False),
    ],
)
def test_backend_without_a_region_is_outside_every_rule(region: str | None, regions: Regions, *, inside: bool) -> None:
    assert is_inside(region, regions) is inside


def test_nothing_left_stays_nothing_left() -> None:
    assert narrowed(frozenset(), ["eu"]) == frozenset()
    assert narrowed(frozenset(), []) == frozenset()
