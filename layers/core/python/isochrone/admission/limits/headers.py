"""`x-ratelimit-*` as OpenAI sends them."""

from __future__ import annotations

from collections.abc import Iterable

from isochrone.admission.limits.quota import Quota


def ratelimit_headers(requests: Iterable[Quota], tokens: Iterable[Quota], now: float) -> dict[str, str]:
    """How much is left of the tightest limit on requests and of that on tokens, where there is one."""
    headers: dict[str, str] = {}
    for unit, quotas in (("requests", requests), ("tokens", tokens)):
        if tightest := min(quotas, key=lambda quota: quota.remaining(now), default=None):
            headers[f"x-ratelimit-limit-{unit}"] = f"{tightest.limit:.0f}"
            headers[f"x-ratelimit-remaining-{unit}"] = str(int(tightest.remaining(now) + 1e-6))
            headers[f"x-ratelimit-reset-{unit}"] = duration(tightest.reset_in(now))
    return headers


def duration(seconds: float) -> str:
    """As Go writes one: `120ms`, `1.5s`, `6m0s`, `1h0m0s`."""
    ms = round(max(0.0, seconds) * 1000)
    if 0 < ms < 1000:
        return f"{ms}ms"
    minutes, rest = divmod(ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    tail = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{tail}"
    return f"{minutes}m{tail}" if minutes else tail
