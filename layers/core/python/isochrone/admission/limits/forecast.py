"""What a request will take of the limits on tokens and money: reserved before, corrected by what is booked after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from isochrone.settings import Price

# Before any reply was seen. A moving average after that, in which about the last thirty replies count.
_FIRST_GUESS = 512.0
_WEIGHT = 1 / 30
# Room for replies that are longer than most: a debt is corrected later, a refusal is not.
_MARGIN = 1.25


class Amounts(NamedTuple):
    """Tokens of prompt and reply together, and dollars."""

    tokens: int
    dollars: float


class Forecast:
    """What requests to each model are likely to take; `prices` are of the cheapest backend that has the model."""

    def __init__(self, prices: Mapping[str, Price]) -> None:
        self._prices = prices
        self._typical: dict[str, float] = {}

    def of(self, model: str, prompt: int, *, most: int | None = None, choices: int = 1) -> Amounts:
        """Of a prompt of so many tokens. `most` is the request's own bound for each of its `choices`: who gives it may
        use it up, so it is what is reserved."""
        typical = self._typical.get(model, _FIRST_GUESS) * _MARGIN
        reply = choices * (most if most is not None else round(typical))
        price = self._prices.get(model, Price())
        return Amounts(prompt + reply, (price.input * prompt + price.output * reply) / 1_000_000)

    def learn(self, model: str, reply: int) -> None:
        """A reply had so many tokens."""
        known = self._typical.get(model)
        if known is not None or model in self._prices:
            self._typical[model] = reply if known is None else known + _WEIGHT * (reply - known)


def cheapest(prices: Mapping[str, list[Price]]) -> dict[str, Price]:
    """The lowest price for each model, by what a token of prompt and one of reply cost together."""
    return {model: min(known, key=lambda price: price.input + price.output) for model, known in prices.items() if known}
