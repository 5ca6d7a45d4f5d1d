"""Plans for tests that are about something else."""

from __future__ import annotations

from collections.abc import Sequence

from isochrone.routing.fleet import Fleet
from isochrone.routing.geo import Location
from isochrone.routing.plan import Near, Planner, Step
from isochrone.settings import Model, Routing


def plan(
    model: str, fallback: Sequence[str], fleet: Fleet, *, client: Location | None, near: Near, now: float
) -> list[Step]:
    """A single plan: all rules as they are by default, and the same lot for everybody."""
    models = [Model(name=model, fallback=tuple(fallback))]
    planner = Planner(fleet, models=models, routing=Routing(near=near), chance=lambda: 0.0)
    return planner.plan(model, client=client, now=now)
