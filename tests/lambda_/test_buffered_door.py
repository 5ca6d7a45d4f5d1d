"""`handler.handler`, called as Lambda's own runtime and emulators call it: from outside any event loop."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from isochrone.settings import parse, table_name
from isochrone.stores.dynamodb.client import connect
from isochrone.stores.dynamodb.directory import DynamoDirectoryStore
from isochrone.stores.dynamodb.tables import create_tables
from tests.contract.conftest import PATIENT
from tests.lambda_.harness import ROOT, rest_event
from tests.lambda_.test_edge_function import CONFIG, ask, backend_running

CALLER = """
import json, sys

class Context:
    def get_remaining_time_in_millis(self):
        return 30_000

from handler import handler
for event in json.loads(sys.stdin.read()):
    try:
        result = handler(event, Context())
    except ValueError as error:
        result = {"error": str(error)}
    print(json.dumps(result))
"""


async def called(folder: Path, url: str, *events: dict[str, Any]) -> list[dict[str, Any]]:
    """The results of these events, answered one after another by one process that warns of nothing."""
    return [line for line in await said(folder, url, *events) if "_aws" not in line]


async def said(folder: Path, url: str, *events: dict[str, Any]) -> list[dict[str, Any]]:
    """These results, and the lines of metrics between them."""
    lines, errors = await run(folder, CONFIG.format(url=url), *events)
    assert errors == ""
    assert sum("HealthyPools" in line for line in lines) == 1, "one line of a metric, however many events"
    return lines


async def run(folder: Path, text: str, *events: dict[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """What a function with this configuration writes, and what it writes to its log besides."""
    config = folder / "isochrone.toml"
    config.write_text(text)
    path = os.pathsep.join([str(ROOT / "functions/edge"), str(ROOT / "layers/core/python")])
    variables = {"PYTHONPATH": path, "ISOCHRONE_CONFIG": str(config), "AWS_REGION": "us-east-1"}
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-W", "error", "-X", "dev", "-c", CALLER)
    process = await asyncio.create_subprocess_exec(*command, env=variables, stdin=pipe, stdout=pipe, stderr=pipe)
    output, errors = await process.communicate(json.dumps(events).encode())
    assert process.returncode == 0
    return [json.loads(line) for line in output.splitlines()], errors.decode()


def chat(**fields: Any) -> dict[str, Any]:
    return rest_event("POST", "/v1/chat/completions", json.dumps(ask(**fields)), content_type="application/json")


async def test_whole_answers_over_one_connection_that_outlives_the_invocation(tmp_path: Path) -> None:
    questions = [chat(messages=[{"role": "user", "content": str(number)}]) for number in range(3)]
    async with backend_running() as (backend, url):
        results = await called(tmp_path, url, *questions)
    assert [result["statusCode"] for result in results] == [200] * 3
    assert json.loads(results[0]["body"])["choices"][0]["message"]["content"] == "hello"
    assert results[0]["headers"]["x-isochrone-backend"] == "pool-us"
    assert (backend.calls, len(backend.connections)) == (3, 1)


async def test_stream_is_collected_into_one_body(tmp_path: Path) -> None:
    async with backend_running() as (backend, url):
        for _ in range(3):
            backend.go_on.release()
        [result] = await called(tmp_path, url, chat(stream=True))
    assert result["headers"]["content-type"].startswith("text/event-stream")
    assert result["body"].count("data: ") == 5
    assert result["body"].endswith("data: [DONE]\n\n")
    assert result["isBase64Encoded"] is False


async def test_event_that_is_no_http_request_is_an_error_and_the_next_is_answered(tmp_path: Path) -> None:
    results = await called(tmp_path, "http://127.0.0.1:1", {"source": "aws.events"}, rest_event(path="/healthz"))
    assert "not an HTTP event" in results[0]["error"]
    assert results[1]["statusCode"] == 200


async def test_what_answers_saved_is_said_in_a_line_of_its_own_once_a_minute(tmp_path: Path) -> None:
    async with backend_running() as (_, url):
        lines = await said(tmp_path, url, chat(), chat(), chat())
    assert [line["headers"]["x-isochrone-cache"] for line in lines if "headers" in line] == ["miss", "hit", "hit"]
    (saved,) = [line for line in lines if "Misses" in line]
    assert (saved["Misses"], saved["Region"]) == (1, "us-east-1")
    assert saved["_aws"]["CloudWatchMetrics"][0]["Namespace"] == "Isochrone/isochrone"


@pytest.mark.cloud
async def test_policies_of_the_directory_that_nobody_can_obey_are_a_metric(tmp_path: Path, ministack: str) -> None:
    state = f'[service]\nname = "t{uuid4().hex[:12]}"\n[state]\nkind = "dynamodb"\nendpoint_url = "{ministack}"\n'
    text = state + CONFIG.format(url="http://127.0.0.1:1") + "policies = true\n"
    settings = parse(text)
    async with connect("us-east-1", endpoint_url=ministack, timeouts=PATIENT, environ={}) as client:
        await create_tables(client, settings, lambda line: None)
        await DynamoDirectoryStore(client, table_name(settings, "directory")).put("policy", "bad", {"text": "{"})
    lines, errors = await run(tmp_path, text, chat())
    assert [line["DirectoryRefused"] for line in lines if "DirectoryRefused" in line] == [1]
    assert "policy 'bad': no JSON" in errors
