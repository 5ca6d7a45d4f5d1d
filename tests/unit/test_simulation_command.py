"""`isochrone simulate`: a table, JSON or a picture; errors in one line before anything is simulated."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from isochrone.cli import main
from isochrone.simulation.contest import ENTRANTS
from isochrone.simulation.scenarios import SCENARIOS
from isochrone.simulation.traffic import SOURCES


def _simulate(*arguments: str) -> Result:
    few = ("--requests", "200", "--clients", "50", "--processes", "1", "--policy", "rtt", "--policy", "ours")
    return CliRunner().invoke(main, ["simulate", *few, *arguments])


def test_the_table_has_a_row_for_each_policy() -> None:
    lines = _simulate().stdout.splitlines()
    assert lines[0].startswith("scenario bad-day: 200 requests to each policy in 0.0 simulated hours")
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["policy", "-" * 19, "lowest round trip", "isochrone"]


def test_json_has_the_figures_and_how_they_came_about() -> None:
    told: dict[str, Any] = json.loads(_simulate("--json", "--seed", "7").stdout)
    assert (told["seed"], told["scenario"]) == (7, "bad-day")
    assert [one["policy"] for one in told["policies"]] == ["lowest round trip", "isochrone"]
    assert {"ttft_p99", "answered_share", "attempts", "regret_ms", "dollars_per_1000"} <= set(told["policies"][0])


def test_progress_goes_to_standard_error() -> None:
    assert "isochrone: 200 of 200 requests" in _simulate("--json").stderr


def test_a_world_of_ones_own_can_be_simulated(tmp_path: Path) -> None:
    config = tmp_path / "own.toml"
    config.write_text(
        '[[region]]\nname = "eu-west-1"\n[[backend]]\nname = "pool"\nregion = "eu-west-1"\n'
        'base_url = "http://127.0.0.1:1/v1"\nmodels = { m = "m" }\n'
    )
    assert _simulate("--config", str(config), "--rate", "0.5").exit_code == 0


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    png = tmp_path / "contest.png"
    assert _simulate("--png", str(png)).exit_code == 0
    assert png.read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_a_picture_is_refused_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    result = _simulate("--png", str(tmp_path / "contest.png"))
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.strip().splitlines()[-1].startswith("Error: --png needs matplotlib")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--scenario", "storm"], "--scenario 'storm' is not known"),
        (["--png", "/nowhere/contest.png"], "there is no folder /nowhere"),
        (["--config", "/nowhere/own.toml"], "/nowhere/own.toml: No such file or directory"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(arguments: list[str], told: str) -> None:
    result = _simulate(*arguments)
    assert result.exit_code == 2
    assert told in result.stderr.strip().splitlines()[-1]


def test_help_names_all_that_can_be_chosen() -> None:
    told = CliRunner().invoke(main, ["simulate", "--help"]).stdout.replace("\n", " ")
    assert [name for name in (*SCENARIOS, *SOURCES, *ENTRANTS) if f"{name}" not in told] == []
