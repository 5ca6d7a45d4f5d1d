"""The node's start script, run with imitated tools: what it starts, in which order, whom it lets in, what it tells."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest

from infra.layers import ROOT
from tests.infra.conftest import Synthesis, start_script

TOOLS = ("bash", "awk", "timeout", "cat", "cut", "date", "mkdir", "mv", "sha256sum")
# Each call is a line of the file `calls`. The engine is healthy unless the file `sick` is there. The file REGION-STAGE
# is what Secrets Manager of that region has at that stage.
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
  "aws secretsmanager"*) cat "$4-$8" ;;
  "sleep 60") [ -e again ] && rm again ;;
esac
"""
HOME, HERE = "us-east-1", "eu-west-1"


@pytest.fixture
def node(tmp_path: Path, app: Synthesis) -> Path:
    """A folder with the script and its tools, and a key in both regions."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in (*TOOLS, "rm"):
        (tools / tool).symlink_to(str(shutil.which(tool)))
    for tool in ("aws", "curl", "docker", "seq", "sleep"):
        (tools / tool).write_text(IMITATED)
        (tools / tool).chmod(0o755)
    # No test waits for ten minutes, or writes where a node does.
    script = start_script(app.templates["iso-pool-eu-west-1"]).replace("SECONDS + 600", "SECONDS + 0")
    script = script.replace("/var/lib/isochrone", str(tmp_path / "own")).replace("/opt/dlami", str(tmp_path))
    (tmp_path / "start.sh").write_text(script + "\nwait\n")
    for region in (HOME, HERE):
        keep(tmp_path, region, "AWSCURRENT", "current", days=7)
    return tmp_path


def keep(node: Path, region: str, stage: str, key: str, *, days: float = 0) -> None:
    """Secrets Manager has this key, as the command line prints it, made so many days ago."""
    made = datetime.now(UTC) - timedelta(days=days)
    (node / f"{region}-{stage}").write_text(f"{key}\t{made.isoformat()}\n")


def start(node: Path) -> list[str]:
    """What the script called, each with its arguments."""
    subprocess.run(["bash", "start.sh"], cwd=node, env={"PATH": str(node / "bin")}, check=False, timeout=30)
    return (node / "calls").read_text().splitlines()


def words_to_the_fleet(calls: list[str]) -> list[str]:
    return [call.partition("--lifecycle-hook-name ")[2] for call in calls if "complete-lifecycle-action" in call]


def let_in(node: Path) -> set[str]:
    """Which of the keys that there are the node lets in."""
    digests = (node / "own/keys").read_text().split()
    found = {key for key in ("current", "pending", "previous") if sha256(key.encode()).hexdigest() in digests}
    assert len(found) == len(digests)
    return found


def test_image_is_there_before_the_engine_is_started_and_waited_for(node: Path) -> None:
    calls = [call.split()[:2] for call in start(node) if call.startswith(("docker", "curl -sf --max-time"))]
    assert calls[:3] == [["docker", "pull"], ["docker", "run"], ["curl", "-sf"]]


def test_model_is_the_first_word_to_the_engine_which_takes_it_nowhere_else(node: Path) -> None:
    (run,) = [call for call in start(node) if call.startswith("docker run")]
    image, model, *options = run.partition("vllm/")[2].split()
    assert image.startswith("vllm-openai:v")
    assert model == "casperhansen/deepseek-r1-distill-qwen-7b-awq"
    assert "--model" not in options


def test_engine_lets_in_whom_the_guard_lets_in(node: Path) -> None:
    (run,) = [call for call in start(node) if call.startswith("docker run")]
    assert run.endswith("--middleware isochrone_guard.Guard")
    assert f"--volume {node}/own:/opt/isochrone:ro --env PYTHONPATH=/opt/isochrone" in run
    assert (node / "own/isochrone_guard.py").read_text() == (ROOT / "infra/constructs/pool_guard.py").read_text()


def test_no_key_stands_in_a_command_or_on_the_disk(node: Path) -> None:
    keep(node, HOME, "AWSPENDING", "pending")
    assert not [call for call in start(node) if "current" in call or "pending" in call]
    assert not [path for path in (node / "own").iterdir() if "pending" in path.read_text() and path.suffix != ".py"]


def test_current_key_and_the_one_that_follows_it_are_let_in(node: Path) -> None:
    keep(node, HOME, "AWSPENDING", "pending")
    start(node)
    assert let_in(node) == {"current", "pending"}


@pytest.mark.parametrize(("days", "keys"), [(0.9, {"current", "previous"}), (1.1, {"current"})])
def test_key_before_is_let_in_for_a_day(node: Path, days: float, keys: set[str]) -> None:
    keep(node, HOME, "AWSCURRENT", "current", days=days)
    keep(node, HOME, "AWSPREVIOUS", "previous", days=30)
    start(node)
    assert let_in(node) == keys


def test_node_that_runs_looks_for_new_keys(node: Path) -> None:
    (node / "again").touch()
    calls = [call for call in start(node) if "--version-stage AWSCURRENT" in call]
    assert [call.split()[4] for call in calls] == [HOME, HOME]


def test_copy_in_the_own_region_is_enough_to_start_with(node: Path) -> None:
    (node / f"{HOME}-AWSCURRENT").unlink()
    calls = start(node)
    assert let_in(node) == {"current"}
    assert words_to_the_fleet(calls)[0] == "launch --lifecycle-action-result CONTINUE"


def test_node_without_a_key_is_given_back_before_it_costs_anything(node: Path) -> None:
    for region in (HOME, HERE):
        (node / f"{region}-AWSCURRENT").unlink()
    calls = start(node)
    assert words_to_the_fleet(calls) == ["launch --lifecycle-action-result ABANDON"]
    assert not [call for call in calls if call.startswith("docker")]


def test_keys_stay_as_they_are_while_they_cannot_be_read(node: Path) -> None:
    (node / "again").touch()
    script = (node / "start.sh").read_text()
    (node / "start.sh").write_text(script.replace("keep_keys &", f"rm {HOME}-AWSCURRENT\nkeep_keys &"))
    start(node)
    assert let_in(node) == {"current"}


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


def test_script_fits_into_the_data_that_a_node_is_started_with(app: Synthesis) -> None:
    assert len(start_script(app.templates["iso-pool-eu-west-1"]).encode()) < 16 * 1024
