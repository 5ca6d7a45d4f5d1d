"""Engines of the simulation take as long as their rates say, whatever comes, goes and breaks meanwhile."""

from __future__ import annotations

from math import inf

import pytest

from isochrone.simulation.agenda import Agenda
from isochrone.simulation.engine import Hosted, Job, Pool, Rates, Reply, Stage
from isochrone.upstream.failure import Cause

RATES = Rates(prefill=100.0, decode=10.0, decode_in_all=20.0, streams=4, remembers=2)


class Heard:
    """A watcher that writes down when it hears what."""

    def __init__(self, agenda: Agenda) -> None:
        self._agenda = agenda
        self.first_tokens: dict[Job, float] = {}
        self.ends: dict[Job, float] = {}
        self.causes: dict[Job, Cause] = {}

    def first_token(self, job: Job) -> None:
        self.first_tokens[job] = round(self._agenda.now, 6)

    def done(self, job: Job) -> None:
        self.ends[job] = round(self._agenda.now, 6)

    def failed(self, job: Job, cause: Cause) -> None:
        self.ends[job] = round(self._agenda.now, 6)
        self.causes[job] = cause


class World:
    """A pool, its agenda and its watcher."""

    def __init__(self, nodes: int = 1, chance: float = 0.0) -> None:
        self.agenda = Agenda()
        self.heard = Heard(self.agenda)
        self.pool = Pool(self.agenda, self.heard, nodes, rates=RATES, chance=lambda: chance)

    def ask(self, prompt: int = 100, answer: int = 10, *, way: float = 0.0, talk: int = 0, shared: int = 0) -> Job:
        job = Job(prompt, answer, began=self.agenda.now, way=way, conversation=talk, shared=shared)
        self.pool.submit(job)
        return job

    def at(self, time: float) -> None:
        self.agenda.run_until(time)

    def end(self) -> None:
        self.agenda.run_until(inf)


def test_each_node_reads_one_prompt_at_a_time() -> None:
    world = World(nodes=2)
    jobs = [world.ask(prompt=100) for _ in range(3)]
    world.end()
    assert [world.heard.first_tokens[job] for job in jobs] == [1.0, 1.0, 2.0]


def test_a_prompt_travels_half_of_the_way_before_it_is_read() -> None:
    world = World()
    job = world.ask(prompt=100, way=0.4)
    world.end()
    assert world.heard.first_tokens[job] == pytest.approx(1.2)


def test_the_time_of_a_first_token_is_known_as_soon_as_a_node_is_free() -> None:
    world = World()
    assert world.pool.submit(Job(100, 1, began=0.0, way=0.0, conversation=0, shared=0)) == 1.0
    assert world.pool.submit(Job(100, 1, began=0.0, way=0.0, conversation=0, shared=0)) == inf


def test_few_answers_are_written_at_the_speed_of_one() -> None:
    world = World(nodes=2)
    jobs = [world.ask(answer=10), world.ask(answer=20)]
    world.end()
    assert [world.heard.ends[job] for job in jobs] == [2.0, 3.0]


def test_many_answers_share_what_the_nodes_write() -> None:
    """Four streams on one node that writes 20 tokens per second in all: 5 each, not 10."""
    world = World()
    jobs = [world.ask(prompt=1, answer=100) for _ in range(4)]
    world.end()
    last = world.heard.ends[jobs[-1]]
    assert last == pytest.approx(400 / 20, abs=0.5)


def test_an_answer_speeds_up_when_others_end() -> None:
    world = World()
    short = [world.ask(prompt=1, answer=10) for _ in range(3)]
    long = world.ask(prompt=1, answer=100)
    world.end()
    assert world.heard.ends[long] < 100 / 5
    assert max(world.heard.ends[job] for job in short) < world.heard.ends[long]


def test_no_more_answers_are_begun_than_there_are_streams() -> None:
    world = World()
    jobs = [world.ask(prompt=1, answer=100) for _ in range(RATES.streams + 1)]
    world.end()
    assert world.heard.first_tokens[jobs[-1]] >= world.heard.ends[jobs[0]]


def test_metrics_tell_who_waits_and_who_is_served() -> None:
    world = World()
    for _ in range(3):
        world.ask()
    assert (world.pool.running, world.pool.waiting) == (1, 2)
    world.end()
    assert (world.pool.running, world.pool.waiting) == (0, 0)


@pytest.mark.parametrize(
    ("gone", "at", "third_told_at"),
    [
        pytest.param(0, 0.5, 2.5, id="while it is read"),
        pytest.param(1, 0.5, 2.0, id="while it waits"),
        pytest.param(0, 1.5, 3.0, id="while its answer is written"),
    ],
)
def test_who_hangs_up_makes_room_for_the_next(gone: int, at: float, third_told_at: float) -> None:
    world = World()
    jobs = [world.ask(prompt=100, answer=100) for _ in range(3)]
    world.at(at)
    world.pool.cancel(jobs[gone])
    world.end()
    assert jobs[gone] not in world.heard.ends
    assert world.heard.first_tokens[jobs[2]] == third_told_at
    assert (world.pool.running, world.pool.waiting) == (0, 0)


def test_a_pool_that_goes_down_loses_all_that_is_in_it() -> None:
    world = World()
    writing, reading, queued = (world.ask(prompt=100, answer=1000) for _ in range(3))
    world.at(1.5)
    assert [job.stage for job in (writing, reading, queued)] == [Stage.WRITING, Stage.READING, Stage.QUEUED]
    world.pool.stop()
    assert [world.heard.causes[job] for job in (writing, reading, queued)] == [Cause.CUT, Cause.DROPPED, Cause.DROPPED]
    world.end()
    assert len(world.heard.ends) == 3


def test_a_pool_that_is_down_refuses_after_a_round_trip() -> None:
    world = World()
    world.pool.stop()
    job = world.ask(way=0.3)
    world.end()
    assert (world.heard.ends[job], world.heard.causes[job]) == (0.3, Cause.UNREACHABLE)


def test_a_pool_that_came_back_serves_as_before() -> None:
    world = World()
    world.ask()
    world.pool.stop()
    world.pool.start()
    job = world.ask(prompt=100, answer=10)
    world.end()
    assert world.heard.ends[job] == 2.0


def test_a_slow_pool_takes_longer_for_all_that_it_begins_and_writes() -> None:
    world = World()
    job = world.ask(prompt=100, answer=10)
    world.at(1.5)
    world.pool.slow_down(0.5)
    later = world.ask(prompt=100, answer=10)
    world.end()
    assert world.heard.ends[job] == 2.0 + 0.5
    assert world.heard.first_tokens[later] == 1.5 + 2.0


def test_a_silent_pool_never_says_a_word() -> None:
    world = World()
    world.pool.silent = True
    job = world.ask()
    world.end()
    assert job not in world.heard.first_tokens
    assert job not in world.heard.ends


def test_errors_come_at_once_and_cost_no_time_of_the_nodes() -> None:
    world = World(chance=0.4)
    world.pool.errors = 0.5
    job = world.ask(way=0.2)
    assert world.pool.running == 0
    world.end()
    assert world.heard.causes[job] is Cause.BROKEN
    assert world.heard.ends[job] < 1


def test_what_a_node_has_read_it_need_not_read_again() -> None:
    world = World()
    world.ask(prompt=100, answer=1, talk=7)
    world.at(10)
    job = world.ask(prompt=200, answer=1, talk=7, shared=100)
    world.end()
    assert world.heard.first_tokens[job] == 10 + 1.0


def test_a_balancer_finds_the_node_that_has_read_it_by_chance_only() -> None:
    world = World(nodes=2, chance=0.6)
    world.ask(prompt=100, answer=1, talk=7)
    world.at(10)
    job = world.ask(prompt=200, answer=1, talk=7, shared=100)
    world.end()
    assert world.heard.first_tokens[job] == 10 + 2.0


def test_conversations_that_nobody_went_on_with_are_forgotten() -> None:
    world = World()
    for talk in (7, 8, 9):
        world.ask(prompt=1, answer=1, talk=talk)
    world.at(10)
    job = world.ask(prompt=200, answer=1, talk=7, shared=100)
    world.end()
    assert world.heard.first_tokens[job] == 10 + 2.0


def test_who_sees_everything_expects_what_then_comes() -> None:
    world = World()
    assert world.pool.expected_seconds(100) == 1.0
    world.ask(prompt=100)
    world.ask(prompt=300)
    assert world.pool.expected_seconds(100) == pytest.approx(0.5 + 3.0 + 1.0)
    world.pool.stop()
    assert world.pool.expected_seconds(100) == inf


def _hosted(reply: Reply) -> tuple[Agenda, Heard, Job]:
    agenda = Agenda()
    heard = Heard(agenda)
    job = Job(100, 20, began=0.0, way=0.2, conversation=0, shared=0)
    Hosted(agenda, heard, lambda now: reply, decode=10.0).submit(job)
    agenda.run_until(inf)
    return agenda, heard, job


def test_an_official_api_answers_when_its_replies_say() -> None:
    _, heard, job = _hosted(Reply(1.0))
    assert (heard.first_tokens[job], heard.ends[job]) == (1.1, 3.1)


def test_an_official_api_that_is_busy_says_so_after_a_minute() -> None:
    _, heard, job = _hosted(Reply(60.0, Cause.BROKEN))
    assert (heard.ends[job], heard.causes[job]) == (60.1, Cause.BROKEN)
