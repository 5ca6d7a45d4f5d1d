from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec import structs

from isochrone.admission.key_record import (
    Record,
    RecordError,
    all_revoked,
    item_of,
    made,
    may_be_key,
    new_key,
    record_of,
    records_in,
    retired,
    revoked,
    shown_of,
)
from isochrone.admission.keys import digest_of
from isochrone.settings import Key, OwnAnswers
from isochrone.stores.limits import check_item

KEY = new_key(bytes(range(32)))
DIGEST = digest_of(KEY)
PLAIN = Key(id="k", sha256="", tenant="t")
FULL = Key(
    id="k",
    sha256="",
    tenant="t",
    tokens_per_minute=7,
    dollars_per_month=2.0,
    networks=("10.0.0.0/8",),
    models=("m", "n"),
    owner="Ann, 安",
    tags=("batch",),
    expires=datetime(2027, 1, 31, tzinfo=UTC),
    priority=3,
    private=True,
    pii="log",
    answers=OwnAnswers(ttl=5),
)


def read(item: dict[str, Any], *others: str) -> Record | None:
    return record_of(DIGEST, {DIGEST: item, **{name: {"id": "k", "at": 50} for name in others}})


def test_key_is_32_random_bytes_behind_a_prefix_that_scanners_can_look_for() -> None:
    assert KEY == "isk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
    assert len(KEY) == 47
    assert shown_of(KEY) == "isk_AAEC"


@pytest.mark.parametrize("text", [KEY[:-1], KEY + "x", "ISK_" + KEY[4:], "", "isk_"])
def test_what_has_another_shape_is_no_key(text: str) -> None:
    assert may_be_key(KEY)
    assert not may_be_key(text)


@pytest.mark.parametrize("said", [PLAIN, FULL])
def test_key_comes_back_from_its_item_as_it_was_made(said: Key) -> None:
    record = made(KEY, said, now=5.5, by="ann", replaces=("digest",))
    item = item_of(record)
    check_item("key", DIGEST, item)
    assert read(item) == record
    assert record.key == structs.replace(said, sha256=DIGEST)
    assert KEY not in str(item)
    assert DIGEST not in str(item)


def test_item_says_only_what_the_key_says_so_that_an_older_edge_can_read_it() -> None:
    assert set(item_of(made(KEY, PLAIN, now=5.5, by=""))) == {"id", "tenant", "shown", "created", "by", "replaces"}


def test_replaced_key_ends_when_that_was_laid_down_or_earlier_by_itself() -> None:
    record = read(item_of(made(KEY, PLAIN, now=5.5, by="")), retired(DIGEST, 50))
    assert record is not None
    assert (record.state(49.9), record.state(50), record.principal.expires) == ("active", "expired", 50.0)


def test_key_that_was_replaced_twice_at_once_ends_at_the_earlier_of_both_moments() -> None:
    items = {DIGEST: item_of(made(KEY, PLAIN, now=5.5, by="")), **{retired(DIGEST, at): {"at": at} for at in (60, 50)}}
    record = record_of(DIGEST, items)
    assert record is not None
    assert record.retires == 50


def test_key_that_was_taken_back_is_revoked_whatever_else_is_said() -> None:
    record = read(item_of(made(KEY, PLAIN, now=5.5, by="")), revoked(DIGEST), retired(DIGEST, 50))
    assert record is not None
    assert record.state(0) == record.state(99) == "revoked"


def test_revocation_without_its_moment_is_one() -> None:
    record = record_of(DIGEST, {DIGEST: item_of(made(KEY, PLAIN, now=5.5, by="")), revoked(DIGEST): {}})
    assert record is not None
    assert record.state(0) == "revoked"


def test_revocation_of_an_id_covers_the_key_that_took_the_place_of_another() -> None:
    for replaces, state in ((("digest",), "revoked"), ((), "active")):
        record = read(item_of(made(KEY, PLAIN, now=5.5, by="", replaces=replaces)), all_revoked("k"), all_revoked("ki"))
        assert record is not None
        assert record.state(60) == state


def test_revocation_of_a_key_that_is_not_here_is_no_key() -> None:
    assert record_of(DIGEST, {revoked(DIGEST): {"at": 1}}) is None


@pytest.mark.parametrize(
    "damage",
    [
        {"tenant": None},
        {"tenant": "!"},
        {"models": "m"},
        {"models": 3},
        {"expires": "soon"},
        {"created": None, "shown": None, "may_only_dance": True},
        {"requests_per_minute": "many"},
    ],
)
def test_item_that_cannot_be_read_is_an_error_and_no_key_without_its_restrictions(damage: dict[str, Any]) -> None:
    with pytest.raises(RecordError, match="the item of key 'k' cannot be read"):
        read(item_of(made(KEY, FULL, now=5.5, by="")) | damage)


@pytest.mark.parametrize("missing", ["tenant", "shown", "replaces"])
def test_item_without_a_field_that_every_key_has_is_an_error(missing: str) -> None:
    item = item_of(made(KEY, FULL, now=5.5, by=""))
    del item[missing]
    with pytest.raises(RecordError):
        read(item)


def test_partition_is_read_key_by_key_and_what_cannot_be_read_hides_no_other() -> None:
    other = digest_of("other")
    items: dict[str, dict[str, Any]] = {
        DIGEST: item_of(made(KEY, PLAIN, now=5.5, by="")),
        revoked(DIGEST): {"at": 1},
        other: {"id": "broken"},
        all_revoked("k"): {"at": 1},
    }
    found = list(records_in(items))
    assert [type(one) for one in found] == [Record, RecordError]
