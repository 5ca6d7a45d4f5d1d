"""A pool's key made anew in the emulator's Secrets Manager, step by step, while an edge goes on asking the pool."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest
from aiohttp import web
from botocore.config import Config
from botocore.exceptions import ClientError

from infra.constructs.pool_guard import Guard
from isochrone.rotator_function import ACCEPTED_AFTER_SECONDS, Call, RotationFailed, Rotator, build_rotator
from isochrone.settings import Backend, Region, Settings, State
from isochrone.stores.dynamodb.client import DynamoClient, connect
from isochrone.stores.dynamodb.errors import StoreRefused
from isochrone.stores.secrets import SECRETS_MANAGER
from tests.contract.conftest import Endpoint, Reaction
from tests.faults.harness import REGIONS, backend, running_edge
from tests.upstream import Exchange, Upstream, ok, refusal

FUNCTION = Path(__file__).resolve().parents[2] / "functions/rotator"
STEPS = ("createSecret", "setSecret", "testSecret", "finishSecret")


class Secret:
    """One secret in the emulator, whose first key is `first`."""

    def __init__(self, endpoint: str) -> None:
        self.name = f"t{uuid4().hex[:12]}/pool"
        self._client: Any = boto3.client(
            "secretsmanager",
            region_name=REGIONS[0],
            endpoint_url=endpoint,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(retries={"max_attempts": 1}),
        )
        self.arn = self._client.create_secret(Name=self.name, SecretString="first")["ARN"]

    def at(self, stage: str) -> str | None:
        try:
            key: str = self._client.get_secret_value(SecretId=self.name, VersionStage=stage)["SecretString"]
        except ClientError:
            return None
        return key

    def look(self, keys: Path) -> None:
        """What a node does each minute."""
        found = [key for stage in ("AWSCURRENT", "AWSPENDING", "AWSPREVIOUS") if (key := self.at(stage))]
        new = keys.with_suffix(".new")
        new.write_text("".join(sha256(key.encode()).hexdigest() + "\n" for key in found))
        new.rename(keys)


@pytest.fixture
def secret(ministack: str) -> Secret:
    return Secret(ministack)


@pytest.fixture
async def client(ministack: str) -> AsyncIterator[DynamoClient]:
    async with connect(REGIONS[0], service=SECRETS_MANAGER, endpoint_url=ministack, environ={}) as client:
        yield client


class Waiting:
    """Notes how long the rotator would have waited, and lets `meanwhile` happen."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


def rotator_of(client: DynamoClient, secret: Secret, *base_urls: str, waiting: Waiting | None = None) -> Rotator:
    pools = [Backend(name="pool", base_url=url, models={"m": "m"}, api_key_secret=secret.name) for url in base_urls]
    return Rotator(client, {secret.name: pools}, sleep=waiting or Waiting())


def guarded(keys: Path) -> Any:
    """A pool whose node lets in whom the real guard lets in."""

    async def script(exchange: Exchange) -> None:
        let_in: list[bool] = []

        async def engine(*_: Any) -> None:
            let_in.append(True)

        async def drop(_message: Any) -> None:
            pass

        headers = [(b"authorization", value.encode()) for value in exchange.received.header("Authorization")]
        scope = {"type": "http", "path": exchange.received.path, "headers": headers}
        await Guard(engine, keys)(scope, None, drop)  # type: ignore[arg-type]
        await (ok if let_in else refusal(401, "invalid_api_key"))(exchange)

    return script


def _knowing(key: str) -> Reaction:
    """A node that lets in who shows this key."""

    async def react(request: web.Request) -> web.StreamResponse:
        return web.Response(status=200 if request.headers["Authorization"] == f"Bearer {key}" else 401)

    return react


async def test_four_steps_make_a_new_key_the_current_one_and_keep_the_one_before(
    client: DynamoClient, secret: Secret
) -> None:
    waiting, version = Waiting(), str(uuid4())
    rotator = rotator_of(client, secret, "http://127.0.0.1:9/v1", waiting=waiting)
    for step in STEPS:
        await rotator.carry_out(Call(step, secret.arn, version))
    assert secret.at("AWSPREVIOUS") == "first"
    assert len(secret.at("AWSCURRENT") or "") >= 43, "256 random bits"
    (waited,) = waiting.seconds
    assert ACCEPTED_AFTER_SECONDS - 60 < waited <= ACCEPTED_AFTER_SECONDS


async def test_step_that_is_called_again_changes_nothing(client: DynamoClient, secret: Secret) -> None:
    rotator, version = rotator_of(client, secret), str(uuid4())
    await rotator.carry_out(Call("createSecret", secret.arn, version))
    made = secret.at("AWSPENDING")
    await rotator.carry_out(Call("createSecret", secret.arn, version))
    assert secret.at("AWSPENDING") == made
    await rotator.carry_out(Call("finishSecret", secret.arn, version))
    for step in STEPS:
        await rotator.carry_out(Call(step, secret.arn, version))
    assert (secret.at("AWSCURRENT"), secret.at("AWSPREVIOUS")) == (made, "first")


async def test_pool_that_refuses_the_new_key_ends_the_rotation_and_the_old_one_stays(
    client: DynamoClient, secret: Secret, endpoint: Endpoint
) -> None:
    """A node from before there was rotation never looks for another key."""
    endpoint.script = [_knowing("first")]
    rotator, version = rotator_of(client, secret, f"{endpoint.url}/v1"), str(uuid4())
    await rotator.carry_out(Call("createSecret", secret.arn, version))
    with pytest.raises(RotationFailed, match="pool answered 401 to its new key: renew its nodes") as caught:
        await rotator.carry_out(Call("testSecret", secret.arn, version))
    assert (secret.at("AWSPENDING") or "?") not in str(caught.value)
    assert secret.at("AWSCURRENT") == "first"


async def test_nothing_that_a_rotation_logs_or_raises_holds_a_key(
    client: DynamoClient, secret: Secret, endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where the pool says again all that it was sent, and Secrets Manager refuses."""

    async def tells_all(request: web.Request) -> web.StreamResponse:
        return web.Response(status=403, text=str(request.headers), reason=request.headers["Authorization"])

    endpoint.script, version = [tells_all], str(uuid4())
    rotator, told = rotator_of(client, secret, f"{endpoint.url}/v1"), list[str]()
    with caplog.at_level(logging.DEBUG):
        await rotator.carry_out(Call("createSecret", secret.arn, version))
        for call in (Call("testSecret", secret.arn, version), Call("finishSecret", f"{secret.name}/none", version)):
            with pytest.raises((RotationFailed, StoreRefused)) as caught:
                await rotator.carry_out(call)
            told += traceback.format_exception(caught.value)
    new = secret.at("AWSPENDING")
    assert new and "answered 403 to its new key" in "".join(told)
    assert new not in "".join([*told, caplog.text, repr(rotator), repr(vars(rotator))])


async def test_pool_is_asked_with_the_new_key_as_often_as_finds_a_node_that_does_not_know_it(
    client: DynamoClient, secret: Secret, endpoint: Endpoint
) -> None:
    rotator, version = rotator_of(client, secret, f"{endpoint.url}/v1"), str(uuid4())
    await rotator.carry_out(Call("createSecret", secret.arn, version))
    endpoint.script = [*[_knowing(secret.at("AWSPENDING") or "")] * 7, _knowing("first")]
    with pytest.raises(RotationFailed):
        await rotator.carry_out(Call("testSecret", secret.arn, version))
    assert {request.path for request in endpoint.requests} == {"/v1/models"}


async def test_no_request_fails_while_the_key_is_made_anew_twice(
    client: DynamoClient, secret: Secret, ministack: str, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    secret.look(keys)
    state, answers = {"kind": "memory", "endpoint_url": ministack}, {"exact": False, "coalesce": False}
    async with Upstream() as upstream:
        upstream.scripts["guarded"] = guarded(keys)
        facts = backend(upstream, "guarded", api_key_secret=secret.name)
        async with running_edge(facts, state=state, answers=answers) as edge:
            for version in (str(uuid4()), str(uuid4())):
                for step in STEPS:
                    await rotator_of(client, secret).carry_out(Call(step, secret.arn, version))
                    told = [await edge.chat(stream=stream) for stream in (False, True)]
                    secret.look(keys)
                    told += await asyncio.gather(*(edge.chat() for _ in range(5)))
                    assert [answer.status for answer in told] == [200] * 7, step
            assert (await edge.chat()).headers["x-isochrone-attempts"] == "1"


CONFIG = """
[state]
endpoint_url = "ENDPOINT"
[[region]]
name = "us-east-1"
[[backend]]
name = "pool"
base_url = "http://127.0.0.1:9/v1"
api_key_secret = "SECRET"
models = { "m" = "m" }
"""
CALL_IT = "import handler, json, sys; handler.handler(json.loads(sys.argv[1]), None)"


def test_function_takes_what_secrets_manager_sends(ministack: str, secret: Secret, tmp_path: Path) -> None:
    config = tmp_path / "isochrone.toml"
    config.write_text(CONFIG.replace("ENDPOINT", ministack).replace("SECRET", secret.name))
    event = {"Step": "createSecret", "SecretId": secret.arn, "ClientRequestToken": str(uuid4())}
    environment = {**os.environ, "ISOCHRONE_CONFIG": str(config), "AWS_REGION": REGIONS[0]}
    command = [sys.executable, "-c", CALL_IT, json.dumps(event)]
    subprocess.run(command, cwd=FUNCTION, env=environment, check=True, timeout=60)
    assert secret.at("AWSPENDING")
    assert secret.at("AWSCURRENT") == "first"


async def test_configuration_says_which_pools_are_asked(ministack: str, secret: Secret) -> None:
    pool = Backend(name="pool", base_url="http://127.0.0.1:9/v1", models={"m": "m"}, api_key_secret=secret.name)
    settings = Settings(region=(Region(name=REGIONS[0]),), backend=(pool,), state=State(endpoint_url=ministack))
    rotator = build_rotator(settings, region=REGIONS[0], environ={})
    with pytest.raises(RotationFailed, match="'dropSecret' is no step of a rotation"):
        await rotator.carry_out(Call("dropSecret", secret.arn, str(uuid4())))
    await rotator.carry_out(Call("createSecret", secret.arn, str(uuid4())))
    assert secret.at("AWSPENDING")
    await rotator.aclose()
