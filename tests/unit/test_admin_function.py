"""The admin API, as API Gateway calls it."""

from __future__ import annotations

import base64
import json
import logging
from typing import Any

import pytest

from isochrone.admin import KeyAdmin
from isochrone.admin_function import AdminApi, build_admin
from isochrone.admission.key_record import PARTITION
from isochrone.admission.keys import digest_of
from isochrone.settings import Backend, Key, Region, Settings, SettingsError
from isochrone.stores.memory import MemoryDirectoryStore

NOW = 1_800_000_000.0
ANN = "arn:aws:iam::111122223333:user/ann"
SETTINGS = Settings(
    region=(Region("eu-west-1"),),
    backend=(Backend(name="b", base_url="http://b/v1", models={"m": "m"}),),
    key=(Key(id="fixed", sha256=digest_of("fixed"), tenant="t"),),
)


class Api:
    """An admin API and its table; random keys are the numbers from 1 on."""

    def __init__(self) -> None:
        self.table = MemoryDirectoryStore()
        self._made = 0
        self._api = AdminApi(KeyAdmin(SETTINGS, self.table), clock=lambda: NOW, random=self._random)

    def _random(self, size: int) -> bytes:
        self._made += 1
        return self._made.to_bytes(size, "big")

    async def ask(self, method: str, path: str, body: Any = None, by: str | None = ANN, **more: Any) -> tuple[int, Any]:
        event = {
            "httpMethod": method,
            "path": path,
            "body": body if isinstance(body, str | None) else json.dumps(body),
            "isBase64Encoded": False,
            "queryStringParameters": None,
            "requestContext": {"identity": {"sourceIp": "203.0.113.9", "userArn": by}},
            **more,
        }
        reply = await self._api.handle(event)
        assert reply["headers"]["content-type"] == "application/json"
        assert reply["headers"]["cache-control"] == "no-store"
        return reply["statusCode"], json.loads(reply["body"])


@pytest.fixture
def api() -> Api:
    return Api()


async def test_key_is_told_once_and_says_who_made_it(api: Api) -> None:
    status, made = await api.ask("POST", "/admin/keys", {"tenant": "t", "id": "k", "models": ["m"]})
    assert status == 201
    assert made["key"] == "isk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE"
    assert (made["id"], made["shown"], made["state"], made["by"]) == ("k", "isk_AAAA", "active", ANN)
    status, listed = await api.ask("GET", "/admin/keys")
    assert status == 200
    assert [one["id"] for one in listed["data"]] == ["k"]
    for secret in (made["key"], digest_of(made["key"])):
        assert secret not in json.dumps(listed)


async def test_body_may_come_as_base64(api: Api) -> None:
    body = base64.b64encode(b'{"tenant": "t"}').decode()
    assert (await api.ask("POST", "/admin/keys", body, isBase64Encoded=True))[0] == 201


@pytest.mark.parametrize("body", ["é", "!!!", "e30", "e30=\n!"])
async def test_body_that_only_claims_to_be_base64_is_refused(api: Api, body: str) -> None:
    status, said = await api.ask("POST", "/admin/keys", body, isBase64Encoded=True)
    assert (status, said["error"]["message"]) == (400, "The body is neither text nor base64.")


async def test_list_of_one_tenant_has_no_other(api: Api) -> None:
    for tenant in ("a", "b"):
        await api.ask("POST", "/admin/keys", {"tenant": tenant})
    _, listed = await api.ask("GET", "/admin/keys", queryStringParameters={"tenant": "b"})
    assert [one["tenant"] for one in listed["data"]] == ["b"]


async def test_replaced_key_ends_after_its_grace(api: Api) -> None:
    await api.ask("POST", "/admin/keys", {"tenant": "t", "id": "k"})
    status, new = await api.ask("POST", "/admin/keys/rotate", {"id": "k", "grace_seconds": 60})
    assert (status, new["shown"], new["key"][-1]) == (201, "isk_AAAA", "I")
    _, listed = await api.ask("GET", "/admin/keys")
    assert [one["expires"] for one in listed["data"]] == [NOW + 60, None]


async def test_key_is_taken_back_by_its_id_or_by_itself(api: Api) -> None:
    _, made = await api.ask("POST", "/admin/keys", {"tenant": "t", "id": "a"})
    await api.ask("POST", "/admin/keys", {"tenant": "t", "id": "b"})
    for body in ({"key": made["key"]}, {"id": "b"}):
        status, gone = await api.ask("POST", "/admin/keys/revoke", body)
        assert (status, [one["state"] for one in gone["data"]]) == (200, ["revoked"])
    _, listed = await api.ask("GET", "/admin/keys")
    assert [one["state"] for one in listed["data"]] == ["revoked", "revoked"]


@pytest.mark.parametrize("by", [None, ""])
@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/admin/keys"), ("POST", "/admin/keys"), ("POST", "/admin/keys/revoke"), ("GET", "/x")]
)
async def test_nobody_is_let_in_without_an_identity_that_the_platform_vouches_for(
    api: Api, by: str | None, method: str, path: str
) -> None:
    status, refused = await api.ask(method, path, {"tenant": "t", "userArn": ANN}, by)
    assert (status, refused["error"]["code"]) == (403, "iam_identity_needed")
    assert await api.table.items(PARTITION) == {}


async def test_event_without_any_context_is_refused(api: Api) -> None:
    assert (await api.ask("GET", "/admin/keys", requestContext=None))[0] == 403


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("GET", "/admin", None, 404, "There is no '/admin' here."),
        ("GET", "/admin/keys/", None, 404, "There is no '/admin/keys/' here."),
        ("DELETE", "/admin/keys", None, 405, "/admin/keys takes GET, POST."),
        ("POST", "/admin/keys", {}, 400, "tenant: is missing"),
        ("POST", "/admin/keys", {"tenant": "t", "sha256": "0" * 64}, 400, "sha256: unknown key"),
        ("POST", "/admin/keys", {"tenant": "t", "model": "m"}, 400, "model: unknown key"),
        ("POST", "/admin/keys", {"tenant": "t", "models": ["n"]}, 400, "models: no backend serves 'n'"),
        ("POST", "/admin/keys", {"tenant": "t", "expires": "2020-01-01T00:00:00Z"}, 400, "this moment is past"),
        ("POST", "/admin/keys", {"tenant": "t", "id": "fixed"}, 400, "id: 'fixed' stands twice"),
        ("POST", "/admin/keys", {"tenant": "t", "expires": "9999-12-31T23:59:59-14:00"}, 400, "beyond the year 9999"),
        ("POST", "/admin/keys", {"tenant": "t", "concurrency": 10**40}, 400, "concurrency: expected int <="),
        ("POST", "/admin/keys", {"tenant": "t", "owner": "a\x1b[2Jb"}, 400, "owner: "),
        ("POST", "/admin/keys", {"tenant": "t", "owner": "a" * 257}, 400, "owner: "),
        ("POST", "/admin/keys", '{"tenant": "\ud800"}', 400, "neither text nor base64"),
        ("POST", "/admin/keys", "[]", 400, "The body is not what is taken here"),
        ("POST", "/admin/keys", "", 400, "The body is not what is taken here"),
        ("POST", "/admin/keys", "[" * 100_000, 400, "The body is not what is taken here"),
        ("POST", "/admin/keys/rotate", {"id": "k"}, 404, "there is no key 'k'"),
        ("POST", "/admin/keys/rotate", {"id": "fixed"}, 409, "stands in the configuration"),
        ("POST", "/admin/keys/rotate", {"id": "k", "grace_seconds": -1}, 400, "grace: must be from 0"),
        ("POST", "/admin/keys/revoke", {}, 400, "give id or key, one of the two"),
        ("POST", "/admin/keys/revoke", {"id": "k", "key": "x"}, 400, "give id or key, one of the two"),
        ("POST", "/admin/keys/revoke", {"key": "fixed"}, 404, "take its [[key]] out there"),
        ("POST", "/admin/keys/revoke", {"keys": "x"}, 400, "unknown field"),
    ],
)
async def test_mistake_is_said_in_the_shape_of_all_errors(
    api: Api, method: str, path: str, body: Any, status: int, message: str
) -> None:
    found, said = await api.ask(method, path, body)
    assert found == status
    assert list(said["error"]) == ["message", "type", "code", "param"]
    assert message in said["error"]["message"]


async def test_table_that_is_gone_is_told_without_its_insides(api: Api) -> None:
    api.table.failing = True
    status, said = await api.ask("GET", "/admin/keys")
    assert (status, said["error"]["code"]) == (503, "keys_unavailable")
    assert "MemoryDirectoryStore" not in said["error"]["message"]


async def test_who_did_what_is_logged_and_no_key(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    _, made = await api.ask("POST", "/admin/keys", {"tenant": "t"})
    await api.ask("POST", "/admin/keys/revoke", {"key": made["key"]})
    assert [record.getMessage() for record in caplog.records] == [
        f"POST /admin/keys by {ANN}",
        f"POST /admin/keys/revoke by {ANN}",
    ]


async def test_without_tables_there_is_no_admin_api() -> None:
    with pytest.raises(SettingsError, match="there is no directory table"):
        build_admin(SETTINGS, region="eu-west-1", environ={})
