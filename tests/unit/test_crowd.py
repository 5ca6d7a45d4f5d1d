from __future__ import annotations

import pytest

from isochrone.routing.crowd import Crowd
from isochrone.routing.presence import Presence
from isochrone.routing.priority import Priority
from isochrone.routing.shares import Shares

HIGH, STANDARD, LOW = Priority.HIGH, Priority.STANDARD, Priority.LOW


def crowd_of(*waiting: tuple[str, Priority, str], **weights: float) -> Crowd[str]:
    crowd: Crowd[str] = Crowd(Shares(weights))
    for who, priority, tenant in waiting:
        crowd.add(who, priority, tenant)
    return crowd


NOISY = [(f"n{i}", STANDARD, "noisy") for i in range(4)]


@pytest.mark.parametrize(
    ("priority", "tenant", "goes"),
    [
        (STANDARD, "noisy", None),
        (STANDARD, "quiet", "n3"),
        (STANDARD, "some", "n3"),
        (STANDARD, "heavy", "n3"),
        (LOW, "quiet", None),
        (HIGH, "noisy", "n3"),
    ],
)
def test_who_gives_way_is_of_the_tenant_that_has_most(priority: Priority, tenant: str, goes: str | None) -> None:
    crowd = crowd_of(*NOISY, ("s0", STANDARD, "some"), ("h0", STANDARD, "heavy"), ("u0", HIGH, "noisy"))
    assert crowd.who_gives_way(priority, tenant) == goes


def test_lowest_class_gives_way_first_whoever_has_most() -> None:
    assert crowd_of(*NOISY, ("l0", LOW, "quiet")).who_gives_way(STANDARD, "noisy") == "l0"


def test_weight_counts_in_who_has_most() -> None:
    crowd = crowd_of(*NOISY, ("s0", STANDARD, "some"), ("s1", STANDARD, "some"), noisy=4.0)
    assert crowd.who_gives_way(STANDARD, "quiet") == "s1"
    assert crowd.who_gives_way(STANDARD, "noisy") == "s1"


def test_equal_ones_do_not_push_each_other_out() -> None:
    crowd = crowd_of(("a0", STANDARD, "a"), ("a1", STANDARD, "a"), ("b0", STANDARD, "b"))
    assert crowd.who_gives_way(STANDARD, "b") is None


def test_whoever_has_left_is_not_counted() -> None:
    crowd = crowd_of(*NOISY)
    assert [crowd.remove("n0", STANDARD, "noisy") for _ in range(2)] == [True, False]
    assert (len(crowd), list(crowd)) == (3, ["n1", "n2", "n3"])


# -- in which lines a tenant waits -------------------------------------------------------------------------------------


class Line:
    share = 0.0


def test_tenant_counts_once_however_many_lines_it_waits_in() -> None:
    presence: Presence[Line] = Presence(Shares({"b": 2.0}))
    one, other = Line(), Line()
    presence.enter("a", one)
    assert (one.share, other.share) == (1.0, 0.0)
    presence.enter("a", other)
    presence.enter("a", other)
    presence.enter("b", other)
    assert (one.share, other.share) == (0.5, 2.5)
    presence.leave("a", other)
    assert (one.share, other.share) == (0.5, 2.5)
    presence.leave("a", other)
    assert (one.share, other.share) == (1.0, 2.0)
    presence.leave("a", one)
    presence.leave("b", other)
    assert (one.share, other.share, presence._lines) == (0.0, 0.0, {})
