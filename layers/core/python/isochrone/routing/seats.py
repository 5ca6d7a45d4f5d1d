"""How many requests at once a key, a tenant or a model may have: slots like those of a backend, equal for all."""

from __future__ import annotations

from isochrone.routing.priority import Priority
from isochrone.routing.slots import Slots


class Seats:
    """`admission.limits.scopes.Seats` over `Slots`: leased, so that those of a process that dies come back."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots

    @property
    def is_held(self) -> bool:
        """Is there anything to look after?"""
        return self._slots.is_held

    def take_at_hand(self) -> bool:
        """One that this process already has."""
        return self._slots.take_at_hand(Priority.HIGH)

    async def take(self) -> bool:
        """One at hand or leased for this; False when all are taken."""
        return await self._slots.take(Priority.HIGH)

    def give_back(self) -> None:
        """A request is over."""
        self._slots.give_back()

    async def keep(self) -> None:
        """Renew what is needed, give back what is not."""
        await self._slots.keep()

    async def settle(self) -> None:
        """Keep only what is in use at this moment."""
        await self._slots.settle()
