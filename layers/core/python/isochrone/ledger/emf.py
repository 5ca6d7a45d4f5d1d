"""One line of CloudWatch's embedded metric format: Lambda's log becomes the metric, without a call."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec


def emf_line(namespace: str, metrics: Mapping[str, float], dimensions: Mapping[str, str], *, now: float) -> str:
    """Counts with their dimensions at `now` (epoch seconds), as one line of JSON."""
    described = {
        "Namespace": namespace,
        "Dimensions": [list(dimensions)],
        "Metrics": [{"Name": name, "Unit": "Count"} for name in metrics],
    }
    entry = {"_aws": {"Timestamp": int(now * 1000), "CloudWatchMetrics": [described]}, **dimensions, **metrics}
    return msgspec.json.encode(entry).decode()


class Pulse:
    """Says metrics at most once each `interval` seconds, however many requests there are. The namespace has the
    service's name in it, so that two of them in one account do not speak for one another."""

    def __init__(self, service: str, say: Callable[[str], None], *, interval: float = 60.0) -> None:
        self._namespace = f"Isochrone/{service}"
        self._say = say
        self._interval = interval
        self._said_at = float("-inf")

    def is_due(self, now: float) -> bool:
        """Would something be said now?"""
        return now - self._said_at >= self._interval

    def beat(self, metrics: Mapping[str, float | None], dimensions: Mapping[str, str], *, now: float) -> None:
        """`now` is epoch seconds. A metric of which nothing is known (None) is not said, and costs no beat."""
        known = {name: value for name, value in metrics.items() if value is not None}
        if not known or not self.is_due(now):
            return
        self._said_at = now
        self._say(emf_line(self._namespace, known, dimensions, now=now))
