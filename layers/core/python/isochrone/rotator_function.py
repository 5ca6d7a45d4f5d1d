"""What the `rotator` function does: it makes the key between edges and a pool anew, and nobody is shut out meanwhile.

    Secrets Manager calls it four times for one rotation of one secret, and again for a step that failed:
    createSecret   a random key becomes AWSPENDING
    setSecret      nothing: nodes look for new keys by themselves, and take AWSPENDING beside AWSCURRENT
    testSecret     waits until every node has looked, then asks the pool with the new key
    finishSecret   AWSPENDING becomes AWSCURRENT; nodes take AWSPREVIOUS for another day, by which every edge knows

A pool that refuses the new key (its nodes are from before there was rotation) ends the rotation: edges go on with the
current key, and the alarm rings. The steps are those of the user guide, "Lambda rotation functions".
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

import aiohttp
from msgspec import Struct, field

from isochrone.settings import Backend, Settings
from isochrone.stores.dynamodb.client import DynamoClient, Timeouts, connect
from isochrone.stores.dynamodb.errors import StoreRefused
from isochrone.stores.secrets import SECRETS_MANAGER

CURRENT, PENDING = "AWSCURRENT", "AWSPENDING"
# Three times as often a node looks for new keys: one look may be late, or fail.
ACCEPTED_AFTER_SECONDS = 180.0
# Nodes behind one load balancer: each of these requests goes to any of them.
_QUESTIONS = 8
_QUESTION_SECONDS = aiohttp.ClientTimeout(total=5.0)
_KEY_BYTES = 36
_TIMEOUTS = Timeouts(connect=2.0, total=10.0)


class RotationFailed(Exception):
    """The rotation cannot go on; the message is one line for the operator and holds no key."""


class Call(NamedTuple):
    """One step of a rotation. `secret` is a name or an ARN, `version` the id of the version that is made."""

    step: str
    secret: str
    version: str


class _Described(Struct):
    Name: str = ""
    VersionIdsToStages: dict[str, list[str]] = field(default_factory=dict)


class _Version(Struct):
    SecretString: str = ""
    CreatedDate: float = 0.0


class _Done(Struct):
    pass


class Rotator:
    """Rotates the keys of `pools`, which are by the name of their secret."""

    def __init__(
        self,
        client: DynamoClient,
        pools: Mapping[str, Sequence[Backend]],
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        new_key: Callable[[], str] = lambda: secrets.token_urlsafe(_KEY_BYTES),
    ) -> None:
        self._client = client
        self._pools = pools
        self._clock = clock
        self._sleep = sleep
        self._new_key = new_key
        self._steps = {
            "createSecret": self._create,
            "setSecret": self._set,
            "testSecret": self._test,
            "finishSecret": self._finish,
        }

    async def carry_out(self, call: Call) -> None:
        """One step, which may have been carried out before. Raises RotationFailed or StoreUnavailable."""
        if call.step not in self._steps:
            raise RotationFailed(f"{call.step!r} is no step of a rotation")
        secret = await self._client.call("DescribeSecret", {"SecretId": call.secret}, _Described)
        if CURRENT not in secret.VersionIdsToStages.get(call.version, ()):
            await self._steps[call.step](call, secret)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def _create(self, call: Call, secret: _Described) -> None:
        if PENDING in secret.VersionIdsToStages.get(call.version, ()) and await self._has_a_key(call):
            return
        new = {"SecretId": call.secret, "ClientRequestToken": call.version, "VersionStages": [PENDING]}
        await self._client.call("PutSecretValue", {**new, "SecretString": self._new_key()}, _Done)

    async def _has_a_key(self, call: Call) -> bool:
        """Secrets Manager marks the version that it wants as pending before there is one."""
        try:
            return bool((await self._pending(call)).SecretString)
        except StoreRefused as refusal:
            if refusal.code != "ResourceNotFoundException":
                raise
            return False

    async def _set(self, call: Call, secret: _Described) -> None:
        """Nodes fetch it."""

    async def _test(self, call: Call, secret: _Described) -> None:
        pending = await self._pending(call)
        await self._sleep(max(0.0, pending.CreatedDate + ACCEPTED_AFTER_SECONDS - self._clock()))
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
            for pool in self._pools.get(secret.Name, ()):
                await self._ask(session, pool, pending.SecretString)

    async def _ask(self, session: aiohttp.ClientSession, pool: Backend, key: str) -> None:
        """A pool without a node that answers can refuse nothing: nodes that start later know the new key."""
        url = pool.base_url.rstrip("/") + "/models"
        for _ in range(_QUESTIONS):
            status = await _status(session, url, key)
            if status in (401, 403):
                raise RotationFailed(f"{pool.name} answered {status} to its new key: renew its nodes (docs/aws.md)")

    async def _finish(self, call: Call, secret: _Described) -> None:
        current = next((id for id, stages in secret.VersionIdsToStages.items() if CURRENT in stages), None)
        moved = {"SecretId": call.secret, "VersionStage": CURRENT, "MoveToVersionId": call.version}
        left = {"RemoveFromVersionId": current} if current else {}
        await self._client.call("UpdateSecretVersionStage", {**moved, **left}, _Done)

    async def _pending(self, call: Call) -> _Version:
        wanted = {"SecretId": call.secret, "VersionId": call.version, "VersionStage": PENDING}
        return await self._client.call("GetSecretValue", wanted, _Version)


async def _status(session: aiohttp.ClientSession, url: str, key: str) -> int | None:
    """What a GET with this key is answered with; None when nobody answers."""
    headers = {"Authorization": f"Bearer {key}"}
    try:
        async with session.get(url, headers=headers, timeout=_QUESTION_SECONDS, allow_redirects=False) as response:
            return response.status
    except (aiohttp.ClientError, TimeoutError, OSError):
        return None


def build_rotator(settings: Settings, *, region: str, environ: Mapping[str, str] = os.environ) -> Rotator:
    """The rotator of the pools of `settings`, in the region where their secrets are made; call it inside its event
    loop."""
    pools: dict[str, list[Backend]] = {}
    for backend in settings.backend:
        if backend.kind == "pool" and backend.api_key_secret:
            pools.setdefault(backend.api_key_secret, []).append(backend)
    client = connect(
        region,
        service=SECRETS_MANAGER,
        endpoint_url=settings.state.endpoint_url,
        environ=environ,
        timeouts=_TIMEOUTS,
    )
    return Rotator(client, pools)
