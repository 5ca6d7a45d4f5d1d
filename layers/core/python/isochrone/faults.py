"""What goes wrong although nobody foresaw it, as a log may have it: what it is and where, but not in its own words.

The text of an exception may hold what it was raised about: a prompt, a key. Its frames hold our own lines.
"""

from __future__ import annotations


class Fault(Exception):
    """Stands in a log for an error; its text is that one's type."""


def wordless(error: BaseException | None) -> Fault | None:
    """An error and what it came from, with their frames, for `exc_info`."""
    if error is None:
        return None
    fault = Fault(type(error).__qualname__).with_traceback(error.__traceback__)
    fault.__cause__, fault.__context__ = wordless(error.__cause__), wordless(error.__context__)
    fault.__suppress_context__ = error.__suppress_context__
    return fault
