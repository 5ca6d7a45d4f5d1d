"""The node's start script, run with imitated tools: what it starts, in which order, and what it tells the fleet."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.infra.conftest import Synthesis, start_script

TOOLS = ("bash", "awk", "timeout")
# Each call is a line of the file `calls`. The engine is healthy unless the file `sick` is there.
IMITATED = """\
#!/usr/bin/env bash
name=${0##*/}
[ "$name" = sleep ] || echo "$name $*" >>calls
case "$name $*" in
  *"/health") [ ! -e sick ] ;;
  *"/metrics") echo "vllm:num_requests_running 0" ;;
  *"target-lifecycle-state") echo Terminated ;;
  *"instance-id") echo i-1 ;;
  "docker pull"*) [ ! -e no-image ] ;;
  "aws autoscaling"*) [ ! -e no-hook ] ;;
esac
"""


@pytest.fixture
def node(tmp_path: Path, app: Synthesis) -> Path:
    """A folder with the script and its tools."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in TOOLS:
        (tools / tool).symlink_to(str(shutil.which(tool)))
    for tool in ("aws", "curl", "docker", "mkdir", "seq", "sleep"):
        (tools / tool).write_text(IMITATED)
        (tools / tool).chmod(0o755)
    # No test waits for ten minutes.
    script = start_script(app.templates["iso-pool-eu-west-1"]).replace("SECONDS + 600", "SECONDS + 0")
    (tmp_path / "start.sh").write_text(script + "\nwait\n")
    return tmp_path


def start(node: Path) -> list[str]:
    """What the script called, each with its arguments."""
    subprocess.run(["bash", "start.sh"], cwd=node, env={"PATH": str(node / "bin")}, check=False, timeout=30)
    return (node / "calls").read_text().splitlines()


def words_to_the_fleet(calls: list[str]) -> list[str]:
    return [call.partition("--lifecycle-hook-name ")[2] for call in calls if "complete-lifecycle-action" in call]


def test_image_is_there_before_the_engine_is_started_and_waited_for(node: Path) -> None:
    calls = [call.split()[:2] for call in start(node) if call.startswith(("docker", "curl -sf --max-time"))]
    assert calls[:3] == [["docker", "pull"], ["docker", "run"], ["curl", "-sf"]]


def test_model_is_the_first_word_to_the_engine_which_takes_it_nowhere_else(node: Path) -> None:
    (run,) = [call for call in start(node) if call.startswith("docker run")]
    image, model, *options = run.partition("vllm/")[2].split()
    assert image.startswith("vllm-openai:v")
    assert model == "casperhansen/deepseek-r1-distill-qwen-7b-awq"
    assert "--model" not in options


def test_node_that_is_healthy_joins_and_lets_go_when_it_is_asked_to(node: Path) -> None:
    assert words_to_the_fleet(start(node)) == [
        "launch --lifecycle-action-result CONTINUE",
        "terminate --lifecycle-action-result CONTINUE",
    ]


@pytest.mark.parametrize("trouble", ["sick", "no-image"])
def test_node_that_cannot_serve_is_given_back(node: Path, trouble: str) -> None:
    (node / trouble).touch()
    assert words_to_the_fleet(start(node)) == ["launch --lifecycle-action-result ABANDON"]


def test_node_stays_when_it_is_ready_and_nobody_waits_for_its_word(node: Path) -> None:
    (node / "no-hook").touch()
    assert "launch --lifecycle-action-result ABANDON" not in words_to_the_fleet(start(node))
