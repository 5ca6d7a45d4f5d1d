"""`scripts/replay_answers.py` on traces that are small enough to count by hand."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pytest

import replay_answers
from isochrone.settings import Price, Warm
from replays import played, prefixes
from replays.known import Engine, Replay, figures_of
from replays.traces import DAY, HOUR, Asked, faq, mooncake
from replays.warmed import play_warmed

# Each generation takes 10 s and costs 0.001 dollars.
ENGINE = Engine(before=0.0, input_per_second=100.0, output_per_second=10.0, price=Price(input=0.0, output=20.0))


def asked(at: float, prompt: str = "p") -> Asked:
    return Asked(at, prompt, 500, 50)


def replayed(*rows: Asked, ttl: int = 86_400) -> dict[str, object]:
    replay = Replay(ENGINE, ttl=ttl)
    played.run(replay.play(rows))
    found = figures_of(replay)
    return {tier: one["hits"] for tier, one in found["tiers"].items()} | {
        name: found[name] for name in ("requests", "seconds_saved", "dollars_saved", "waited_seconds")
    }


def test_a_prompt_that_was_answered_before_is_a_hit() -> None:
    found = replayed(asked(0), asked(20), asked(30, "other"))
    assert (found["requests"], found["memory"]) == (3, 1)
    assert found["seconds_saved"] == pytest.approx(9.995)
    assert found["dollars_saved"] == pytest.approx(0.001)
    assert found["waited_seconds"] == 20.0


def test_a_prompt_that_is_in_flight_is_coalesced_and_saves_what_had_passed() -> None:
    found = replayed(asked(0), asked(4), asked(9))
    assert (found["requests"], found["coalesced"]) == (3, 2)
    assert found["seconds_saved"] == pytest.approx(4 + 9)
    assert found["waited_seconds"] == pytest.approx(10 + 6 + 1)


def test_memory_is_asked_first_and_the_store_remembers_longer() -> None:
    found = replayed(asked(0), asked(20), asked(20 + 400))
    assert (found["memory"], found["store"]) == (1, 1)


def test_an_answer_past_its_time_is_no_hit() -> None:
    found = replayed(asked(0), asked(200), ttl=100)
    assert (found["requests"], found["waited_seconds"]) == (2, 20.0)
    assert "memory" not in found


def test_a_trace_is_read_gzipped_or_not_and_the_same_blocks_and_length_are_the_same_prompt(tmp_path: Path) -> None:
    rows = [
        {"t_ms": 2000, "in": 600, "out": 5, "h": [1, 2]},
        {"t_ms": 0, "in": 600, "out": 4, "h": [1, 2]},
        {"t_ms": 3000, "in": 601, "out": 0, "h": [1, 2]},
    ]
    text = "\n".join(map(json.dumps, rows))
    plain, zipped = tmp_path / "t.jsonl", tmp_path / "t.jsonl.gz"
    plain.write_text(text)
    zipped.write_bytes(gzip.compress(text.encode()))
    found = mooncake(plain)
    assert found == mooncake(zipped)
    assert [(row.at, row.output_tokens) for row in found] == [(0.0, 4), (2.0, 5), (3.0, 1)]
    assert found[0].prompt == found[1].prompt != found[2].prompt


def test_a_block_is_found_only_behind_the_block_before_it() -> None:
    rows = [Asked(0, "a", 1, 1, (1, 2, 3)), Asked(1, "b", 1, 1, (1, 2, 4)), Asked(2, "c", 1, 1, (9, 2, 3))]
    one = prefixes.hit_ratio(rows, lambda row: 0, nodes=1, capacity=None)
    assert one == pytest.approx(2 / 9)


def test_a_node_forgets_what_it_used_longest_ago() -> None:
    rows = [Asked(number, "", 1, 1, (number % 3,)) for number in range(30)]
    assert prefixes.hit_ratio(rows, lambda row: 0, nodes=1, capacity=2) == 0.0
    assert prefixes.hit_ratio(rows, lambda row: 0, nodes=1, capacity=3) == pytest.approx(0.9)


def test_affinity_sends_to_one_node_what_begins_alike_and_chance_does_not() -> None:
    rows = [Asked(number, "", 1, 1, (0, 1 + number % 40, 100 + number)) for number in range(800)]
    by_affinity = prefixes.hit_ratio(rows, prefixes.by_affinity(4), nodes=4, capacity=None)
    at_random = prefixes.hit_ratio(rows, prefixes.at_random(4, random.Random(1)), nodes=4, capacity=None)
    assert by_affinity == pytest.approx((800 - 4 + 800 - 40) / 2400)
    assert at_random < by_affinity - 0.03


def test_a_made_up_service_desk_is_the_same_for_the_same_seed_and_in_order() -> None:
    rows = faq(random.Random(3), days=7, questions=60)
    assert rows == faq(random.Random(3), days=7, questions=60) == sorted(rows)
    assert rows != faq(random.Random(4), days=7, questions=60)
    assert sum(row.prompt.startswith("once") for row in rows) / len(rows) == pytest.approx(0.3, abs=0.01)


def test_warming_spares_those_who_ask_daily_their_wait() -> None:
    rows = [asked(day * DAY + 9 * HOUR + 600 * (day % 3), "daily") for day in range(10)]
    rows += [asked(day * DAY + hour * HOUR + 1, f"{day} {hour}") for day in range(10) for hour in range(8, 20)]
    plain, warmed = (Replay(ENGINE, ttl=86_400, measure_from=5 * DAY) for _ in range(2))
    played.run(plain.play(sorted(rows)))
    beside = played.run(play_warmed(warmed, Warm(interval=3600), sorted(rows)))
    without, having = figures_of(plain), figures_of(warmed)
    assert having["requests"] == without["requests"] == 5 * 13
    assert without["hits"] < having["hits"] == 5
    assert beside.made == beside.spared == 5
    assert having["waited_seconds"] == without["waited_seconds"] - 10 * (having["hits"] - without["hits"])


def test_what_is_asked_once_is_not_warmed() -> None:
    rows = [asked(number * 600, f"once {number}") for number in range(500)]
    warmed = Replay(ENGINE, ttl=86_400)
    assert played.run(play_warmed(warmed, Warm(interval=3600), rows)).made == 0


def test_it_prints_a_table_for_each_trace_and_one_for_the_desk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "trace.jsonl"
    rows = [{"t_ms": second * 1000, "in": 600, "out": 40, "h": [0, second % 4]} for second in range(0, 60, 6)]
    trace.write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.setattr(replay_answers, "faq", lambda chance: faq(chance, days=8, questions=12))
    monkeypatch.setattr("sys.argv", ["replay_answers.py", str(trace), "--interval", "21600"])
    assert replay_answers.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "trace.jsonl: 10 requests, 0.0 h"
    assert [line.split()[:3] for line in lines[2:6]] == [
        ["memory", "8", "80.00%"],
        ["store", "0", "0.00%"],
        ["coalesced", "0", "0.00%"],
        ["all", "8", "80.00%"],
    ]
    assert sum(line.startswith("service desk, made up: ") for line in lines) == 1
    monkeypatch.setattr("sys.argv", ["replay_answers.py", "--json", "--interval", "21600"])
    assert replay_answers.main() == 0
    (desk,) = json.loads(capsys.readouterr().out)
    assert desk["with_warming"]["hits"] >= desk["without_warming"]["hits"]
