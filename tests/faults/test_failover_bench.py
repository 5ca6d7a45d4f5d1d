"""FailoverBench's sixteen faults, with shortened times. The full timings: `python -m tests.faults.failover_bench`."""

from __future__ import annotations

import pytest

from tests.faults.failover_bench import PROFILES, SCENARIOS, Call, Outcome, Provider, Scenario, bench_edge, judge, run

QUICK = PROFILES["quick"]


@pytest.mark.parametrize("prefill", [False, True], ids=["splice", "continue"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.id)
async def test_fault_is_survived(scenario: Scenario, prefill: bool) -> None:
    provider = Provider(QUICK)
    async with provider.upstream, bench_edge(provider, prefill=prefill) as edge:
        outcome = await run(scenario, edge, provider)
    assert judge(scenario, outcome, QUICK) == ("pass", "")


async def test_one_edge_survives_all_faults_in_a_row() -> None:
    provider = Provider(QUICK)
    async with provider.upstream, bench_edge(provider, prefill=True) as edge:
        verdicts = {one.id: judge(one, await run(one, edge, provider), QUICK).word for one in SCENARIOS}
    assert verdicts == {one.id: "pass" for one in SCENARIOS}


def test_truncated_success_is_no_pass() -> None:
    scenario = next(one for one in SCENARIOS if one.id == "S08")
    truncated = Outcome(Call(True, 1.0, "word1 word2"), [], "s08", "ok", alive_after=True)
    assert judge(scenario, truncated, QUICK).word == "fail"
