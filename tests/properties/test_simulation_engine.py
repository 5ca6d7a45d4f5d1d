"""Whatever happens to a simulated pool, every job ends once, and what it held is free again."""

from __future__ import annotations

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from isochrone.simulation.agenda import Agenda
from isochrone.simulation.engine import Job, Pool, Rates
from isochrone.upstream.failure import Cause

RATES = Rates(prefill=100.0, decode=10.0, decode_in_all=25.0, streams=2, remembers=2)

Move = tuple[str, float, int]
MOVES = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ask", "ask", "cancel", "stop", "start", "slow", "brisk", "errors", "no errors"]),
        st.floats(0, 5),
        st.integers(1, 300),
    ),
    max_size=40,
)


class Ends:
    """Counts how often each job ended."""

    def __init__(self) -> None:
        self.of: dict[Job, int] = {}
        self.told: set[Job] = set()

    def first_token(self, job: Job) -> None:
        assert job not in self.told
        assert job not in self.of
        self.told.add(job)

    def done(self, job: Job) -> None:
        assert job in self.told
        self.of[job] = self.of.get(job, 0) + 1

    def failed(self, job: Job, cause: Cause) -> None:
        assert (cause is Cause.CUT) == (job in self.told)
        self.of[job] = self.of.get(job, 0) + 1


@given(MOVES, st.integers(1, 3))
def test_every_job_ends_once_and_leaves_nothing_behind(moves: list[Move], nodes: int) -> None:
    agenda, ends = Agenda(), Ends()
    draws = iter([0.3, 0.7] * 200)
    pool = Pool(agenda, ends, nodes, rates=RATES, chance=lambda: next(draws))
    jobs: list[Job] = []
    cancelled: set[Job] = set()
    for what, pause, number in moves:
        agenda.run_until(agenda.now + pause)
        if what == "ask":
            jobs.append(Job(number, number, began=agenda.now, way=0.1, conversation=number % 3, shared=number // 2))
            pool.submit(jobs[-1])
        elif what == "cancel" and jobs:
            job = jobs[number % len(jobs)]
            if not job.gone:
                cancelled.add(job)
            pool.cancel(job)
        else:
            _change(pool, what)
        assert 0 <= pool.running <= nodes * RATES.streams
        assert pool.waiting >= 0
    agenda.run_until(inf)
    assert all(ends.of.get(job, 0) + (job in cancelled) == 1 for job in jobs)
    assert (pool.running, pool.waiting) == (0, 0)
    _serves_as_if_new(pool, agenda, ends, nodes)


def _change(pool: Pool, what: str) -> None:
    if what == "stop":
        pool.stop()
    elif what == "start":
        pool.start()
    elif what in ("slow", "brisk"):
        pool.slow_down(0.25 if what == "slow" else 1.0)
    else:
        pool.errors = 0.5 if what == "errors" else 0.0


def _serves_as_if_new(pool: Pool, agenda: Agenda, ends: Ends, nodes: int) -> None:
    """All nodes are free, all of them at their own speed."""
    pool.start()
    pool.slow_down(1.0)
    pool.errors = 0.0
    now = agenda.now
    jobs = [Job(100, 10, began=now, way=0.0, conversation=9, shared=0) for _ in range(nodes)]
    assert [pool.submit(job) for job in jobs] == [now + 1.0] * nodes
    agenda.run_until(inf)
    assert all(ends.of[job] == 1 for job in jobs)
