"""Tokens and URLs that nobody thought of: read as what they are, or refused in the one way there is for it."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any
from urllib.parse import urlsplit

from hypothesis import example, given
from hypothesis import strategies as st

from isochrone.admission.issuers.claims import principal_of
from isochrone.admission.issuers.compact import Malformed, read
from isochrone.api.errors import Unauthorized
from isochrone.outbound.addresses import is_public
from isochrone.outbound.urls import NotPublic, PublicUrl
from isochrone.settings import Issuer

NOW = 1_800_000_000.0
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
ISSUER = Issuer(
    name="i",
    url="https://login.example.com",
    audience="a",
    tenant_claim="tenant",
    tags_claim="tags.inner",
    attributes={"level": "level"},
    required={"kind": "access"},
)
SOUND: dict[str, Any] = {"exp": NOW + 60, "aud": "a", "sub": "s", "tenant": "t", "kind": "access"}


def part(document: Any) -> str:
    text = json.dumps(document).encode("utf-8", "surrogatepass")
    return urlsafe_b64encode(text).rstrip(b"=").decode()


@given(st.text() | st.text(alphabet="eyJ.-_A0="))
@example("\ud800")
def test_any_text_is_a_token_or_malformed(text: str) -> None:
    with suppress(Malformed):
        read(text)


@given(values, values)
def test_any_json_is_a_token_or_malformed(header: Any, claims: Any) -> None:
    try:
        said = read(f"{part(header)}.{part(claims)}.AAAA")
    except Malformed:
        return
    assert said.algorithm == header["alg"]
    assert said.claims["iss"] == said.issuer


@given(st.dictionaries(st.sampled_from([*SOUND, "nbf", "iat", "tags", "level"]), values))
def test_any_claims_speak_for_somebody_or_are_refused(changed: dict[str, Any]) -> None:
    try:
        principal = principal_of(SOUND | changed, ISSUER, now=NOW)
    except Unauthorized:
        return
    assert principal.kind == "token"
    assert principal.key_id == f"i:{principal.subject}"
    assert principal.expires and principal.expires + ISSUER.leeway > NOW
    assert all(isinstance(value, str) for value in (principal.tenant, *principal.tags, *principal.attributes.values()))


hosts = (
    st.text(max_size=20) | st.ip_addresses().map(str) | st.integers(0, 2**32).map(str) | st.integers(0, 2**32).map(hex)
)


@given(
    st.text() | st.builds("{}{}{}".format, st.sampled_from(["https://", "http://", "//"]), hosts, st.text(max_size=8))
)
def test_any_text_is_a_public_url_or_not(text: str) -> None:
    try:
        url = PublicUrl(text)
    except NotPublic:
        return
    parts = urlsplit(url.text)
    assert (parts.scheme, parts.username) == ("https", None)
    assert parts.hostname == url.host
    assert PublicUrl(url.text).text == url.text
    assert not url.is_local


@given(st.ip_addresses())
def test_public_address_is_of_the_public_network(address: IPv4Address | IPv6Address) -> None:
    if is_public(address):
        assert address.is_global
        assert not (address.is_private or address.is_multicast or address.is_loopback or address.is_link_local)


@given(st.ip_addresses(v=4), st.sampled_from(["::ffff:{}", "::{}", "64:ff9b::{}"]))
def test_address_inside_another_is_not_public_whatever_it_is(address: IPv4Address, form: str) -> None:
    assert not is_public(ip_address(form.format(address)))
