"""Plain counters of one edge process, and their text form for `GET /metrics` (Prometheus exposition format)."""

from __future__ import annotations

from collections import Counter

_LABELS = {"status": "code", "answered": "code", "cache": "result", "limited": "limit"}


class Counters:
    """Names are snake_case; a family and its label value are joined by the first underscore: `status_200`."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, name: str) -> None:
        """Count one."""
        self._counts[name] += 1

    def as_dict(self) -> dict[str, int]:
        """All counts so far."""
        return dict(sorted(self._counts.items()))

    def exposition(self) -> str:
        """`isochrone_replies_total{code="200"} 3` and the like."""
        lines: list[str] = []
        for name, count in sorted(self._counts.items()):
            family, _, value = name.partition("_")
            label = _LABELS.get(family)
            metric = f'isochrone_{family}_total{{{label}="{value}"}}' if label else f"isochrone_{name}_total"
            lines.append(f"{metric} {count}")
        return "\n".join(lines) + "\n"
