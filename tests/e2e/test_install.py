"""scripts/install.sh against an imitated Python: what it says when something is missing, and what it takes for done."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("bash", "cat", "cksum", "df", "awk", "mkdir", "rm", "sleep", "grep", "tail", "flock", "uname", "dirname", "cp")

# Stands for python3, and for .venv's python, pip and npm once `-m venv` has copied it there. FAKE_FAIL picks a command
# that says FAKE_WORDS and fails; every command that succeeds is noted in the file `calls`.
FAKE = """\
#!/usr/bin/env bash
case "$0 $*" in
  *" -c "*) exit 0 ;;
  *" -V") echo Python "${FAKE_VERSION:-3.11.9}"; exit 0 ;;
  *"/pip --version") echo "pip 24 from $PWD/.venv/lib (python 3.11)"; exit 0 ;;
esac
if [ -n "$FAKE_FAIL" ] && [[ "$0 $*" == *"$FAKE_FAIL"* ]]; then echo "$FAKE_WORDS" >&2; exit 1; fi
if [[ "$*" == "-m venv --clear .venv" ]]; then
  mkdir -p .venv/bin
  for name in python pip npm; do cp "$0" .venv/bin/$name; done
fi
[[ "$0" == */npm ]] && mkdir -p node_modules
[[ "$*" == *build_layers* ]] && mkdir -p build/layers
if [ -n "$FAKE_SLOW" ] && [[ "$0 $*" == *"$FAKE_SLOW"* ]]; then echo $$ >slow; exec sleep 60; fi
echo "${0##*/} $*" >>calls
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """As much of a fresh clone as the script reads, with the imitated python3 first on its PATH."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/install.sh", tmp_path / "scripts")
    for name in (
        "requirements.txt",
        "requirements-dev.txt",
        "requirements-light.txt",
        "requirements-model.txt",
        "pyproject.toml",
        "package-lock.json",
    ):
        (tmp_path / name).write_text(name)
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        if found:
            (tmp_path / "bin" / tool).symlink_to(found)
    imitated = tmp_path / "bin/python3"
    imitated.write_text(FAKE)
    imitated.chmod(0o755)
    return tmp_path


def install(clone: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [clone / "scripts/install.sh"],
        env={"PATH": str(clone / "bin"), "FAKE_FAIL": "", "FAKE_WORDS": "", **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def calls(clone: Path) -> list[str]:
    return (clone / "calls").read_text().splitlines()


def test_fresh_clone_gets_every_step_in_order(clone: Path) -> None:
    done = install(clone)
    assert (done.returncode, done.stderr) == (0, "")
    assert [call.split()[0:4] for call in calls(clone)] == [
        ["python3", "-m", "venv", "--clear"],
        ["python", "-m", "pip", "install"],
        ["python", "-m", "pip", "install"],
        ["python", "-m", "pip", "install"],
        ["python", "-m", "pip", "install"],
        ["npm", "ci", "--ignore-scripts", "--no-audit"],
        ["python", "scripts/build_layers.py"],
        ["python", "scripts/build_layers.py", "--platform-of-this-machine"],
    ]
    assert all("--require-hashes" in call for call in calls(clone)[1:4])


def test_second_install_is_silent_and_does_nothing(clone: Path) -> None:
    install(clone)
    before = calls(clone)
    again = install(clone)
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert calls(clone) == before


def test_changed_lock_file_repeats_only_its_own_step(clone: Path) -> None:
    install(clone)
    (clone / "calls").unlink()
    (clone / "package-lock.json").write_text("changed")
    assert install(clone).returncode == 0
    assert calls(clone)[0].startswith("npm ci")
    assert not any("pip install" in call for call in calls(clone))


def test_deleted_virtual_environment_is_made_again(clone: Path) -> None:
    install(clone)
    shutil.rmtree(clone / ".venv")
    (clone / "calls").unlink()
    assert install(clone).returncode == 0
    assert not any(call.startswith("npm") for call in calls(clone))


def test_layers_are_built_anew_for_another_python(clone: Path) -> None:
    install(clone)
    (clone / "calls").unlink()
    assert install(clone, FAKE_VERSION="3.13.1").returncode == 0
    assert calls(clone) == [
        "python scripts/build_layers.py",
        "python scripts/build_layers.py --platform-of-this-machine",
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_install_that_is_stopped_leaves_no_pip_behind(clone: Path, number: signal.Signals) -> None:
    running = subprocess.Popen(
        [clone / "scripts/install.sh"],
        env={"PATH": str(clone / "bin"), "FAKE_FAIL": "", "FAKE_SLOW": "pip install"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    pip = int(eventually((clone / "slow").read_text))
    running.send_signal(number)
    said, complaint = running.communicate(timeout=30)
    assert running.returncode == 130
    assert complaint.splitlines() == ["", "install: stopped; run it again to go on"]
    assert "Traceback" not in said
    with pytest.raises(ProcessLookupError):
        os.kill(pip, 0)


def eventually(read: Callable[[], str]) -> str:
    """What `read` gives once there is something to read."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with suppress(FileNotFoundError):
            if text := read():
                return text
        time.sleep(0.05)
    raise AssertionError("there was nothing to read")


def test_moved_folder_is_installed_anew_because_scripts_hold_absolute_paths(clone: Path) -> None:
    install(clone)
    moved = clone.with_name("moved")
    clone.rename(moved)
    (moved / "calls").unlink()
    assert install(moved).returncode == 0
    assert len(calls(moved)) >= 4


def test_failed_step_is_repeated_and_the_finished_ones_are_not(clone: Path) -> None:
    assert install(clone, FAKE_FAIL="/npm ci", FAKE_WORDS="ENOTFOUND").returncode == 1
    (clone / "calls").unlink()
    assert install(clone).returncode == 0
    assert calls(clone)[0].startswith("npm ci")
    assert not any("pip install" in call for call in calls(clone))


@pytest.mark.parametrize(
    ("command", "words", "told"),
    [
        ("-m venv", "Error: ensurepip is not available", "apt install python3-venv"),
        (
            "pip install",
            "connection broken by NewConnectionError: Temporary failure in name resolution",
            "check the network or the proxy",
        ),
        ("pip install", "Read timed out", "check the network or the proxy"),
        ("pip install", "OSError: [Errno 28] No space left on device", "the disk is full"),
        ("pip install", "THESE PACKAGES DO NOT MATCH THE HASHES", "arrived damaged or broke off"),
        ("pip install", "ERROR: No matching distribution found for x", "not found for this machine"),
        ("/npm ci", "npm error code ENOTFOUND", "check the network or the proxy"),
        ("/npm ci", "npm error code ENOSPC", "the disk is full"),
        ("/npm ci", "npm error something new", "npm error something new"),
    ],
)
def test_failure_is_one_line_with_the_next_step_and_the_log(clone: Path, command: str, words: str, told: str) -> None:
    done = install(clone, FAKE_FAIL=command, FAKE_WORDS=words)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert told in done.stderr
    assert ".local/log/install.log" in done.stderr


def test_machine_without_a_new_enough_python_is_told_so(clone: Path) -> None:
    (clone / "bin/python3").write_text("#!/usr/bin/env bash\nexit 1\n")
    done = install(clone)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "install: Python 3.11 or newer is needed, none was found: "
        "install it or name it (make install PYTHON=/path/to/python3)"
    ]


def test_newer_python_is_found_beside_one_that_is_too_old(clone: Path) -> None:
    (clone / "bin/python3").rename(clone / "bin/python3.12")
    (clone / "bin/python3").write_text("#!/usr/bin/env bash\nexit 1\n")
    (clone / "bin/python3").chmod(0o755)
    assert install(clone).returncode == 0
    assert calls(clone)[0].startswith("python3.12 -m venv")


def test_full_disk_is_told_before_anything_is_made(clone: Path) -> None:
    (clone / "bin/df").unlink()
    (clone / "bin/df").write_text("#!/usr/bin/env bash\necho header\necho disk 9 9 12 9 /\n")
    (clone / "bin/df").chmod(0o755)
    done = install(clone)
    assert done.returncode == 1
    assert "only 12 MB free" in done.stderr
    assert not (clone / ".venv").exists()


def test_clone_that_cannot_be_written_to_is_told_so(clone: Path) -> None:
    if os.geteuid() == 0:
        (clone / ".local").write_text("a file is in the way")
    else:
        clone.chmod(0o555)
    done = install(clone)
    clone.chmod(0o755)
    assert done.returncode == 1
    assert "cannot write into" in done.stderr
