"""A key is where its owner put it and nowhere else: what is kept, logged, told and sent on has its digest at most."""

from __future__ import annotations

import json
import logging
import os
import traceback
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

import pytest

from isochrone.admin import KeyAdmin
from isochrone.admission import key_directory
from isochrone.admission.identity import Identity
from isochrone.admission.key_directory import KeyDirectory
from isochrone.admission.keys import KeyRing, digest_of
from isochrone.api.errors import ApiError
from isochrone.background import Background
from isochrone.settings import Key, Network
from isochrone.stores.memory import MemoryDirectoryStore
from tests.faults.harness import RunningEdge, backend, running_edge, settings_with
from tests.upstream import Upstream

NOW = 1_800_000_000.0
# Config keys, by what is wrong with them; each is a canary.
KEYS = {
    "good": "canary-good-7f3a9c51",
    "over": "canary-over-1b8e2d64",
    "elsewhere": "canary-elsewhere-93ac07de",
    "unknown": "canary-unknown-5d20f1b8",
}
STATUS = {"good": 200, "over": 401, "elsewhere": 403, "unknown": 401}


@pytest.fixture
async def edge(upstream: Upstream, caplog: pytest.LogCaptureFixture) -> AsyncIterator[RunningEdge]:
    caplog.set_level(logging.DEBUG)
    keys: list[dict[str, Any]] = [
        {"id": name, "tenant": "t", "sha256": digest_of(KEYS[name])} for name in ("good", "over", "elsewhere")
    ]
    keys[1]["expires"] = datetime(2020, 1, 1, tzinfo=UTC)
    keys[2]["networks"] = ["192.0.2.0/24"]
    async with running_edge(backend(upstream), key=keys, auth={"required": True}) as edge:
        yield edge


@pytest.mark.parametrize("name", KEYS)
async def test_key_is_in_no_log_no_reply_no_metric_and_no_request_to_a_backend(
    edge: RunningEdge, upstream: Upstream, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    secret = KEYS[name]
    headers = {"authorization": f"Bearer {secret}"}
    answer = await edge.chat(headers=headers)
    assert answer.status == STATUS[name]
    broken = await edge.request("POST", "/v1/chat/completions", data=b"{", headers=headers)
    await edge.settled()
    shown = [await edge.request("GET", path, headers=headers) for path in ("/v1/status", "/v1/ledger", "/metrics")]
    assert bool(upstream.requests) == (name == "good")
    sent = [json.dumps([dict(request.headers), request.body.decode()]) for request in upstream.requests]
    told = [str(reply.headers) + reply.body.decode() for reply in (answer, broken, *shown)]
    for text in (*told, *sent, caplog.text):
        assert secret not in text


@pytest.mark.parametrize("trouble", ["none", "failing", "unreadable"])
async def test_key_of_the_directory_is_in_no_item_no_log_no_error_and_no_repr(
    caplog: pytest.LogCaptureFixture, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(key_directory, "_STRANGER_PATIENCE", 0.1)
    table, background = MemoryDirectoryStore(), Background()
    admin = KeyAdmin(settings_with({"name": "b", "base_url": "http://b/v1", "models": {"m": "m"}}), table)
    new = await admin.create({"tenant": "t", "id": "k"}, random=os.urandom(32), now=NOW, by="ann")
    secret = new.key[8:]  # how it begins may be shown
    stored = json.dumps(await table.items("key"))
    assert digest_of(new.key) in stored
    texts = [stored, repr(new), str(new), repr(new.record), repr(new.record.principal)]
    table.failing = trouble == "failing"
    if trouble == "unreadable":
        await table.put("key", digest_of(new.key), {"id": "k"})
    directory = KeyDirectory(table, background, max_age=60)
    identity = Identity(KeyRing([]), required=True, network=Network(deny=("192.0.2.0/24",)), directory=directory)
    for address in ("203.0.113.1", "192.0.2.1"):
        try:
            await identity.identify(f"Bearer {new.key}", address, now=NOW)
        except ApiError as error:
            texts += [error.body().decode(), repr(error), "".join(traceback.format_exception(error))]
    await background.finish()
    texts += [caplog.text, repr(vars(directory)), repr(vars(identity))]
    assert not [text for text in texts if secret in text]


async def test_digest_that_leaked_opens_nothing() -> None:
    """Who reads the table, a log or a configuration has no key."""
    table, background = MemoryDirectoryStore(), Background()
    admin = KeyAdmin(settings_with({"name": "b", "base_url": "http://b/v1", "models": {"m": "m"}}), table)
    new = await admin.create({"tenant": "t"}, random=os.urandom(32), now=NOW)
    fixed = Key(id="fixed", sha256=digest_of("fixed"), tenant="t")
    async with AsyncExitStack() as stack:
        stack.push_async_callback(background.finish)
        identity = Identity(
            KeyRing([fixed]),
            required=True,
            network=Network(),
            directory=KeyDirectory(table, background, max_age=60),
        )
        for leaked in (fixed.sha256, digest_of(new.key), f"isk_{digest_of(new.key)[:43]}", new.record.shown):
            with pytest.raises(ApiError) as caught:
                await identity.identify(f"Bearer {leaked}", "", now=NOW)
            assert caught.value.status == 401
        assert (await identity.identify(f"Bearer {new.key}", "", now=NOW)).tenant == "t"


async def test_refusal_tells_a_revoked_key_from_an_unknown_one_by_nothing() -> None:
    table, background = MemoryDirectoryStore(), Background()
    admin = KeyAdmin(settings_with({"name": "b", "base_url": "http://b/v1", "models": {"m": "m"}}), table)
    new = await admin.create({"tenant": "t", "id": "k"}, random=os.urandom(32), now=NOW)
    await admin.revoke("k", now=NOW)
    directory = KeyDirectory(table, background, max_age=60)
    identity = Identity(KeyRing([]), required=True, network=Network(), directory=directory)
    refusals = []
    for key in (new.key, "isk_" + "x" * 43):
        with pytest.raises(ApiError) as caught:
            await identity.identify(f"Bearer {key}", "", now=NOW)
        refusals.append((caught.value.status, caught.value.body(), caught.value.headers()))
    assert refusals[0] == refusals[1]
