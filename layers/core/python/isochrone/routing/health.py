"""Is a backend fit for requests? The words for it, and what probes say of it.

standing       because                                                       takes requests
UNREACHABLE    the circuit of this model is open (routing/circuit.py), and    only when there is no other way
               probes do not get through
EJECTED        that circuit is open, or the backend is ejected                only when there is no other way
               (routing/ejection.py)
TRIAL          that circuit is half-open                                      one at a time
HEALTHY        none of these                                                  yes
"""

from __future__ import annotations

from enum import Enum
from math import inf

from isochrone.routing.probe import Probe

# How long a probe's word counts: longer than the pause between a busy Lambda's probes, shorter than its rests.
PROBE_VERDICT_SECONDS = 150.0


class Standing(Enum):
    """See the table above."""

    HEALTHY = "healthy"
    TRIAL = "trial"
    EJECTED = "ejected"
    UNREACHABLE = "unreachable"


HEALTHY, TRIAL, EJECTED, UNREACHABLE = Standing  # quicker to find than in their class


class Fault(Enum):
    """How far an attempt came that failed through the backend's fault: no connection; one that went before a reply;
    no reply, or a bad one."""

    UNREACHABLE = "unreachable"
    DROPPED = "dropped"
    ANSWER = "answer"


_NEVER = Probe(at=-inf, reached=True)


class ProbeVerdict:
    """What probes say of one backend: `last` is what the last one saw. Times are seconds on any one clock."""

    __slots__ = ("last",)

    def __init__(self) -> None:
        self.last = _NEVER

    @property
    def is_there(self) -> bool:
        """Did a probe ever look?"""
        return self.last is not _NEVER

    def is_fresh(self, now: float) -> bool:
        """Does the last probe's word still count? A frozen Lambda does not probe."""
        return now - self.last.at < PROBE_VERDICT_SECONDS

    def is_against(self, now: float) -> bool:
        """Did it not get through?"""
        return not self.last.reached and self.is_fresh(now)
