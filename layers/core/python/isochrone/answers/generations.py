"""Who of several processes generates an answer, and how the others hear it.

    answer/<mark>                  the lease, written by compare-and-set; its version is the fence
    answer/<mark>/<fence>/wanted   somebody elsewhere waits for it
    answer/<mark>/<fence>/<n>      what was said since part n - 1; an empty part shows life

    holder    take ------ is it wanted? (each second) ---- parts (each half second) ---- keep ---- end
    follower        take refused: wanted, then part 0, 1, 2...        silent for 4 s: take over, fence + 1

An answer that nobody else wants costs one conditional write, one release, and a read a second. A follower counts
silence on its own clock; times of two processes are never compared, except with the allowance for how long a document
outlives its term. While the table is gone or slow, every process is alone: it generates for itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from enum import Enum
from typing import Any, NamedTuple, TypeVar

from isochrone.background import Background
from isochrone.stores.protocols import DocumentStore, StoreUnavailable

log = logging.getLogger("isochrone.answers")

# By how much the clocks of two processes may differ, once ahead and once behind.
SKEW_SECONDS = 180.0
# How long the end of a lease can be read, beyond what clocks may differ: followers look several times a second.
_TOMBSTONE_SECONDS = 10.0
# Each of them has lost a race against another process; patience ends before.
_TRIES = 50

T = TypeVar("T")
D = TypeVar("D")


class Pace(NamedTuple):
    """Seconds. What a request waits for the table before it goes on as if there was none, and for how long it does not
    ask again. How often the holder looks whether it is wanted, and then says what is new. How often followers look for
    that, after what silence the holder is dead to them, and how often they say that they still wait."""

    patience: float = 0.25
    alone: float = 2.0
    look: float = 1.0
    part: float = 0.5
    poll: float = 0.25
    silence: float = 4.0
    want: float = 5.0


USUAL_PACE = Pace()


class Outcome(Enum):
    """How a generation ended: its answer is in the store; it is whole, and not to be kept; its stream ended with an
    error; nobody is to ask again; it failed; or everybody had left."""

    KEPT = "kept"
    UNKEPT = "unkept"
    BROKEN = "broken"
    REFUSED = "refused"
    FAILED = "failed"
    LEFT = "left"


class Lease(NamedTuple):
    """The right of this process to generate an answer, for so many `seconds`. `turn` counts those who failed before."""

    mark: str
    fence: int
    turn: int
    seconds: float


class Held(NamedTuple):
    """The same right of another process."""

    mark: str
    fence: int
    turn: int
    seconds: float


class Ended(NamedTuple):
    """A generation of another process is over; so many `parts` tell all of it, 0 where they do not. `version` is what
    may be replaced now, 0 when nothing is left of it. `error` is what its callers were told."""

    outcome: Outcome
    fence: int
    turn: int
    version: int
    parts: int = 0
    error: Mapping[str, Any] | None = None


Claim = Lease | Held | Ended | None


class Generations:
    """The leases in a fleet store; `clock` gives epoch seconds. No method raises for a store that is gone."""

    def __init__(
        self,
        store: DocumentStore,
        *,
        clock: Callable[[], float],
        pace: Pace = USUAL_PACE,
        background: Background | None = None,
    ) -> None:
        self.pace = pace
        self._background = Background() if background is None else background
        self._store = store
        self._clock = clock
        self._alone_until = 0.0

    async def take(self, mark: str, *, seconds: float, turn: int = 0, version: int = 0) -> Claim:
        """The lease for so many seconds, or who has it. None: this process is alone.

        A `turn` above 0 is that of a successor: Ended says that another one came before it and failed as well.
        `version` is that of a holder to be replaced.
        """
        if asyncio.get_running_loop().time() < self._alone_until:
            return None
        taking = asyncio.create_task(self._take(mark, seconds, turn, version))
        try:
            async with asyncio.timeout(self.pace.patience):
                return await asyncio.shield(taking)
        except (TimeoutError, StoreUnavailable) as error:
            self._say_alone(error)
            self._background.start(self._give_back(taking))
            return None
        except asyncio.CancelledError:
            self._background.start(self._give_back(taking))
            raise

    async def _give_back(self, taking: asyncio.Task[Claim]) -> None:
        """A lease that comes too late would only make others wait for nobody."""
        with suppress(StoreUnavailable):
            if isinstance(claim := await taking, Lease):
                await self.end(claim, Outcome.LEFT)

    async def _take(self, mark: str, seconds: float, turn: int, version: int) -> Claim:
        document = {"turn": turn, "seconds": seconds}
        for _ in range(_TRIES):
            fence = await self._write(_name(mark), document, version=version, seconds=seconds)
            if fence:
                return Lease(mark, fence, turn, seconds)
            found, version = await self._read(_name(mark))
            if found and "ended" not in found:
                return Held(mark, version, int(found.get("turn", 0)), float(found.get("seconds", 0)))
            if found and turn and (ended := _ended(found, version)).turn >= turn and ended.outcome in _FAILURES:
                return ended
        return None

    async def watch(self, held: Held) -> Held | Ended | None:
        """How it stands with the lease now: the same, a later one, or an end. None: that cannot be seen."""
        seen = await self._in_time(self._read(_name(held.mark)), None)
        if seen is None:
            return None
        found, version = seen
        if found is None:
            return Ended(Outcome.LEFT, held.fence, held.turn, 0)
        if "ended" in found:
            return _ended(found, version)
        return Held(held.mark, version, int(found.get("turn", 0)), float(found.get("seconds", 0)))

    async def end(
        self, lease: Lease, outcome: Outcome, *, parts: int = 0, error: Mapping[str, Any] | None = None
    ) -> None:
        """Give the lease back. Nothing is left of it where followers need no word of it: they find the answer in the
        store, or were told nothing yet."""
        leaves_nothing = outcome is Outcome.LEFT or (outcome is Outcome.KEPT and not parts)
        document = {"ended": outcome.value, "fence": lease.fence, "turn": lease.turn, "parts": parts, "error": error}
        seconds = -SKEW_SECONDS if leaves_nothing else _TOMBSTONE_SECONDS
        await self._in_time(self._write(_name(lease.mark), document, version=lease.fence, seconds=seconds), 0)

    async def want(self, held: Held) -> None:
        """Tell the holder that somebody waits (still)."""
        await self._in_time(self._want(f"{_path(held)}/wanted", held.seconds), None)

    async def _want(self, name: str, seconds: float) -> None:
        _, version = await self._read(name)
        await self._write(name, {}, version=version, seconds=seconds)

    async def wanted(self, lease: Lease) -> int:
        """How often somebody in another process has said that it waits."""
        return (await self._in_time(self._read(f"{_path(lease)}/wanted"), (None, 0)))[1]

    async def publish(self, lease: Lease, number: int, part: Mapping[str, Any]) -> bool:
        """Write part `number`; False when that is not certain. It may be written again as it was: nobody else does."""
        name, seconds = f"{_path(lease)}/{number}", lease.seconds + _TOMBSTONE_SECONDS
        return await self._in_time(self._write(name, dict(part), version=0, seconds=seconds), None) is not None

    async def part(self, held: Held, number: int) -> dict[str, Any] | None:
        """Part `number`, None when it is not there (yet)."""
        return (await self._in_time(self._read(f"{_path(held)}/{number}"), (None, 0)))[0]

    async def _read(self, name: str) -> tuple[dict[str, Any] | None, int]:
        return await self._store.read(name, now=self._clock())

    async def _write(self, name: str, document: dict[str, Any], *, version: int, seconds: float) -> int:
        return await self._store.write(name, document, version=version, expires=self._clock() + seconds + SKEW_SECONDS)

    async def _in_time(self, call: Coroutine[Any, Any, T], default: D) -> T | D:
        try:
            async with asyncio.timeout(self.pace.patience):
                result = await call
        except (TimeoutError, StoreUnavailable) as error:
            self._say_alone(error)
            return default
        return result

    def _say_alone(self, error: Exception) -> None:
        now, why = asyncio.get_running_loop().time(), str(error) or f"it did not within {self.pace.patience:g} s"
        if now >= self._alone_until:
            log.warning("answers are shared in this process only until the fleet table answers again: %s", why)
        self._alone_until = now + self.pace.alone


_FAILURES = (Outcome.FAILED, Outcome.REFUSED)
# An end that only another version of this program knows is one of which nothing is to be had.
_OUTCOMES = {outcome.value: outcome for outcome in Outcome}


def _name(mark: str) -> str:
    return f"answer/{mark}"


def _path(lease: Lease | Held) -> str:
    return f"{_name(lease.mark)}/{lease.fence}"


def _ended(found: Mapping[str, Any], version: int) -> Ended:
    return Ended(
        _OUTCOMES.get(found["ended"], Outcome.LEFT),
        int(found.get("fence", 0)),
        int(found.get("turn", 0)),
        version,
        int(found.get("parts", 0)),
        found.get("error"),
    )
