"""The keys of backends in the emulator's Secrets Manager and parameter store, read and rotated under a running edge."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import uuid4

import boto3
import pytest
from botocore.config import Config

from isochrone.settings import Backend
from isochrone.stores.protocols import StoreUnavailable
from isochrone.stores.secrets import SecretReader
from tests.faults.harness import REGIONS, backend, running_edge
from tests.upstream import Exchange, Upstream, ok, refusal

KEPT_BY = ("secret", "parameter")


class Kept:
    """One key in the emulator, in one of the two services."""

    def __init__(self, endpoint: str, by: str) -> None:
        self.by = by
        self.name = f"/t{uuid4().hex[:12]}/key"
        service = "secretsmanager" if by == "secret" else "ssm"
        self._client: Any = boto3.client(
            service,
            region_name=REGIONS[0],
            endpoint_url=endpoint,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(retries={"max_attempts": 1}),
        )
        if by == "secret":
            self._client.create_secret(Name=self.name, SecretString="first\n")
        else:
            self.put("first")

    def put(self, key: str) -> None:
        if self.by == "secret":
            self._client.put_secret_value(SecretId=self.name, SecretString=key)
        else:
            self._client.put_parameter(Name=self.name, Value=key, Type="SecureString", Overwrite=True)

    @property
    def setting(self) -> dict[str, Any]:
        return {f"api_key_{self.by}": self.name}


@pytest.fixture(params=KEPT_BY)
def kept(request: pytest.FixtureRequest, ministack: str) -> Kept:
    return Kept(ministack, request.param)


@pytest.fixture
async def reader(ministack: str) -> AsyncIterator[SecretReader]:
    reader = SecretReader(REGIONS[0], endpoint_url=ministack, environ={})
    yield reader
    await reader.aclose()


def facts(**where: str) -> Backend:
    return Backend(name="b", base_url="http://127.0.0.1:1/v1", models={"m": "m"}, **where)  # type: ignore[arg-type]


async def test_key_is_read_in_clear_where_it_lies(kept: Kept, reader: SecretReader) -> None:
    assert await reader.read(facts(**kept.setting)) == "first"
    kept.put("second")
    assert await reader.read(facts(**kept.setting)) == "second"


@pytest.mark.parametrize("by", KEPT_BY)
async def test_key_that_is_not_there_is_said_without_a_guess(by: str, reader: SecretReader) -> None:
    with pytest.raises(StoreUnavailable, match="NotFound"):
        await reader.read(facts(**{f"api_key_{by}": "/nobody/made/this"}))


def taking(*keys: str) -> Callable[[Exchange], Any]:
    """A backend that takes these keys and no other."""

    async def script(exchange: Exchange) -> None:
        is_known = exchange.received.header("Authorization") in [[f"Bearer {key}"] for key in keys]
        await (ok if is_known else refusal(401, "invalid_api_key"))(exchange)

    return script


@pytest.mark.parametrize("stream", [False, True])
async def test_no_request_fails_when_a_backend_takes_only_the_key_that_was_just_put_in(
    kept: Kept, ministack: str, stream: bool
) -> None:
    async with Upstream() as upstream:
        upstream.scripts["guarded"] = taking("first")
        state, answers = {"kind": "memory", "endpoint_url": ministack}, {"exact": False, "coalesce": False}
        async with running_edge(backend(upstream, "guarded", **kept.setting), state=state, answers=answers) as edge:
            assert (await edge.chat(stream=stream)).status == 200
            kept.put("second")
            upstream.scripts["guarded"] = taking("second")
            answer = await edge.chat(stream=stream)
            assert (answer.status, answer.headers["x-isochrone-attempts"]) == (200, "1")
            assert len(upstream.requests) == 3
