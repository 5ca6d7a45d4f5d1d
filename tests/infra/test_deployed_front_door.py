"""The front door of a deployed edge, met from outside: a key that was made by command, a policy, a limit, and the audit
log in its bucket."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner

from isochrone.cli import main
from local.deploy import ACCOUNT, Cloud, deploy

pytestmark = pytest.mark.cloud

REGION = "eu-west-1"
CONFIG = """
[service]
name = "iso-door"

[state]
kind = "dynamodb"
endpoint_url = "ENDPOINT"

[[policy]]
id = "team-a-generates"
effect = "allow"
action = ["generate"]
principal = { tenant = ["team-a"] }

[audit]
to = "firehose"

[[region]]
name = "eu-west-1"
default = true

[[backend]]
name = "official"
kind = "api"
base_url = "BACKEND/v1"
assemble = false
models = { "m" = "m" }
"""
ASKED = {"model": "m", "messages": [{"role": "user", "content": "Where is the middle?"}], "temperature": 1}


class Door(NamedTuple):
    """A deployed edge: its URL, its configuration, and the emulator that it runs in."""

    url: str
    config: Path
    cloud: str

    def ask(self, key: str, **more: Any) -> tuple[int, dict[str, str], dict[str, Any]]:
        """Status, headers and body of a generation that nobody knows the answer to."""
        body = json.dumps({**ASKED, **more}).encode()
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json", "cache-control": "no-store"}
        request = urllib.request.Request(f"{self.url}/v1/chat/completions", body, headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return reply.status, {k.lower(): v for k, v in reply.headers.items()}, json.load(reply)
        except urllib.error.HTTPError as error:
            return error.code, {k.lower(): v for k, v in error.headers.items()}, json.load(error)

    def command(self, *words: str) -> str:
        """What `isochrone ...` says with this configuration."""
        done = CliRunner().invoke(main, [*words, "--config", str(self.config)], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output


class _Model(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        said = {"role": "assistant", "content": "In the middle."}
        choice = {"index": 0, "message": said, "finish_reason": "stop"}
        usage = {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11}
        text = json.dumps({"id": "1", "object": "chat.completion", "choices": [choice], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def backend() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Model) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def door(ministack: str, backend: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    config = tmp_path_factory.mktemp("door") / "isochrone.toml"
    config.write_text(CONFIG.replace("ENDPOINT", ministack).replace("BACKEND", backend))
    deployed = deploy(config, ministack, config.parent, lambda line: None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        yield Door(deployed.edges[REGION].url, config, ministack)


def _made(door: Door, *options: str) -> str:
    """A new key."""
    output = door.command("keys", "create", *options)
    return next(word for word in output.split() if word.startswith("isk_"))


def test_key_of_the_directory_is_let_in_as_its_policy_and_its_limits_say_and_all_of_it_is_in_the_log(
    door: Door,
) -> None:
    key = _made(door, "--tenant", "team-a", "--requests-per-minute", "2")
    status, headers, body = door.ask(key)
    assert (status, body.get("error")) == (200, None)
    assert (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"]) == ("2", "1")
    assert door.ask(key)[0] == 200
    status, headers, body = door.ask(key)
    assert (status, body["error"]["code"]) == (429, "rate_limit_exceeded")
    assert int(headers["retry-after"]) >= 1

    stranger = _made(door, "--tenant", "team-b")
    assert door.ask(stranger)[2]["error"]["code"] == "policy_denied"
    assert door.ask("isk_" + "0" * 43)[0] == 401

    entries = _entries(door, want=5)
    decisions = sorted((entry["status"], entry["decision"], entry.get("tenant", "")) for entry in entries)
    assert [(status, tenant) for status, _, tenant in decisions] == [
        (200, "team-a"), (200, "team-a"), (401, ""), (403, "team-b"), (429, "team-a"),
    ]  # fmt: skip
    assert {entry["rule"] for entry in entries if entry["status"] == 200} == {"team-a-generates"}


def test_key_that_was_revoked_is_refused_within_ten_seconds(door: Door) -> None:
    key = _made(door, "--tenant", "team-a", "--id", "leaving")
    assert door.ask(key)[0] == 200
    door.command("keys", "revoke", "leaving")
    until = time.monotonic() + 10
    while (status := door.ask(key)[0]) == 200 and time.monotonic() < until:
        time.sleep(0.5)
    assert status == 401


def _entries(door: Door, *, want: int) -> list[dict[str, Any]]:
    """The requests in the bucket of the audit log, when there are so many."""
    s3 = Cloud(door.cloud).client("s3", REGION)
    bucket = f"iso-door-audit-{ACCOUNT}-{REGION}"
    until = time.monotonic() + 30
    while True:
        found = s3.list_objects_v2(Bucket=bucket, Prefix="requests/").get("Contents", [])
        objects = [s3.get_object(Bucket=bucket, Key=one["Key"])["Body"].read() for one in found]
        lines = [line for data in objects for line in data.splitlines()]  # the emulator does not pack them
        entries = {line: json.loads(line) for line in lines}
        requests = [entry for entry in entries.values() if entry["record"] == "request"]
        if len(requests) >= want or time.monotonic() > until:
            return requests
        time.sleep(0.5)
