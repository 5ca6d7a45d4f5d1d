"""The edge function, as Lambda runs it: its standard output and its standard error become logs that others may read."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.harness import REGIONS
from tests.lambda_.harness import ROOT, rest_event
from tests.security.canaries import BEARER, JWT, KEY, KEYS, UPSTREAM_KEY, files_in, leaks, question
from tests.security.test_canaries import OWN
from tests.upstream import SCRIPTS, Upstream

pytestmark = pytest.mark.anyio

MODELS = ("ok", "dead", "cut", "error-first", "html", "unauthorized", *OWN)
CONFIG = """
[[region]]
name = "us-east-1"
default = true

[[backend]]
name = "pool"
region = "us-east-1"
base_url = "{url}"
models = {models}
api_key_env = "POOL_KEY"
assemble = false

[[key]]
id = "a"
tenant = "a"
sha256 = "{digest}"

[retry]
attempts = 1

[deadlines]
first_token = 0.5
stall = 0.5
total = 5

[audit]
to = "file"
folder = "{folder}"
"""
# Results go into a file: what stands in the output then is what a log would have.
CALLER = """
import json, logging, sys

logging.basicConfig(level=logging.DEBUG)

class Context:
    def get_remaining_time_in_millis(self):
        return 30_000

from handler import handler
told = []
for event in json.loads(sys.stdin.read()):
    try:
        told.append(handler(event, Context()))
    except ValueError as error:
        print(error)
open(sys.argv[1], "w").write(json.dumps(told))
"""


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as upstream:
        upstream.scripts = {**SCRIPTS, **OWN}
        upstream.gate.set()
        yield upstream


def asked(body: str, **headers: str) -> dict[str, Any]:
    event = rest_event("POST", "/v1/chat/completions", body, content_type="application/json", **headers)
    return {**event, "queryStringParameters": {"api_key": KEY}}


def events() -> list[dict[str, Any]]:
    """Good and bad ones; the last two are no requests at all."""
    bodies = [json.dumps({"model": name, **question(stream=stream)}) for name in MODELS for stream in (False, True)]
    good = [asked(body, **BEARER) for body in bodies]
    strangers = [asked(bodies[0], authorization=f"Bearer {JWT}"), asked(bodies[0], x_api_key=KEY)]
    bad = [asked(body, **BEARER) for body in (bodies[0][:-5], bodies[0].replace('"messages"', '"massages"'))]
    packed = {**asked(bodies[0], **BEARER), "isBase64Encoded": True}
    return [*good, *strangers, *bad, packed, {"source": "aws.events", "detail": bodies[0], "key": KEY}]


async def test_log_of_a_function_and_its_metrics_hold_no_canary(upstream: Upstream, tmp_path: Path) -> None:
    models = "{ " + ", ".join(f'"{name}" = "{name}"' for name in MODELS) + " }"
    config, told = tmp_path / "isochrone.toml", tmp_path / "told.json"
    text = CONFIG.format(url=upstream.base_url, models=models, digest=KEYS[0]["sha256"], folder=tmp_path / "audit")
    config.write_text(text)
    path = os.pathsep.join([str(ROOT / "functions/edge"), str(ROOT / "layers/core/python")])
    variables = {"PYTHONPATH": path, "ISOCHRONE_CONFIG": str(config), "AWS_REGION": REGIONS[0]}
    variables |= {"POOL_KEY": UPSTREAM_KEY, "PYTHONFAULTHANDLER": "1", "TMPDIR": str(tmp_path)}
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-W", "error", "-X", "dev", "-c", CALLER, str(told))
    process = await asyncio.create_subprocess_exec(*command, env=variables, stdin=pipe, stdout=pipe, stderr=pipe)
    output, errors = await process.communicate(json.dumps(events()).encode())
    assert process.returncode == 0, errors.decode()
    results = json.loads(told.read_bytes())
    assert len(results) == len(events()) - 2
    assert {200, 400, 401, 503} <= {result["statusCode"] for result in results}
    lines = output.decode().splitlines()
    assert [sorted(json.loads(line)["_aws"]["CloudWatchMetrics"][0]["Dimensions"][0]) for line in lines[:1]] == [
        ["Region"]
    ]
    assert "DEBUG:asyncio" in errors.decode()
    audit = files_in(tmp_path / "audit")
    assert audit.count('"record":"request"') == len(results)
    assert leaks(output) + leaks(errors) + leaks(audit) == []
