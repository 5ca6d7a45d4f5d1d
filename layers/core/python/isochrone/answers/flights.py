"""Identical requests in flight share one generation: the first asker's; it and all others are only its readers.

    first asker ── generate ──▶ ┌────────┐ ──▶ reader    each from the first byte on, at a speed of its own
    another process, by parts ▶ │ flight │ ──▶ reader
                                └────────┘ ──▶ reader    who wants the other form gets it from the finished answer

    fails with nothing said, or shows nothing in time ──▶ one second flight for all who still wait; there is no third

A generation is a task of its own, so whoever leaves changes nothing for the others; when nobody is left, here or in
another process, it is called off.
"""

from __future__ import annotations

from isochrone.answers.flight import Flight, Rejoin
from isochrone.answers.flight_broadcast import Asker, Generation, MovesOn
from isochrone.answers.generations import Generations
from isochrone.api.exchange import Reply
from isochrone.background import Background

__all__ = ["Asker", "Flights", "Generation"]


class Flights:
    """All flights of one process. Without `generations` no other process hears of them.

    `rejoin(told)` gives what cuts from a stream that tells an answer anew all that was told of it before; both raise
    ApiError where that cannot be done.
    """

    def __init__(self, background: Background, rejoin: Rejoin, generations: Generations | None = None) -> None:
        self._background = background
        self._rejoin = rejoin
        self._generations = generations
        self._flying: set[Flight] = set()
        self._boarding: dict[str, Flight] = {}

    def __len__(self) -> int:
        return len(self._flying)

    async def share(self, asker: Asker) -> Reply:
        """The asker's own reply; its header x-isochrone-cache says `coalesced` unless the generation is its own.

        Raises ApiError.
        """
        flight = self._board(asker)
        try:
            return await flight.shown.serve(asker)
        except MovesOn:
            second = flight.second
            if second is None or second.is_deserted:
                second = self._launch(flight.succeed(asker))
        try:
            return await second.shown.serve(asker)
        except MovesOn:
            return await self._launch(Flight(asker, None, self._rejoin, is_last=True)).shown.serve(asker)

    def call_off(self) -> None:
        """The edge ends, and nobody reads any more."""
        for flight in list(self._flying):
            flight.call_off()

    def _board(self, asker: Asker) -> Flight:
        flight = self._boarding.get(asker.mark)
        if flight is None or flight.is_lost:
            return self._launch(Flight(asker, self._generations, self._rejoin))
        # One that does not suit has the lease already.
        return flight if flight.suits(asker) else self._launch(Flight(asker, None, self._rejoin))

    def _launch(self, flight: Flight) -> Flight:
        self._flying.add(flight)
        self._boarding[flight.mark] = flight
        self._background.start(self._fly(flight))
        return flight

    async def _fly(self, flight: Flight) -> None:
        try:
            await flight.fly()
        finally:
            self._flying.discard(flight)
            if self._boarding.get(flight.mark) is flight:
                del self._boarding[flight.mark]
