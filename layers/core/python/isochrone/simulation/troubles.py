"""Brings a scenario's incidents over the engines, each at its time, and ends them again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from isochrone.simulation.agenda import Agenda
from isochrone.simulation.engine import Engine, Pool
from isochrone.simulation.scenarios import Incident


class Troubles:
    """`crowd` is the crowd that is there now. After `stop()` no further incident begins."""

    def __init__(self, agenda: Agenda, engines: Sequence[Engine], incidents: Iterator[Incident]) -> None:
        self.crowd: Incident | None = None
        self._agenda = agenda
        self._engines = engines
        self._incidents = incidents
        self._is_over = False
        self._await_next()

    def stop(self) -> None:
        """Let those that are there pass, and no other come."""
        self._is_over = True

    def _await_next(self) -> None:
        incident = next(self._incidents, None)
        if incident is not None and not self._is_over:
            self._agenda.at(incident.at, self._begin, incident)

    def _begin(self, incident: Incident) -> None:
        if self._is_over:
            return
        self._apply(incident, begins=True)
        self._agenda.at(incident.at + incident.lasts, self._end, incident)
        self._await_next()

    def _end(self, incident: Incident) -> None:
        self._apply(incident, begins=False)

    def _apply(self, incident: Incident, *, begins: bool) -> None:
        if incident.trouble == "crowd":
            self.crowd = incident if begins else None
            return
        pool = self._engines[incident.where]
        if isinstance(pool, Pool):
            _afflict(pool, incident, begins=begins)


def _afflict(pool: Pool, incident: Incident, *, begins: bool) -> None:
    match incident.trouble:
        case "down":
            pool.stop() if begins else pool.start()
        case "silent":
            pool.silent = begins
        case "errors":
            pool.errors = incident.amount if begins else 0.0
        case "slow":
            pool.slow_down(incident.amount if begins else 1.0)
