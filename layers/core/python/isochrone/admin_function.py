"""What the `admin` function of a region does: the admin API, which API Gateway opens to IAM identities only.

    GET  /admin/keys            the keys of the directory, `?tenant=` for one tenant's
    POST /admin/keys            make one: the fields of [[key]] without sha256
    POST /admin/keys/rotate     {"id", "grace_seconds"}
    POST /admin/keys/revoke     {"id"}, or {"key"} for one that was found somewhere

Errors have the shape of docs/http.md. A key is in one reply, in no log and in no path.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from base64 import b64decode
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec import Struct

from isochrone.admin import KeyAdmin, NewKey, as_data
from isochrone.admission.key_record import RANDOM_BYTES, Record
from isochrone.api.errors import ApiError, BadRequest, Forbidden, KeysUnavailable, MethodNotAllowed, NotFound
from isochrone.settings import Settings, SettingsError
from isochrone.stores.dynamodb.clients import Clients
from isochrone.stores.dynamodb.directory import open_directory
from isochrone.stores.protocols import StoreUnavailable

log = logging.getLogger("isochrone.admin")

T = TypeVar("T")
_A_DAY = 86_400.0
_HEADERS = {"content-type": "application/json", "cache-control": "no-store"}


class Call(NamedTuple):
    """One call: `by` is the ARN of who makes it."""

    body: bytes
    query: Mapping[str, str]
    by: str
    now: float


class _Rotate(Struct, forbid_unknown_fields=True):
    id: str
    grace_seconds: float = _A_DAY


class _Revoke(Struct, forbid_unknown_fields=True):
    id: str | None = None
    key: str | None = None


Route = Callable[[Call], Awaitable[tuple[int, Any]]]


class AdminApi:
    """The routes, for the events of API Gateway's proxy integration."""

    def __init__(
        self,
        admin: KeyAdmin,
        *,
        clock: Callable[[], float] = time.time,
        random: Callable[[int], bytes] = secrets.token_bytes,
        on_close: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._admin = admin
        self._clock = clock
        self._random = random
        self._on_close = on_close
        self.routes: dict[str, dict[str, Route]] = {
            "/admin/keys": {"GET": self._list, "POST": self._create},
            "/admin/keys/rotate": {"POST": self._rotate},
            "/admin/keys/revoke": {"POST": self._revoke},
        }

    async def handle(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """The reply to an event, whatever is wrong with it."""
        try:
            status, said = await self._answer(event)
            return _reply(status, dict(_HEADERS), msgspec.json.encode(said))
        except ApiError as error:
            return _reply(error.status, {**_HEADERS, **error.headers()}, error.body())

    async def close(self) -> None:
        """Close every connection."""
        if self._on_close:
            await self._on_close()

    async def _answer(self, event: Mapping[str, Any]) -> tuple[int, Any]:
        call = self._call_of(event)
        route = self._route_of(event)
        try:
            answer = await route(call)
        except StoreUnavailable as error:
            log.warning("the directory table does not answer: %s", error)
            raise KeysUnavailable("The directory table does not answer; ask again.", retry_after=1.0) from None
        log.info("%s %s by %s", event["httpMethod"], event["path"], call.by)
        return answer

    def _call_of(self, event: Mapping[str, Any]) -> Call:
        by = ((event.get("requestContext") or {}).get("identity") or {}).get("userArn")
        if not by:
            raise Forbidden("Only an IAM identity that API Gateway vouches for may ask.", code="iam_identity_needed")
        text = event.get("body") or ""
        try:
            body = b64decode(text, validate=True) if event.get("isBase64Encoded") else text.encode()
        except ValueError:
            raise BadRequest("The body is neither text nor base64.") from None
        return Call(body, event.get("queryStringParameters") or {}, by, self._clock())

    def _route_of(self, event: Mapping[str, Any]) -> Route:
        methods = self.routes.get(event["path"])
        if methods is None:
            raise NotFound(f"There is no {event['path'][:200]!r} here.", code="unknown_url")
        if event["httpMethod"] not in methods:
            allow = ", ".join(methods)
            raise MethodNotAllowed(f"{event['path']} takes {allow}.", allow=allow)
        return methods[event["httpMethod"]]

    async def _list(self, call: Call) -> tuple[int, Any]:
        listing, tenant = await self._admin.listing(), call.query.get("tenant")
        of_tenant = [record for record in listing.records if tenant in (None, record.key.tenant)]
        return 200, {"object": "list", "data": _told(of_tenant, call), "unreadable": listing.unreadable}

    async def _create(self, call: Call) -> tuple[int, Any]:
        wish = body_of(call, dict[str, Any])
        new = await self._admin.create(wish, random=self._random(RANDOM_BYTES), now=call.now, by=call.by)
        return 201, _told_new(new, call)

    async def _rotate(self, call: Call) -> tuple[int, Any]:
        asked = body_of(call, _Rotate)
        new = await self._admin.rotate(
            asked.id, grace=asked.grace_seconds, random=self._random(RANDOM_BYTES), now=call.now, by=call.by
        )
        return 201, _told_new(new, call)

    async def _revoke(self, call: Call) -> tuple[int, Any]:
        asked = body_of(call, _Revoke)
        if (asked.id is None) == (asked.key is None):
            raise BadRequest("give id or key, one of the two", param="id")
        if asked.id is not None:
            gone = await self._admin.revoke(asked.id, now=call.now, by=call.by)
        else:
            gone = await self._admin.revoke_key(asked.key or "", now=call.now, by=call.by)
        return 200, {"object": "list", "data": _told(gone, call)}


def body_of(call: Call, kind: type[T]) -> T:
    """What the call says, as `kind`. Raises BadRequest."""
    try:
        return msgspec.json.decode(call.body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"The body is not what is taken here: {error}") from None


def build_admin(settings: Settings, *, region: str, environ: Mapping[str, str] = os.environ) -> AdminApi:
    """The admin API of `region`; call it inside its event loop. Raises SettingsError."""
    if settings.state.kind == "memory":
        raise SettingsError('state.kind = "memory": there is no directory table to keep keys in')
    clients = Clients(region, endpoint_url=settings.state.endpoint_url, environ=environ)
    admin = KeyAdmin(settings, open_directory(clients.of, settings, region))
    return AdminApi(admin, on_close=clients.aclose)


def _told(records: list[Record], call: Call) -> list[dict[str, Any]]:
    return [as_data(record, call.now) for record in records]


def _told_new(new: NewKey, call: Call) -> dict[str, Any]:
    return {"key": new.key, **as_data(new.record, call.now)}


def _reply(status: int, headers: dict[str, str], body: bytes) -> dict[str, Any]:
    return {"statusCode": status, "headers": headers, "body": body.decode()}
