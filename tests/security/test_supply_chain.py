"""What is installed and deployed is what was looked at: everything is pinned by a hash, or said not to be."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCKED = sorted(ROOT.glob("requirements*.txt"))

_PIN = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*(\[[a-z,]+\])?==[^\s;]+( ; [^\\]+)?$")
_ACTION = re.compile(r"^\s*-?\s*uses:\s*(\S+)", re.MULTILINE)
_BY_HASH = re.compile(r"@[0-9a-f]{40}$|@sha256:[0-9a-f]{64}$|^\./")


def entries(text: str) -> Iterator[tuple[str, list[str]]]:
    """What a locked file asks for, and the hashes that it takes for it."""
    for entry in text.replace("\\\n", " ").splitlines():
        asked, *hashes = entry.split("#")[0].split("--hash=")
        if asked.strip():
            yield asked.strip(), [digest.strip() for digest in hashes]


def loose(text: str) -> list[str]:
    """What a locked file asks for without saying which bytes."""
    return [
        asked
        for asked, hashes in entries(text)
        if not _PIN.match(asked)
        or not hashes
        or not all(re.fullmatch("sha256:[0-9a-f]{64}", digest) for digest in hashes)
    ]


def movable(workflow: str) -> list[str]:
    """The actions of a workflow that somebody else can change under the same name."""
    return [action for action in _ACTION.findall(workflow) if not _BY_HASH.search(action)]


@pytest.mark.parametrize("file", LOCKED, ids=lambda file: file.name)
def test_every_package_of_python_is_pinned_by_its_hash(file: Path) -> None:
    text = file.read_text()
    assert list(entries(text))
    assert loose(text) == []


def test_every_list_of_packages_has_its_locked_one() -> None:
    assert [file.stem for file in sorted(ROOT.glob("requirements*.in"))] == [file.stem for file in LOCKED]


@pytest.mark.parametrize(
    "line",
    ["aiohttp", "aiohttp>=3", "aiohttp==3.14", "-e .", "a @ https://example.com/a.whl --hash=sha256:" + "0" * 64],
)
def test_what_is_not_pinned_is_found(line: str) -> None:
    assert loose(line) != []


@pytest.mark.parametrize("script", ["scripts/install.sh", "scripts/build_layers.py"])
def test_no_package_is_installed_without_looking_at_its_hash(script: str) -> None:
    """But for this one, which lies here."""
    text = (ROOT / script).read_text()
    installs = [line for line in re.split(r"\n\s*\n|\n", text) if re.search(r"pip.{1,6}install", line)]
    assert installs
    assert [line for line in installs if "require-hashes" not in line and "-e ." not in line] == []


def test_every_package_of_npm_is_pinned_by_its_hash_and_comes_from_wherever_the_machine_says() -> None:
    lock = json.loads((ROOT / "package-lock.json").read_text())
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert packages
    for name, package in packages.items():
        assert re.fullmatch("sha512-[A-Za-z0-9+/]{86}==", package["integrity"]), name
        assert "resolved" not in package, name
    assert "npm ci --ignore-scripts" in (ROOT / "scripts/install.sh").read_text()
    wanted = json.loads((ROOT / "package.json").read_text())["dependencies"]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in wanted.values())


def test_no_workflow_uses_an_action_that_can_change_under_its_name() -> None:
    workflows = [*(ROOT / ".github").rglob("*.yml"), *(ROOT / ".github").rglob("*.yaml")]
    assert {file.name: found for file in workflows if (found := movable(file.read_text()))} == {}


def test_action_that_can_change_under_its_name_is_found() -> None:
    steps = "steps:\n  - uses: actions/checkout@v4\n  - uses: ./.ci/own\n  - uses: a/b@" + "0" * 40 + "\n"
    assert movable(steps) == ["actions/checkout@v4"]


def test_what_is_taken_by_its_name_alone_is_said() -> None:
    """The image of the engine and the model: nothing here could know their hashes."""
    node = (ROOT / "infra/constructs/pool_node.sh").read_text()
    assert "vllm/vllm-openai:$version" in node
    said = " ".join((ROOT / "SECURITY.md").read_text().split())
    assert "**vLLM's image** is taken by its version and the model by its name, without a hash" in said
