"""What an operator does with keys, by command or through the admin API: make, list, replace and take them back.

Both go through here, so both check the same and say the same. A key itself is told once, when it is made; after that
only its digest is anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any, ClassVar, NamedTuple

import msgspec
from msgspec import structs

from isochrone.admission.key_record import (
    PARTITION,
    Record,
    RecordError,
    all_revoked,
    item_of,
    made,
    may_be_key,
    new_key,
    records_in,
    retired,
    revoked,
    shown_of,
)
from isochrone.admission.keys import digest_of
from isochrone.api.errors import ApiError, BadRequest, NotFound
from isochrone.contradictions import contradictions
from isochrone.settings import Key, Settings
from isochrone.stores.protocols import DirectoryStore
from isochrone.toml_errors import dotted, in_plain_words, path_of

LONGEST_GRACE = 366 * 86_400.0
# In place of the digest of a key that is only checked.
_NO_DIGEST = "0" * 64


class Conflict(ApiError):
    """What was asked does not fit what is there."""

    status: ClassVar[int] = 409
    type: ClassVar[str] = "invalid_request_error"
    default_code: ClassVar[str | None] = "conflict"


class NewKey(NamedTuple):
    """A key that was made, and its record. This is the only time that anybody sees `key`."""

    key: str
    record: Record

    def __repr__(self) -> str:
        return f"NewKey(key='{self.record.shown}…', record={self.record!r})"


class Listing(NamedTuple):
    """The keys of the directory by id and age, and what is wrong with items that cannot be read."""

    records: list[Record]
    unreadable: list[str]


def make_key(settings: Settings, wish: Mapping[str, Any], *, random: bytes, now: float, by: str = "") -> NewKey:
    """A key as `wish` describes it (the fields of `[[key]]` without sha256), checked against the configuration.

    `random` are 32 random bytes. Without an `id` it gets one. Raises BadRequest that names the field.
    """
    key = new_key(random)
    named = {"id": f"key-{digest_of(key)[:8]}", **wish}
    record = made(key, _checked(settings, named), now=now, by=by)
    if record.state(now) == "expired":
        raise BadRequest("expires: this moment is past", param="expires")
    return NewKey(key, record)


class KeyAdmin:
    """The keys of one directory store. Times are epoch seconds. Every method may raise StoreUnavailable."""

    def __init__(self, settings: Settings, store: DirectoryStore) -> None:
        self._settings = settings
        self._store = store

    async def create(self, wish: Mapping[str, Any], *, random: bytes, now: float, by: str = "") -> NewKey:
        """Make a key, as `make_key` does, and keep it. Raises BadRequest, and Conflict when there is one of this id."""
        new = make_key(self._settings, wish, random=random, now=now, by=by)
        items = await self._items()
        if all_revoked(new.record.key.id) in items or _of(items, new.record.key.id):
            raise Conflict(f"id: there is a key {new.record.key.id!r} already; an id is never used again")
        await self._keep(new.record)
        return new

    async def listing(self) -> Listing:
        """All of them, also those that are over."""
        found = list(records_in(await self._items()))
        records = [one for one in found if isinstance(one, Record)]
        unreadable = [str(one) for one in found if isinstance(one, RecordError)]
        return Listing(sorted(records, key=lambda one: (one.key.id, *_order(one))), unreadable)

    async def rotate(self, key_id: str, *, grace: float, random: bytes, now: float, by: str = "") -> NewKey:
        """Make a new key of this id that may the same; the ones before it end after `grace` seconds.

        Raises NotFound, BadRequest, and Conflict when it was revoked, also when that happens meanwhile.
        """
        if not (isfinite(grace) and 0 <= grace <= LONGEST_GRACE):
            raise BadRequest(f"grace: must be from 0 to {LONGEST_GRACE:g} seconds", param="grace")
        before = self._records_in(await self._items(), key_id)
        active = [record for record in before if record.state(now) == "active"]
        if not active:
            raise Conflict(f"key {key_id!r} is {before[-1].state(now)}: make a new one with another id")
        key = new_key(random)
        replaces = tuple(record.key.sha256 for record in before)
        new = NewKey(key, made(key, active[-1].key, now=now, by=by, replaces=replaces))
        await self._keep(new.record)
        for record in active:
            await self._retire(record, now + grace)
        # Who revoked the id a moment ago may not have seen the new key; its item for the id covers it all the same.
        if all_revoked(key_id) in await self._items():
            raise Conflict(f"key {key_id!r} was revoked meanwhile, and the new key with it")
        return new

    async def revoke(self, key_id: str, *, now: float, by: str = "") -> list[Record]:
        """Take back every key of this id, for ever; of several times the first counts. Gives the keys as they are then.
        Raises NotFound."""
        items = await self._items()
        before = self._records_in(items, key_id)
        # One that was replaced in another region may be on its way here still.
        digests = {digest for record in before for digest in (record.key.sha256, *record.replaces)}
        for name in (all_revoked(key_id), *map(revoked, sorted(digests))):
            if name not in items:
                await self._take_back(name, key_id, now, by)
        return [_gone(record, now) for record in before]

    async def revoke_key(self, key: str, *, now: float, by: str = "") -> list[Record]:
        """Take back this one key, for ever; others of its id stay, and the first time counts. Gives the key as it is
        then, none if its item cannot be read. Raises NotFound."""
        digest = digest_of(key)
        items = await self._store.items(PARTITION, prefix=digest, consistent=True)
        if digest not in items:
            raise NotFound(_why_unknown(self._settings, key, digest), code="key_not_found")
        found = [one for one in records_in(items) if isinstance(one, Record)]
        if revoked(digest) not in items:
            await self._take_back(revoked(digest), found[0].key.id if found else "", now, by)
        return [_gone(record, now) for record in found]

    async def _items(self) -> dict[str, dict[str, Any]]:
        return await self._store.items(PARTITION, consistent=True)

    def _records_in(self, items: Mapping[str, Mapping[str, Any]], key_id: str) -> list[Record]:
        """The keys of this id, oldest first."""
        if may_be_key(key_id):
            raise NotFound(
                "this is a key, not its id: give it as `key`, or to the command with --stdin", code="key_not_found"
            )
        found = _of(items, key_id)
        if not found and any(key.id == key_id for key in self._settings.key):
            raise Conflict(f"key {key_id!r} stands in the configuration: change its [[key]] there, and deploy")
        if not found:
            raise NotFound(f"there is no key {key_id[:200]!r}", code="key_not_found")
        return found

    async def _keep(self, record: Record) -> None:
        try:
            await self._store.put(PARTITION, record.key.sha256, item_of(record))
        except ValueError:
            raise BadRequest(f"key {record.key.id!r}: it says more than one item of the table takes") from None

    async def _retire(self, record: Record, at: float) -> None:
        if record.retires is None or at < record.retires:
            await self._store.put(PARTITION, retired(record.key.sha256, at), {"id": record.key.id, "at": at})

    async def _take_back(self, name: str, key_id: str, now: float, by: str) -> None:
        await self._store.put(PARTITION, name, {"id": key_id, "at": now, "by": by})


def as_data(record: Record, now: float) -> dict[str, Any]:
    """A key as it is listed, for JSON: everything but its digest; times are epoch seconds."""
    said = msgspec.to_builtins(record.key)
    del said["sha256"]
    ends = record.principal.expires
    about = {"shown": record.shown, "state": record.state(now), "created": record.created, "by": record.by}
    return {**said, **about, "expires": ends, "revoked": record.revoked}


def _of(items: Mapping[str, Mapping[str, Any]], key_id: str) -> list[Record]:
    found = (one for one in records_in(items) if isinstance(one, Record))
    return sorted((one for one in found if one.key.id == key_id), key=_order)


def _gone(record: Record, now: float) -> Record:
    return record if record.revoked is not None else record._replace(revoked=now)


def _order(record: Record) -> tuple[int, float]:
    """Of the keys of one id: each replaces more than the one before, whatever the clocks of operators say."""
    return len(record.replaces), record.created


def _checked(settings: Settings, wish: Mapping[str, Any]) -> Key:
    """What a `[[key]]` table of the configuration may say, and nothing else."""
    if "sha256" in wish:
        raise BadRequest("sha256: unknown key", param="sha256")
    try:
        key = msgspec.convert({**wish, "sha256": _NO_DIGEST}, Key)
    except msgspec.ValidationError as error:
        message, _, trail = str(error).partition(" - at `$")
        path = path_of(trail.rstrip("`"), message)
        raise _wrong(path, in_plain_words(message, path, Key)) from None
    place = len(settings.key)
    for path, message in contradictions(structs.replace(settings, key=(*settings.key, key))):
        if path[:2] == ("key", place):
            raise _wrong(path[2:], message)
    return key


def _wrong(path: Iterable[str | int], message: str) -> BadRequest:
    name = dotted(tuple(path))
    return BadRequest(f"{name}: {message}", param=name)


def _why_unknown(settings: Settings, key: str, digest: str) -> str:
    if known := next((one for one in settings.key if one.sha256 == digest), None):
        return f"this key stands in the configuration as {known.id!r}: take its [[key]] out there, and deploy"
    if not may_be_key(key):
        return "this does not look like a key: they begin with isk_ and have 47 characters"
    return f"there is no key that begins with {shown_of(key)}… and is this one"
