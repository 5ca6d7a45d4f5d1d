"""One line of CloudWatch's embedded metric format: Lambda's log becomes the metric, without a call."""

from __future__ import annotations

from collections.abc import Mapping

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
