"""What engines tell of their own load, in Prometheus' text format. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

from msgspec import Struct


class _Metrics(NamedTuple):
    waiting: str
    running: str
    kv_use: str


METRICS: Mapping[str, _Metrics] = {
    "vllm": _Metrics("vllm:num_requests_waiting", "vllm:num_requests_running", "vllm:kv_cache_usage_perc"),
    "llama.cpp": _Metrics(
        "llamacpp:requests_deferred", "llamacpp:requests_processing", "llamacpp:kv_cache_usage_ratio"
    ),
}
"""By engine; those of other engines are not known."""


class EngineLoad(Struct, frozen=True, omit_defaults=True):
    """Requests in its queue and in work, over all its models, and the share of its KV cache in use (0 to 1) where that
    is fullest; None where it does not say."""

    waiting: int | None = None
    running: int | None = None
    kv_use: float | None = None


def load_in(exposition: str, engine: str) -> EngineLoad:
    """The load that an engine of METRICS tells."""
    metrics = METRICS[engine]
    waiting, running, kv_use = (_values(exposition, metric) for metric in metrics)
    return EngineLoad(
        waiting=round(sum(waiting)) if waiting else None,
        running=round(sum(running)) if running else None,
        kv_use=min(1.0, max(kv_use)) if kv_use else None,
    )


def _values(exposition: str, metric: str) -> list[float]:
    return [float(value) for value in _pattern(metric).findall(exposition)]


@cache
def _pattern(metric: str) -> re.Pattern[str]:
    number = r"\d{1,9}(?:\.\d{1,20})?(?:[eE][+-]?\d{1,2})?"
    return re.compile(rf"^{re.escape(metric)}(?:\{{[^}}]*\}})?\s+({number})\s*$", re.MULTILINE)
