"""How long an engine takes: a pool of GPU nodes behind one address, and an official API.

A pool reads prompts one at a time on each node (`prefill`), first come first served, and writes all its answers at
once (`decode`), each at the speed of a single stream while the nodes' batches carry it, then sharing what they give.
Writing is processor sharing in virtual time: one finish time per stream, counted in tokens, whatever comes and goes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import IntEnum
from heapq import heappop, heappush
from math import inf
from typing import NamedTuple, Protocol

from isochrone.simulation.agenda import Agenda
from isochrone.upstream.failure import Cause

_ERROR_SECONDS = 0.05


class Rates(NamedTuple):
    """Of one node, in tokens per second. `streams`: answers written at once; `remembers`: conversations cached."""

    prefill: float = 400.0
    decode: float = 33.0
    decode_in_all: float = 250.0
    streams: int = 32
    remembers: int = 84


class Stage(IntEnum):
    """How far a job has come; `OUTSIDE` when the engine refused it, or swallowed it without a word."""

    OUTSIDE = 0
    QUEUED = 1
    READING = 2
    WRITING = 3


class Job:
    """What an engine is asked. `way` is the round trip edge -> engine in seconds, `began` when the edge asked.

    `shared` of the `input_tokens` also began the last prompt of the same `conversation`. The engine keeps `stage`, and
    sets `gone` when the job ended in whatever way.
    """

    __slots__ = ("began", "conversation", "gone", "input_tokens", "output_tokens", "shared", "stage", "way")

    def __init__(
        self, input_tokens: int, output_tokens: int, *, began: float, way: float, conversation: int, shared: int
    ) -> None:
        self.input_tokens = input_tokens
        self.output_tokens = output_tokens
        self.began = began
        self.way = way
        self.conversation = conversation
        self.shared = shared
        self.stage = Stage.OUTSIDE
        self.gone = False


class Reply(NamedTuple):
    """What an official API does with a request: a first token after `seconds`, or a failure."""

    seconds: float
    cause: Cause | None = None


class Watcher(Protocol):
    """Who hears what becomes of jobs, at the engine's time: half of `way` before the edge does."""

    def first_token(self, job: Job) -> None:
        """The first token is there."""

    def done(self, job: Job) -> None:
        """The whole answer is."""

    def failed(self, job: Job, cause: Cause) -> None:
        """It will not come."""


class Engine(Protocol):
    """Anything that generates."""

    waiting: int
    """Requests in its queue, as its metrics say."""

    @property
    def running(self) -> int:
        """Requests in work, as its metrics say."""

    reached: bool
    """Does it answer probes?"""

    def submit(self, job: Job) -> float:
        """Take a job; the time at which its first token will come, inf when that cannot be said yet."""

    def cancel(self, job: Job) -> None:
        """The edge hung up."""

    def expected_seconds(self, input_tokens: int) -> float:
        """What a first token would take now, as one who sees everything would guess; inf when there is none."""


class Pool:
    """GPU nodes behind a load balancer that knows neither prompts nor queues."""

    def __init__(
        self, agenda: Agenda, watcher: Watcher, nodes: int, *, rates: Rates, chance: Callable[[], float]
    ) -> None:
        self._agenda = agenda
        self._watcher = watcher
        self._nodes = nodes
        self._rates = rates
        self._chance = chance
        self._free = nodes
        self._seats = nodes * rates.streams
        self._queue: deque[Job] = deque()
        self._queued_tokens = self._reading_tokens = 0
        self._inside: dict[Job, None] = {}
        self._remembered: dict[int, None] = {}
        self._writing = _Writing(agenda, self._written, nodes * rates.decode_in_all, rates.decode)
        self.waiting = 0
        self.reached = True
        self.silent = False
        self.errors = 0.0
        self.speed = 1.0

    @property
    def running(self) -> int:
        """See Engine."""
        return len(self._inside) - self.waiting

    def submit(self, job: Job) -> float:
        """See Engine."""
        now = self._agenda.now
        if not self.reached:
            self._agenda.at(now + job.way, self._refuse, job)
        elif self.errors and self._chance() < self.errors:
            self._agenda.at(now + job.way + _ERROR_SECONDS, self._break, job)
        elif not self.silent:
            self._inside[job] = None
            if self._free and self._seats and not self.waiting:
                return self._read(job)
            self._enqueue(job)
        return inf

    def cancel(self, job: Job) -> None:
        """See Engine."""
        if not job.gone:
            self._leave(job)
            self._admit()

    def stop(self) -> None:
        """The pool goes down with all that is in it."""
        self.reached = False
        lost = list(self._inside)
        for job in lost:
            self._leave(job)
        for job in lost:
            self._watcher.failed(job, Cause.CUT if job.stage is Stage.WRITING else Cause.DROPPED)

    def start(self) -> None:
        """It is back, with nothing in its memory."""
        self.reached = True
        self._remembered.clear()

    def slow_down(self, speed: float) -> None:
        """From now on at `speed` times its rates; a prompt that is being read ends as it began."""
        self.speed = speed
        self._writing.set_speed(speed)

    def expected_seconds(self, input_tokens: int) -> float:
        """See Engine."""
        if not self.reached or self.silent:
            return inf
        rate = self._rates.prefill * self.speed
        before = 0.0
        if self.waiting or not self._free:
            before = (self._queued_tokens + self._reading_tokens / 2) / (rate * self._nodes)
        return before + input_tokens / rate

    def _enqueue(self, job: Job) -> None:
        job.stage = Stage.QUEUED
        self._queue.append(job)
        self._queued_tokens += job.input_tokens
        self.waiting += 1

    def _leave_queue(self, job: Job) -> None:
        self._queued_tokens -= job.input_tokens
        self.waiting -= 1

    def _admit(self) -> None:
        queue = self._queue
        while queue and self._free and self._seats:
            job = queue.popleft()
            if not job.gone:
                self._leave_queue(job)
                self._read(job)

    def _read(self, job: Job) -> float:
        job.stage = Stage.READING
        self._free -= 1
        self._seats -= 1
        self._reading_tokens += job.input_tokens
        fresh = job.input_tokens - self._recall(job)
        arrived = max(self._agenda.now, job.began + job.way / 2)
        read_at = arrived + fresh / (self._rates.prefill * self.speed)
        self._agenda.at(read_at, self._has_read, job)
        return read_at

    def _recall(self, job: Job) -> int:
        """Tokens of the prompt that need no reading: the balancer may have chosen the node that has read them."""
        memory, conversation = self._remembered, job.conversation
        known = conversation in memory
        if known:
            del memory[conversation]  # it goes to the young end
        elif len(memory) >= self._rates.remembers * self._nodes:
            del memory[next(iter(memory))]
        memory[conversation] = None
        return job.shared if known and job.shared and self._chance() * self._nodes < 1 else 0

    def _has_read(self, job: Job) -> None:
        if job.gone:
            return
        self._stop_reading(job)
        job.stage = Stage.WRITING
        self._writing.add(job)
        self._watcher.first_token(job)
        self._admit()

    def _stop_reading(self, job: Job) -> None:
        self._free += 1
        self._reading_tokens -= job.input_tokens

    def _written(self, job: Job) -> None:
        self._leave(job)
        self._watcher.done(job)
        self._admit()

    def _leave(self, job: Job) -> None:
        """Give back what the job holds."""
        job.gone = True
        self._inside.pop(job, None)
        if job.stage is Stage.QUEUED:
            self._leave_queue(job)
        elif job.stage is Stage.READING:
            self._stop_reading(job)
            self._seats += 1
        elif job.stage is Stage.WRITING:
            self._writing.remove()
            self._seats += 1

    def _refuse(self, job: Job) -> None:
        _end(job, Cause.UNREACHABLE, self._watcher)

    def _break(self, job: Job) -> None:
        _end(job, Cause.BROKEN, self._watcher)


def _end(job: Job, cause: Cause, watcher: Watcher) -> None:
    if not job.gone:
        job.gone = True
        watcher.failed(job, cause)


class _Writing:
    """Streams that share `in_all` tokens per second, none faster than `alone`."""

    def __init__(self, agenda: Agenda, finished: Callable[[Job], None], in_all: float, alone: float) -> None:
        self._agenda = agenda
        self._finished = finished
        self._in_all = in_all
        self._alone = alone
        self._speed = 1.0
        self._streams: list[tuple[float, int, Job]] = []
        self._count = self._entries = self._timer = 0
        self._written = self._written_at = 0.0
        self._rate = alone

    def add(self, job: Job) -> None:
        """A stream begins."""
        self._advance()
        self._entries += 1
        stream = (self._written + job.output_tokens, self._entries, job)
        heappush(self._streams, stream)
        self._count += 1
        if self._set_rate() or self._streams[0] is stream:
            self._await_next()

    def remove(self) -> None:
        """A stream ended, or was cut (its job is `gone`)."""
        self._advance()
        self._count -= 1
        streams = self._streams
        head_gone = bool(streams) and streams[0][2].gone
        if self._set_rate() or head_gone:
            self._await_next()

    def set_speed(self, speed: float) -> None:
        """All rates times `speed` from now on."""
        self._advance()
        self._speed = speed
        if self._set_rate():
            self._await_next()

    def _advance(self) -> None:
        """`written`: tokens that a stream would have by now, had it begun at 0."""
        now = self._agenda.now
        self._written += (now - self._written_at) * self._rate
        self._written_at = now

    def _set_rate(self) -> bool:
        rate = self._speed * min(self._alone, self._in_all / max(1, self._count))
        changed, self._rate = rate != self._rate, rate
        return changed

    def _await_next(self) -> None:
        streams = self._streams
        while streams and streams[0][2].gone:
            heappop(streams)
        self._timer += 1
        if streams:
            left = max(0.0, streams[0][0] - self._written)
            self._agenda.at(self._agenda.now + left / self._rate, self._tick, self._timer)

    def _tick(self, timer: int) -> None:
        if timer != self._timer:
            return
        self._advance()
        _, _, job = heappop(self._streams)
        self._finished(job)
        self._await_next()


class Hosted:
    """An official API: as many requests as one likes; `reply(now)` says what a request at that time gets, and when."""

    waiting = 0
    running = 0
    reached = True

    def __init__(self, agenda: Agenda, watcher: Watcher, reply: Callable[[float], Reply], *, decode: float) -> None:
        self._agenda = agenda
        self._watcher = watcher
        self._reply = reply
        self._decode = decode

    def submit(self, job: Job) -> float:
        """See Engine."""
        reply = self._reply(self._agenda.now)
        at = self._agenda.now + job.way / 2 + reply.seconds
        if reply.cause:
            self._agenda.at(at, self._fail, (job, reply.cause))
            return inf
        self._agenda.at(at, self._begin, job)
        return at

    def cancel(self, job: Job) -> None:
        """See Engine."""
        job.gone = True

    def expected_seconds(self, input_tokens: int) -> float:
        """See Engine."""
        return self._reply(self._agenda.now).seconds

    def _fail(self, failure: tuple[Job, Cause]) -> None:
        _end(*failure, self._watcher)

    def _begin(self, job: Job) -> None:
        if job.gone:
            return
        job.stage = Stage.WRITING
        self._agenda.at(self._agenda.now + job.output_tokens / self._decode, self._finish, job)
        self._watcher.first_token(job)

    def _finish(self, job: Job) -> None:
        if not job.gone:
            job.gone = True
            self._watcher.done(job)
