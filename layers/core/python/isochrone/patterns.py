"""Regular expressions of an operator's, tried on what callers say: in time linear in its length, whatever they are.

Python's own can take exponential time, so that one caller stops the edge for all. RE2 is imported only where a pattern
is configured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol


class PatternError(ValueError):
    """No regular expression, or none that RE2 knows: it has no lookarounds and no back references."""


class Found(Protocol):
    """Where a pattern fits."""

    @property
    def lastindex(self) -> int | None: ...

    def group(self, name: str, /) -> str | None: ...

    def span(self, group: int = 0, /) -> tuple[int, int]: ...


class Pattern(Protocol):
    """A compiled pattern."""

    @property
    def groupindex(self) -> Mapping[str, int]: ...

    def search(self, text: str, /) -> Found | None: ...

    def finditer(self, text: str, /) -> Iterator[Found]: ...


def compile_pattern(text: str) -> Pattern:
    """For searching without regard to capitals. Raises PatternError."""
    import re2  # noqa: PLC0415

    options = re2.Options()
    options.case_sensitive, options.log_errors = False, False
    try:
        pattern: Pattern = re2.compile(text, options)
    except re2.error as error:
        reason = error.args[0] if error.args else error
        raise PatternError(reason.decode() if isinstance(reason, bytes) else str(reason)) from None
    return pattern
