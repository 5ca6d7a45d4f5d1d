#!/usr/bin/env python3
"""Makes page/world.svg from the land of Natural Earth as the npm package `world-atlas` has it (land-110m.json).

Only needed when the outline or the projection changes: `npm pack world-atlas`, unpack it, then
`python -m local.console.make_map package/land-110m.json` in scripts/.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import click

from local.console.projection import HEIGHT, SOUTH, WIDTH, project

WORLD = Path(__file__).with_name("page") / "world.svg"

Point = tuple[float, float]

_SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}">
<!-- Land: Natural Earth 1:110m, public domain. Made by scripts/local/console/make_map.py. -->
<path id="land" d="{path}"/>
</svg>
"""


def world(topology: dict[str, Any]) -> str:
    """The SVG file for a TopoJSON topology with an object `land`."""
    path = "".join(_ring(ring) for ring in _rings(topology) if max(north for _, north in ring) > SOUTH)
    return _SVG.format(width=WIDTH, height=HEIGHT, path=path)


def _rings(topology: dict[str, Any]) -> Iterator[list[Point]]:
    """Every ring as (degrees east, degrees north)."""
    arcs = [list(_points(arc, topology["transform"])) for arc in topology["arcs"]]
    for geometry in topology["objects"]["land"]["geometries"]:
        for polygon in geometry["arcs"]:
            for ring in polygon:
                yield [point for index in ring for point in _directed(arcs, index)]


def _points(arc: list[list[int]], transform: dict[str, list[float]]) -> Iterator[Point]:
    """An arc holds steps on a grid."""
    (grid_x, grid_y), (west, south) = transform["scale"], transform["translate"]
    for x, y in accumulate(arc, lambda at, step: [at[0] + step[0], at[1] + step[1]]):
        yield west + x * grid_x, south + y * grid_y


def _directed(arcs: list[list[Point]], index: int) -> Iterable[Point]:
    """A negative index, ~i, is arc i walked backwards."""
    return arcs[index] if index >= 0 else reversed(arcs[~index])


def _ring(ring: list[Point]) -> str:
    """A closed subpath in whole units, each point as a step from the one before."""
    points = [(round(x), round(y)) for x, y in (project(north, east) for east, north in ring)]
    steps = [(x - a, y - b) for (a, b), (x, y) in pairwise(points) if (x, y) != (a, b)]
    if len(steps) < 3 or any(abs(dx) > WIDTH / 2 for dx, _ in steps):
        return ""  # too small to see, or torn in two by the map's edge (St. Lawrence Island alone)
    return f"M{points[0][0]} {points[0][1]}l{' '.join(f'{dx} {dy}' for dx, dy in steps).replace(' -', '-')}z"


@click.command()
@click.argument("land", type=click.File(encoding="utf-8"))
def main(land: Any) -> None:
    """Write page/world.svg from LAND, the file land-110m.json of the npm package world-atlas."""
    WORLD.write_text(world(json.load(land)), encoding="utf-8")
    click.echo(f"{WORLD}: {WORLD.stat().st_size} bytes")


if __name__ == "__main__":
    main()
