from __future__ import annotations

from hashlib import sha256

import pytest

from isochrone import settings
from isochrone.admission.keys import KeyRing
from isochrone.admission.principal import ANONYMOUS
from isochrone.api.errors import Forbidden, Unauthorized

SECRET = "a-key-of-32-random-bytes"
KEY = settings.Key(id="team-a-1", sha256=sha256(SECRET.encode()).hexdigest(), tenant="team-a")
INSIDE = settings.Key(id="inside", sha256=sha256(b"inside").hexdigest(), tenant="team-b", networks=("10.0.0.0/8",))


@pytest.fixture
def ring() -> KeyRing:
    return KeyRing([KEY, INSIDE], required=True)


@pytest.mark.parametrize("header", [f"Bearer {SECRET}", f"bearer {SECRET}", f"Bearer  {SECRET} "])
def test_known_key_is_its_tenant(ring: KeyRing, header: str) -> None:
    principal = ring.identify(header, "203.0.113.9")
    assert (principal.key_id, principal.tenant) == ("team-a-1", "team-a")


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        SECRET,
        f"Basic {SECRET}",
        f"Bearer {SECRET}x",
        f"Bearer {KEY.sha256}",
        "Bearer \udcff\udcfe",
        "Bearer ключ",
    ],
)
def test_anything_else_is_unauthorized(ring: KeyRing, header: str | None) -> None:
    with pytest.raises(Unauthorized):
        ring.identify(header, "203.0.113.9")


def test_error_tells_a_missing_key_from_an_unknown_one_and_repeats_neither(ring: KeyRing) -> None:
    with pytest.raises(Unauthorized, match="No API key"):
        ring.identify(None, "")
    with pytest.raises(Unauthorized) as caught:
        ring.identify("Bearer guessed-secret", "")
    assert caught.value.message == "This API key is not known here."


def test_without_required_keys_a_stranger_is_anonymous_and_a_known_key_still_itself() -> None:
    ring = KeyRing([KEY], required=False)
    assert ring.identify(None, "") == ANONYMOUS
    assert ring.identify("Bearer who", "") == ANONYMOUS
    assert ring.identify(f"Bearer {SECRET}", "").tenant == "team-a"


def test_key_with_networks_works_from_them_only(ring: KeyRing) -> None:
    assert ring.identify("Bearer inside", "10.1.2.3").tenant == "team-b"
    assert ring.identify("Bearer inside", "::ffff:10.1.2.3").tenant == "team-b"
    for address in ("203.0.113.9", "2001:db8::1", "", "nonsense"):
        with pytest.raises(Forbidden) as caught:
            ring.identify("Bearer inside", address)
        assert caught.value.code == "address_not_allowed"


def test_regions_of_a_key_are_its_principals() -> None:
    bound = settings.Key(id="eu", sha256=sha256(b"eu").hexdigest(), tenant="t", regions=("eu-west-1",))
    assert KeyRing([bound], required=True).identify("Bearer eu", "").regions == ("eu-west-1",)


def test_work_in_the_name_of_a_key_has_the_rights_that_the_key_has_now(ring: KeyRing) -> None:
    bound = settings.Key(id="eu", sha256=sha256(b"eu").hexdigest(), tenant="t", regions=("eu-west-1",), private=True)
    known = KeyRing([bound], required=True).principal_of("eu")
    assert known is not None
    assert (known.tenant, known.regions, known.private) == ("t", ("eu-west-1",), True)
    assert ring.principal_of("gone") is None


def test_work_for_who_has_no_key_ends_when_keys_are_required() -> None:
    assert KeyRing([], required=True).principal_of(None) is None
    assert KeyRing([], required=False).principal_of(None) is ANONYMOUS
