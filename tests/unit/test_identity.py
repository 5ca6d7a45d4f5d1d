from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from msgspec import structs

from isochrone import settings
from isochrone.admission.identity import Identity
from isochrone.admission.key_directory import KeyDirectory
from isochrone.admission.key_record import item_of, made, new_key
from isochrone.admission.keys import KeyRing, digest_of
from isochrone.admission.principal import ANONYMOUS, Principal
from isochrone.api.errors import ApiError, Forbidden, KeysUnavailable, Unauthorized
from isochrone.background import Background
from isochrone.stores.memory import MemoryDirectoryStore
from isochrone.stores.protocols import StoreUnavailable

NOW = 1_800_000_000.0
SECRET = "a-key-of-32-random-bytes"
KEY = settings.Key(id="team-a-1", sha256=digest_of(SECRET), tenant="team-a")
INSIDE = structs.replace(KEY, id="inside", sha256=digest_of("inside"), tenant="team-b", networks=("10.0.0.0/8",))
OVER = structs.replace(KEY, id="over", sha256=digest_of("over"), expires=datetime.fromtimestamp(NOW, UTC))
TOKEN = "eyJhbGciOiJSUzI1NiJ9.e30.c2ln"
OURS = new_key(bytes(range(32)))


class Believer:
    """Stands for the issuers: believes any token."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.refreshed_at = 0.0

    async def identify(self, token: str, now: float) -> Principal:
        self.asked.append(token)
        return Principal("issuer", "team-t", kind="token", subject="ann", expires=now - 5)

    async def refresh(self, *, now: float) -> None:
        self.refreshed_at = now


def identity(
    *keys: settings.Key,
    required: bool = True,
    network: settings.Network | None = None,
    directory: KeyDirectory | None = None,
    tokens: Believer | None = None,
) -> Identity:
    return Identity(
        KeyRing(keys), required=required, network=network or settings.Network(), directory=directory, tokens=tokens
    )


def directory_of(store: MemoryDirectoryStore) -> KeyDirectory:
    return KeyDirectory(store, Background(), max_age=3600)


async def laid_down(store: MemoryDirectoryStore, key: str, said: settings.Key) -> None:
    record = made(key, said, now=NOW, by="")
    await store.put("key", record.key.sha256, item_of(record))


async def refusal(identity: Identity, header: str | None, address: str = "") -> ApiError:
    with pytest.raises(ApiError) as caught:
        await identity.identify(header, address, now=NOW)
    return caught.value


async def test_known_key_is_its_tenant() -> None:
    found = await identity(KEY, INSIDE).identify(f"Bearer {SECRET}", "203.0.113.9", now=NOW)
    assert (found.key_id, found.tenant) == ("team-a-1", "team-a")


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", SECRET, f"Basic {SECRET}"])
async def test_who_shows_no_key_is_told_how_to_show_one(header: str | None) -> None:
    error = await refusal(identity(KEY), header)
    assert isinstance(error, Unauthorized)
    assert error.message == "No API key: send the header 'Authorization: Bearer KEY'."


@pytest.mark.parametrize(
    "key", [f"{SECRET}x", KEY.sha256, "\udcff\udcfe", "\ud800", "ключ", TOKEN, OURS, "a b", "x" * 100_000]
)
async def test_unknown_key_is_refused_and_not_repeated(key: str) -> None:
    error = await refusal(identity(KEY), f"Bearer {key}")
    assert isinstance(error, Unauthorized)
    assert (error.message, error.code) == ("This API key is not known here.", "invalid_api_key")


async def test_key_ends_at_the_moment_it_expires_and_says_so() -> None:
    error = await refusal(identity(OVER), "Bearer over")
    assert (error.status, error.code, error.message) == (401, "expired_api_key", "This API key has expired.")
    assert (await identity(OVER).identify("Bearer over", "", now=NOW - 0.001)).key_id == "over"


async def test_expired_key_does_not_become_anonymous_where_none_is_required() -> None:
    assert (await refusal(identity(OVER, required=False), "Bearer over")).code == "expired_api_key"


async def test_without_required_keys_a_stranger_is_anonymous_and_a_known_key_still_itself() -> None:
    door = identity(KEY, required=False)
    assert await door.identify(None, "", now=NOW) == ANONYMOUS
    assert await door.identify("Bearer who", "", now=NOW) == ANONYMOUS
    assert (await door.identify(f"Bearer {SECRET}", "", now=NOW)).tenant == "team-a"


async def test_key_with_networks_works_from_them_only() -> None:
    door = identity(KEY, INSIDE)
    assert (await door.identify("Bearer inside", "10.1.2.3", now=NOW)).tenant == "team-b"
    for address in ("203.0.113.9", "2001:db8::1", "", "nonsense"):
        error = await refusal(door, "Bearer inside", address)
        assert isinstance(error, Forbidden)
        assert error.code == "address_not_allowed"


async def test_address_that_nobody_may_use_is_refused_before_any_key_is_looked_at() -> None:
    door = identity(KEY, required=False, network=settings.Network(deny=("203.0.113.0/24",)))
    for header in (None, f"Bearer {SECRET}", "Bearer who"):
        error = await refusal(door, header, "203.0.113.9")
        assert error.message == "This service may not be used from 203.0.113.9."
    assert (await door.identify(None, "198.51.100.1", now=NOW)) == ANONYMOUS


async def test_network_rules_of_all_hold_beside_those_of_the_key() -> None:
    door = identity(INSIDE, network=settings.Network(allow=("10.0.0.0/16",)))
    assert (await door.identify("Bearer inside", "10.0.1.1", now=NOW)).key_id == "inside"
    assert (await refusal(door, "Bearer inside", "10.1.0.1")).status == 403


async def test_token_is_told_from_a_key_by_its_shape_and_its_end_is_its_issuers_to_judge() -> None:
    tokens = Believer()
    door = identity(KEY, tokens=tokens)
    assert (await door.identify(f"Bearer {TOKEN}", "", now=NOW)).subject == "ann"
    for other in (OURS, "eyJ.only", "a.b.c", "eyJ.a.b.c"):
        assert (await refusal(door, f"Bearer {other}")).status == 401
    assert tokens.asked == [TOKEN]


async def test_keys_of_issuers_are_read_anew_when_the_edge_has_time_for_it() -> None:
    tokens = Believer()
    await identity(tokens=tokens).refresh(now=NOW)
    await identity().refresh(now=NOW)
    assert tokens.refreshed_at == NOW


async def test_key_of_the_configuration_may_look_like_a_token() -> None:
    looks_alike = structs.replace(KEY, sha256=digest_of(TOKEN))
    tokens = Believer()
    assert (await identity(looks_alike, tokens=tokens).identify(f"Bearer {TOKEN}", "", now=NOW)).key_id == "team-a-1"
    assert tokens.asked == []


async def test_key_of_the_directory_is_known_and_only_what_looks_like_one_is_looked_for() -> None:
    store = MemoryDirectoryStore()
    await laid_down(store, OURS, structs.replace(KEY, id="laid-down", tenant="team-d"))
    door = identity(KEY, directory=directory_of(store))
    assert (await door.identify(f"Bearer {OURS}", "", now=NOW)).tenant == "team-d"
    store.failing = True
    for other in ("sk-of-another-service", f"{OURS}x", OURS.replace("isk_", "sk__"), SECRET + "y"):
        assert (await refusal(door, f"Bearer {other}")).status == 401
    error = await refusal(door, f"Bearer {new_key(bytes(32))}")
    assert isinstance(error, KeysUnavailable)
    assert (error.status, error.retry_after) == (503, 1.0)


async def test_nobody_becomes_anonymous_because_the_table_does_not_answer() -> None:
    store = MemoryDirectoryStore()
    store.failing = True
    door = identity(required=False, directory=directory_of(store))
    assert (await refusal(door, f"Bearer {OURS}")).code == "keys_unavailable"


async def test_key_of_the_configuration_asks_no_table_and_never_waits() -> None:
    store = MemoryDirectoryStore()
    store.failing = True
    door = identity(KEY, directory=directory_of(store))
    with pytest.raises(StopIteration) as done:
        door.identify(f"Bearer {SECRET}", "", now=NOW).send(None)
    assert done.value.value.key_id == "team-a-1"


async def test_work_in_the_name_of_a_key_has_the_rights_that_the_key_has_now() -> None:
    bound = structs.replace(KEY, id="eu", sha256=digest_of("eu"), regions=("eu-west-1",), private=True)
    store = MemoryDirectoryStore()
    await laid_down(store, OURS, structs.replace(KEY, id="laid-down", tenant="team-d"))
    door = identity(bound, OVER, directory=directory_of(store))
    known = await door.principal_of("eu", now=NOW)
    assert known is not None
    assert (known.tenant, known.regions, known.private) == ("team-a", ("eu-west-1",), True)
    laid = await door.principal_of("laid-down", now=NOW)
    assert laid is not None
    assert laid.tenant == "team-d"
    assert await door.principal_of("gone", now=NOW) is None
    assert await door.principal_of("over", now=NOW) is None


async def test_work_for_who_has_no_key_ends_when_keys_are_required() -> None:
    assert await identity().principal_of(None, now=NOW) is None
    assert await identity(required=False).principal_of(None, now=NOW) is ANONYMOUS


async def test_tenants_are_those_whose_keys_are_good_and_of_whom_something_may_be_kept() -> None:
    store = MemoryDirectoryStore()
    await laid_down(store, OURS, structs.replace(KEY, id="laid-down", tenant="team-d"))
    await laid_down(store, new_key(bytes(32)), structs.replace(KEY, id="secretive", tenant="team-s", private=True))
    await store.put("key", f"{digest_of(new_key(b'x' * 32))}#revoked", {"id": "other", "at": NOW})
    over = structs.replace(OVER, tenant="team-o")
    assert await identity(KEY, over, directory=directory_of(store)).tenants(now=NOW) == {"team-a", "team-d"}
    assert await identity(KEY, required=False).tenants(now=NOW) == {"team-a", "anonymous"}


async def test_tenants_of_a_table_that_is_gone_are_not_told_as_none() -> None:
    store = MemoryDirectoryStore()
    store.failing = True
    with pytest.raises(StoreUnavailable):
        await identity(KEY, directory=directory_of(store)).tenants(now=NOW)


async def test_many_who_come_with_one_new_key_cost_one_read() -> None:
    class Counting(MemoryDirectoryStore):
        reads = 0

        async def items(
            self, partition: str, *, prefix: str = "", consistent: bool = False
        ) -> dict[str, dict[str, object]]:
            self.reads += 1
            await asyncio.sleep(0)
            return await super().items(partition, prefix=prefix, consistent=consistent)

    store = Counting()
    await laid_down(store, OURS, KEY)
    door = identity(directory=directory_of(store))
    found = await asyncio.gather(*(door.identify(f"Bearer {OURS}", "", now=NOW) for _ in range(50)))
    assert {one.key_id for one in found} == {"team-a-1"}
    assert store.reads == 1
