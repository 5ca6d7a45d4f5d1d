from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256

import pytest

from isochrone import settings
from isochrone.admission.keys import KeyRing, bearer_of, digest_of, principal_of

SECRET = "a-key-of-32-random-bytes"
KEY = settings.Key(id="team-a-1", sha256=sha256(SECRET.encode()).hexdigest(), tenant="team-a")


@pytest.mark.parametrize("header", [f"Bearer {SECRET}", f"bearer {SECRET}", f"BEARER  {SECRET} "])
def test_key_stands_behind_the_word_bearer_however_it_is_written(header: str) -> None:
    assert bearer_of(header) == SECRET


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", SECRET, f"Basic {SECRET}", f" Bearer {SECRET}"])
def test_header_of_another_shape_shows_no_key(header: str | None) -> None:
    assert bearer_of(header) == ""


def test_key_is_found_by_its_digest_and_by_nothing_else() -> None:
    ring = KeyRing([KEY])
    found = ring.find(digest_of(SECRET))
    assert found is not None
    assert (found.key_id, found.tenant, found.kind) == ("team-a-1", "team-a", "key")
    for other in (SECRET + "x", "", KEY.sha256, SECRET.upper(), "\udcff\udcfe", "ключ"):
        assert ring.find(digest_of(other)) is None


def test_key_speaks_for_its_tenant_with_all_that_its_table_says() -> None:
    key = settings.Key(
        id="k",
        sha256=KEY.sha256,
        tenant="t",
        requests_per_minute=6,
        dollars_per_month=2.5,
        networks=("10.0.0.0/8",),
        denied_networks=("10.9.0.0/16",),
        models=("m",),
        regions=("eu-west-1",),
        owner="ann",
        tags=("batch",),
        expires=datetime(2027, 1, 31, tzinfo=UTC),
        priority=3,
        private=True,
        pii="log",
        answers=settings.OwnAnswers(ttl=5),
    )
    found = principal_of(key)
    assert found.limits == settings.OwnLimits(requests_per_minute=6, dollars_per_month=2.5)
    assert ([str(one) for one in found.networks], [str(one) for one in found.denied_networks]) == (
        ["10.0.0.0/8"],
        ["10.9.0.0/16"],
    )
    assert (found.models, found.regions, found.owner, found.tags) == (("m",), ("eu-west-1",), "ann", ("batch",))
    assert (found.priority, found.private, found.pii, found.answers) == (3, True, "log", settings.OwnAnswers(ttl=5))
    assert found.expires == datetime(2027, 1, 31, tzinfo=UTC).timestamp()


def test_key_ends_when_it_says_itself_or_when_it_was_replaced_whichever_is_first() -> None:
    assert principal_of(KEY).expires is None
    assert principal_of(KEY, expires=7.0).expires == 7.0
    ending = settings.Key(id="k", sha256=KEY.sha256, tenant="t", expires=datetime.fromtimestamp(5, UTC))
    assert (principal_of(ending).expires, principal_of(ending, expires=7.0).expires) == (5.0, 5.0)
    assert principal_of(ending, expires=3.0).expires == 3.0
