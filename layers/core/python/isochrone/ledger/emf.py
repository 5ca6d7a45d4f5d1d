"""One line of CloudWatch's embedded metric format: Lambda's log becomes the metric, without a call."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

NAMESPACE = "Isochrone"


def emf_line(metrics: Mapping[str, float], dimensions: Mapping[str, str], *, now: float) -> str:
    """Counts with their dimensions at `now` (epoch seconds), as one line of JSON."""
    described = {
        "Namespace": NAMESPACE,
        "Dimensions": [list(dimensions)],
        "Metrics": [{"Name": name, "Unit": "Count"} for name in metrics],
    }
    entry = {"_aws": {"Timestamp": int(now * 1000), "CloudWatchMetrics": [described]}, **dimensions, **metrics}
    return msgspec.json.encode(entry).decode()


class Pulse:
    """Says a metric at most once each `interval` seconds, however many requests there are."""

    def __init__(self, say: Callable[[str], None], *, interval: float = 60.0) -> None:
        self._say = say
        self._interval = interval
        self._said_at = float("-inf")

    def beat(self, metrics: Callable[[], Mapping[str, float]], dimensions: Mapping[str, str], *, now: float) -> None:
        """`now` is epoch seconds; `metrics` is asked only when its answer will be said."""
        if now - self._said_at < self._interval:
            return
        self._said_at = now
        self._say(emf_line(metrics(), dimensions, now=now))
