"""Where a place is drawn: the Natural Earth projection (Patterson, Šavrič, Jenny), cut to where people live.

The outline of the land and the markers both come through here, so they always fit one another.
"""

from __future__ import annotations

import math

NORTH, SOUTH = 84.0, -57.0
MIDDLE = 11.0  # degrees east: so the map's edge runs through the Bering Strait and cuts no land
WIDTH = 2000.0


def _unit(latitude: float, longitude: float) -> tuple[float, float]:
    """On a globe of radius 1, x from the map's middle, y upwards; the polynomials are the projection's authors'."""
    phi = math.radians(latitude)
    squared = phi * phi
    fourth = squared * squared
    across = 0.8707 - 0.131979 * squared + fourth * (-0.013791 + fourth * squared * (0.003971 - 0.001529 * squared))
    up = 1.007226 + squared * (0.015085 + fourth * (-0.044475 + 0.028874 * squared - 0.005916 * fourth))
    east = (longitude - MIDDLE + 180) % 360 - 180
    return math.radians(east) * across, phi * up


_SCALE = WIDTH / (-2 * _unit(0.0, MIDDLE - 180)[0])
_TOP = _unit(NORTH, MIDDLE)[1]
HEIGHT = round((_TOP - _unit(SOUTH, MIDDLE)[1]) * _SCALE)


def project(latitude: float, longitude: float) -> tuple[float, float]:
    """(x, y) on a map of WIDTH x HEIGHT for degrees north and east; (0, 0) is the upper left corner."""
    x, y = _unit(latitude, longitude)
    return WIDTH / 2 + x * _SCALE, (_TOP - y) * _SCALE


def place(latitude: float, longitude: float) -> tuple[float, float]:
    """The same in per cent of the map's width and height, to two digits."""
    x, y = project(latitude, longitude)
    return round(100 * x / WIDTH, 2), round(100 * y / HEIGHT, 2)
