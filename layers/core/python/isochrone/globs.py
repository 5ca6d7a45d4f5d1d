"""Names with `*`, which stands for any text, also none. There is no other special character."""

from __future__ import annotations


def matches(glob: str, text: str) -> bool:
    """Is the whole `text` like `glob`? Takes time in proportion to their lengths, whatever they are."""
    first, *rest = glob.split("*")
    if not rest:
        return glob == text
    *middle, last = rest
    if not text.startswith(first):
        return False
    at = len(first)
    for part in middle:
        found = text.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return len(text) - at >= len(last) and text.endswith(last)


def covers(wide: str, narrow: str) -> bool:
    """Is everything that is like `narrow` also like `wide`? Sound: True is certain.

    The `*` of `narrow` is taken as a character: only a `*` of `wide` can take it in, and does so with whatever it is.
    """
    return matches(wide, narrow)
