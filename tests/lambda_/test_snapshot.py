"""Copies of one SnapStart snapshot are strangers: none shares a name, a chance or a chain of the audit with another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from isochrone.audit.chain import Link, link_of
from tests.lambda_.harness import ROOT
from tests.lambda_.snapshot_copies import COPIES

CONFIG = """
[[region]]
name = "us-east-1"
default = true

[[backend]]
name = "official"
kind = "api"
base_url = "http://127.0.0.1:9/v1"
models = { "m" = "m" }

[audit]
to = "file"
folder = "FOLDER/audit"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the copies have left their names and their audit log."""
    folder = tmp_path_factory.mktemp("snapshot")
    config = folder / "isochrone.toml"
    config.write_text(CONFIG.replace("FOLDER", str(folder)))
    path = os.pathsep.join([str(ROOT / "functions/edge"), str(ROOT / "layers/streaming/python"), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "ISOCHRONE_CONFIG": str(config), "AWS_REGION": "us-east-1"}
    script = str(ROOT / "tests/lambda_/snapshot_copies.py")
    subprocess.run([sys.executable, script, str(folder)], env=environment, check=True, capture_output=True, timeout=60)
    return folder


@pytest.mark.parametrize("name", ["request", "holder", "jitter", "chance"])
def test_copies_have_names_and_chances_of_their_own(folder: Path, name: str) -> None:
    copies: list[dict[str, Any]] = [json.loads((folder / f"{i}.json").read_text()) for i in range(COPIES)]
    assert all(copy[name] for copy in copies)
    assert len({copy[name] for copy in copies}) == COPIES


def test_each_copy_begins_a_chain_of_the_audit(folder: Path) -> None:
    lines = [line for path in (folder / "audit").rglob("*.jsonl") for line in path.read_bytes().splitlines()]
    links = [link for line in lines if (link := link_of(line))]
    assert len(links) == len(lines) > 0
    assert len({link.writer for link in links}) == COPIES
    assert sorted(link.seq for link in links) == sorted([*_numbers(links)] * COPIES)


def _numbers(links: list[Link]) -> list[int]:
    """Those of one copy: both did the same."""
    return [link.seq for link in links if link.writer == links[0].writer]
