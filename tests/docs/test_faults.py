"""docs/faults.md names tests that are there, and commands that run."""

from __future__ import annotations

import re
from importlib.util import find_spec

from tests.docs.repository import known_tests, page
from tests.faults.failover_bench import SCENARIOS

PAGE = page("docs/faults.md")


def test_tests_that_are_named_exist() -> None:
    named = {name for name in PAGE.code if name.startswith(("test_", "Test"))}
    assert len(named) > 50
    assert sorted(named - known_tests()) == []


def test_programs_that_are_named_exist() -> None:
    named = set(re.findall(r"-m (tests[a-z_.]+)", PAGE.text))
    assert named
    assert [name for name in sorted(named) if find_spec(name) is None] == []


def test_every_scenario_of_the_bench_is_described() -> None:
    rows = [line for line in PAGE.section("FailoverBench").text.splitlines() if line.startswith("| S")]
    described: set[int] = set()
    for row in rows:
        first, _, last = row.partition(":")[0].partition(" to ")
        numbers = [int(number) for number in re.findall(r"S(\d\d)", first + last)]
        described.update(range(numbers[0], numbers[-1] + 1) if last else numbers)
    assert described == {int(scenario.id[1:]) for scenario in SCENARIOS}
