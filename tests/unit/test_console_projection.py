"""The console's map: markers stand where the outline has their places, and the outline is made as it should be."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from itertools import accumulate, pairwise

import pytest

from local.console import make_map
from local.console.projection import HEIGHT, NORTH, SOUTH, WIDTH, place, project

Ring = list[tuple[float, float]]

INLAND = {
    "Madrid": (40.4, -3.7), "Denver": (39.7, -105.0), "Brasília": (-15.8, -47.9), "Nairobi": (-1.3, 36.8),
    "Novosibirsk": (55.0, 82.9), "Alice Springs": (-23.7, 133.9), "Fairbanks": (64.8, -147.7), "Anadyr": (64.7, 177.0),
}  # fmt: skip
AT_SEA = {
    "Atlantic": (30.0, -45.0), "Gulf of Guinea": (0.0, -10.0), "Indian Ocean": (-30.0, 80.0), "Pacific": (30.0, -150.0),
    "Mediterranean": (34.5, 18.0), "Tasman Sea": (-38.0, 160.0), "east of the date line": (10.0, -175.0),
}  # fmt: skip


def rings() -> list[Ring]:
    """The outline as it is drawn."""
    svg = ElementTree.parse(make_map.WORLD).getroot()
    path = next(element for element in svg if element.get("id") == "land").get("d") or ""
    found = []
    for subpath in path.split("z")[:-1]:
        numbers = [int(number) for number in re.findall(r"-?\d+", subpath)]
        steps = zip(numbers[::2], numbers[1::2], strict=True)
        found.append(list(accumulate(steps, lambda at, step: (at[0] + step[0], at[1] + step[1]))))
    return found


LAND = rings()


def is_land(x: float, y: float) -> bool:
    """Even-odd rule: how many sides does a ray to the right cross?"""
    crossed = 0
    for ring in LAND:
        for (x1, y1), (x2, y2) in pairwise([*ring, ring[0]]):
            crossed += (y1 > y) != (y2 > y) and x < x1 + (y - y1) * (x2 - x1) / (y2 - y1)
    return crossed % 2 == 1


@pytest.mark.parametrize("point", INLAND.values(), ids=INLAND)
def test_marker_of_a_city_stands_on_the_drawn_land(point: tuple[float, float]) -> None:
    assert is_land(*project(*point))


@pytest.mark.parametrize("point", AT_SEA.values(), ids=AT_SEA)
def test_place_at_sea_is_drawn_at_sea(point: tuple[float, float]) -> None:
    assert not is_land(*project(*point))


def test_drawing_is_as_large_as_the_projection_says() -> None:
    assert ElementTree.parse(make_map.WORLD).getroot().get("viewBox") == f"0 0 {WIDTH:.0f} {HEIGHT}"
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for ring in LAND for x, y in ring)


def test_projection_has_the_proportions_that_its_authors_published() -> None:
    pole, equator = WIDTH / 2 - project(90, -168.999999)[0], WIDTH / 2
    assert pole / equator == pytest.approx(0.55, abs=0.001)
    assert (project(-90, 11)[1] - project(90, 11)[1]) / WIDTH == pytest.approx(0.52, abs=0.001)


def test_place_is_in_per_cent_from_the_upper_left_corner() -> None:
    assert place(NORTH, 11.0) == (50.0, 0.0)
    assert place(SOUTH, 11.0)[1] == pytest.approx(100.0, abs=0.1)


# A square of two arcs, the second shared backwards, on a grid of whole degrees that begins at 0, 0.
SQUARE = {
    "transform": {"scale": [1, 1], "translate": [0, 0]},
    "arcs": [[[0, 0], [20, 0], [0, 20]], [[0, 0], [0, 20], [20, 0]]],
    "objects": {"land": {"geometries": [{"arcs": [[[0, ~1]]]}]}},
}


def test_ring_of_shared_arcs_is_drawn_once_around() -> None:
    path = re.search(r' d="(.*)"', make_map.world(SQUARE))
    corners = [project(north, east) for north, east in ((0, 0), (0, 20), (20, 20), (20, 0), (0, 0))]
    steps = [(round(x), round(y)) for x, y in corners]
    assert path and path[1].startswith(f"M{steps[0][0]} {steps[0][1]}l")
    assert path[1].endswith(f"{steps[4][0] - steps[3][0]} {steps[4][1] - steps[3][1]}z".replace(" -", "-"))


def test_ring_that_the_edge_of_the_map_would_tear_is_left_out() -> None:
    torn = {**SQUARE, "transform": {"scale": [1, 1], "translate": [-179, 0]}}
    assert 'd=""' in make_map.world(torn)


def test_antarctica_is_left_out() -> None:
    assert 'd=""' in make_map.world({**SQUARE, "transform": {"scale": [1, 1], "translate": [0, -90]}})
