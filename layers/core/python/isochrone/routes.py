"""What a path and a method lead to, and what asking for it counts as: nothing is open that does not say so."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from isochrone.admission.policies import Action
from isochrone.admission.principal import ANONYMOUS
from isochrone.api.exchange import Reply, Request
from isochrone.errand import Caller

Handler = Callable[[Request, Caller], Awaitable[Reply]]
NOBODY = Caller(ANONYMOUS, "", None)


class Route(NamedTuple):
    """`action` is decided on before the handler is called; without one the handler itself asks what is allowed."""

    handler: Handler
    action: Action | None = None
    is_open: bool = False


def opened(handler: Handler) -> Route:
    """A route that nobody needs to be known for, and that tells nothing of anybody."""
    return Route(handler, is_open=True)
