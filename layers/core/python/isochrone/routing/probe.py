"""What a probe of a backend saw. Pure; `isochrone.routing.prober` makes probes, edges pass them on to each other."""

from __future__ import annotations

from msgspec import Struct

from isochrone.routing.engines import EngineLoad


class Way(Struct, frozen=True, omit_defaults=True):
    """How long a new connection took: TCP's handshake, which is one round trip, and then TLS's; None where nothing
    measured it."""

    connect_ms: float | None = None
    tls_ms: float | None = None


class Probe(Struct, frozen=True, omit_defaults=True):
    """One look, begun at `at` (seconds; whoever passes it on shifts that to the reader's clock).

    `rtt_ms` is the round trip to what answers for the engine, `first_byte_ms` how long its health route took. None
    says that nothing could measure it. `reason`, why it was not reached, is for everybody and names no address.
    """

    at: float
    reached: bool
    reason: str = ""
    rtt_ms: float | None = None
    first_byte_ms: float | None = None
    way: Way = Way()
    load: EngineLoad = EngineLoad()
