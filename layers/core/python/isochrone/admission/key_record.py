"""A key as the directory keeps it: what a `[[key]]` table of the configuration says, and what became of it since.

    key    <digest>                     the key; written once and never again
           <digest>#retired#<moment>    it was replaced: it ends then; of several the earliest counts
           <digest>#revoked             it was taken back
           revoked#<id>                 every key of this id was, also one that another region makes just now

The directory's last writer wins, and its writers may be continents apart. So what happens to a key is an item of its
own, which nothing overwrites: no edit anywhere undoes a revocation, or lets a key live longer.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

import msgspec

from isochrone.admission.keys import digest_of, principal_of
from isochrone.admission.principal import Principal
from isochrone.settings import Key

PARTITION = "key"
PREFIX = "isk_"
RANDOM_BYTES = 32
_LENGTH = len(PREFIX) + 43
_SHOWN = 8

State = Literal["active", "expired", "revoked"]


class RecordError(ValueError):
    """An item that no version of this program wrote, or a newer one with a restriction that this one does not know."""


class Record(NamedTuple):
    """One key. `shown` is how it begins; `created`, `retires` and `revoked` are epoch seconds; `by` says who made it;
    `replaces` holds the digests of those of the same id whose place it took."""

    key: Key
    shown: str
    created: float
    by: str = ""
    replaces: tuple[str, ...] = ()
    retires: float | None = None
    revoked: float | None = None

    @property
    def principal(self) -> Principal:
        """Whom it speaks for, unless it was revoked."""
        return principal_of(self.key, expires=self.retires)

    def state(self, now: float) -> State:
        """What it is good for at this moment."""
        if self.revoked is not None:
            return "revoked"
        ends = self.principal.expires
        return "expired" if ends is not None and ends <= now else "active"


def new_key(random: bytes) -> str:
    """The key that these 32 random bytes make."""
    return PREFIX + urlsafe_b64encode(random).decode().rstrip("=")


def may_be_key(text: str) -> bool:
    """Does it look like a key that `new_key` made? What does not is asked of no table."""
    return len(text) == _LENGTH and text.startswith(PREFIX)


def shown_of(key: str) -> str:
    """How a key begins, to know it again by; 24 bits of it, which help nobody to guess the rest."""
    return key[:_SHOWN]


def retired(digest: str, at: float) -> str:
    """The name of the item that ends a key at this moment."""
    return f"{digest}#retired#{at:.3f}"


def revoked(digest: str) -> str:
    """The name of the item that takes a key back."""
    return f"{digest}#revoked"


def all_revoked(key_id: str) -> str:
    """The name of the item that takes back every key of an id."""
    return f"revoked#{key_id}"


_BLANK = msgspec.to_builtins(Key(id="", sha256="", tenant=""))
_AS_JSON = frozenset(("replaces", *(name for name, value in _BLANK.items() if isinstance(value, tuple | dict))))
_ABOUT = ("shown", "created", "by", "replaces")


def said_by(key: Key) -> dict[str, Any]:
    """What a `[[key]]` table must say to mean this key, and no more."""
    return {name: value for name, value in msgspec.to_builtins(key).items() if value != _BLANK[name]}


def item_of(record: Record) -> dict[str, Any]:
    """The flat item of a key, without its digest, which names it, and without what it does not say."""
    said = said_by(record.key) | {name: getattr(record, name) for name in _ABOUT}
    del said["sha256"]
    return {name: _text(value) if name in _AS_JSON else value for name, value in said.items()}


def record_of(digest: str, items: Mapping[str, Mapping[str, Any]]) -> Record | None:
    """The key of this digest, with what these items of the directory say of it. None when it is not among them.

    Raises RecordError when its item cannot be read: what it restricts is not known then.
    """
    item = items.get(digest)
    if item is None:
        return None
    try:
        key, about = _read(digest, item)
        ends = [float(item["at"]) for name, item in items.items() if name.startswith(f"{digest}#retired#")]
        revocation = items.get(revoked(digest))
        if revocation is None and about["replaces"]:
            revocation = items.get(all_revoked(key.id))
        return Record(
            key,
            **about,
            retires=min(ends, default=None),
            revoked=_moment_of(revocation) if revocation is not None else None,
        )
    except (KeyError, TypeError, ValueError, msgspec.MsgspecError) as error:
        raise RecordError(f"the item of key {str(item.get('id'))[:128]!r} cannot be read: {error}") from None


def records_in(items: Mapping[str, Mapping[str, Any]]) -> Iterator[Record | RecordError]:
    """Every key among the items of the partition, or why it cannot be read."""
    for name in items:
        if "#" not in name:
            try:
                record = record_of(name, items)
            except RecordError as error:
                yield error
            else:
                assert record is not None
                yield record


def made(key: str, said: Key, *, now: float, by: str, replaces: tuple[str, ...] = ()) -> Record:
    """The record of a new key that says what `said` does."""
    return Record(msgspec.structs.replace(said, sha256=digest_of(key)), shown_of(key), now, by, replaces)


def _moment_of(revocation: Mapping[str, Any]) -> float:
    """A key is taken back also when nobody can tell when that was."""
    at = revocation.get("at")
    return float(at) if isinstance(at, int | float) else 0.0


def _read(digest: str, item: Mapping[str, Any]) -> tuple[Key, dict[str, Any]]:
    said = {name: _parsed(value) if name in _AS_JSON else value for name, value in item.items()}
    about = {name: said.pop(name) for name in _ABOUT}
    return msgspec.convert({**said, "sha256": digest}, Key), {**about, "replaces": tuple(about["replaces"])}


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _parsed(text: str) -> Any:
    return msgspec.json.decode(text)
