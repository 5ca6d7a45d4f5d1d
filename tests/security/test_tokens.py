"""Forged, stale and odd tokens against a real issuer over sockets: none of them is anybody's."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import nullcontext
from hashlib import sha256
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding
from jwt.algorithms import ECAlgorithm, OKPAlgorithm
from jwt.warnings import InsecureKeyLengthWarning

from isochrone.admission.issuers.issuers import KNOWN_SECONDS, Issuers
from isochrone.admission.issuers.signing_keys import ASK_SECONDS, KEEP_SECONDS
from isochrone.admission.principal import Principal
from isochrone.api.errors import ApiError, KeysUnavailable, Unauthorized
from isochrone.front_wiring import check_issuers
from isochrone.settings import Issuer, OwnLimits, SettingsError
from tests.faults.harness import backend, eventually, running_edge
from tests.issuers import AUDIENCE, DISCOVERY, NOW, LocalIssuer, believing, facts_of, jwk_of, rsa_key
from tests.upstream import Upstream

SAME = "This token is not good here."
LEEWAY = 30


@pytest.fixture
async def issuer() -> AsyncIterator[LocalIssuer]:
    async with LocalIssuer() as issuer:
        yield issuer


@pytest.fixture
def issuers(issuer: LocalIssuer) -> Issuers:
    return believing(facts_of(issuer))


async def refusal(issuers: Issuers, token: str, *, now: float = NOW) -> str:
    """Why it is refused."""
    with pytest.raises(Unauthorized) as caught:
        await issuers.identify(token, now=now)
    return caught.value.message


def part(document: Any) -> str:
    text = document if isinstance(document, str) else json.dumps(document)
    return urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def signed(header: Any, claims: Any) -> str:
    """Any header and claims at all, soundly signed with the issuer's own key."""
    from cryptography.hazmat.primitives.asymmetric import padding
    from cryptography.hazmat.primitives.hashes import SHA256

    said = f"{part(header)}.{part(claims)}"
    signature = rsa_key(1).sign(said.encode(), padding.PKCS1v15(), SHA256())
    return f"{said}.{urlsafe_b64encode(signature).rstrip(b'=').decode()}"


HEADER = {"alg": "RS256", "typ": "JWT", "kid": "key-1"}


# -- a sound one -------------------------------------------------------------------------------------------------------


async def test_sound_token_speaks_for_its_subject_and_tenant(issuer: LocalIssuer, issuers: Issuers) -> None:
    assert await issuers.identify(issuer.token(), now=NOW) == Principal(
        "test:alice", "acme", kind="token", subject="alice", attributes={}, expires=NOW + 600
    )


async def test_claims_become_attributes_tags_and_limits(issuer: LocalIssuer) -> None:
    facts = facts_of(
        issuer,
        tenant="fixed",
        tenant_claim=None,
        tags_claim="realm_access.roles",
        attributes={"department": "https://example.com/department", "level": "level", "staff": "staff", "none": "none"},
        models=("m",),
        regions=("us-east-1",),
        priority=4,
        limits=OwnLimits(requests_per_minute=5),
    )
    claims: dict[str, Any] = {
        "https://example.com/department": "physics",
        "level": 3,
        "staff": True,
        "realm_access": {"roles": ["reader", "not a name", 7, "admin"]},
    }
    principal = await believing(facts).identify(issuer.token(tenant=None, **claims), now=NOW)
    assert principal.tenant == "fixed"
    assert principal.tags == ("reader", "admin")
    assert principal.attributes == {"department": "physics", "level": "3", "staff": "true"}
    assert (principal.models, principal.regions, principal.priority) == (("m",), ("us-east-1",), 4)
    assert principal.limits.requests_per_minute == 5


@pytest.mark.parametrize("kind", ["JWT", "at+jwt", "application/at+jwt", None])
async def test_usual_types_are_taken(issuer: LocalIssuer, issuers: Issuers, kind: str | None) -> None:
    assert await issuers.identify(issuer.token({"typ": kind}), now=NOW)


async def test_one_audience_among_several_is_enough(issuer: LocalIssuer, issuers: Issuers) -> None:
    assert await issuers.identify(issuer.token(aud=["other", AUDIENCE]), now=NOW)


async def test_audience_can_stand_in_another_claim(issuer: LocalIssuer) -> None:
    """Cognito's access tokens have no `aud`, but `client_id` and `token_use`."""
    issuers = believing(facts_of(issuer, audience_claim="client_id", required={"token_use": "access"}))
    assert await issuers.identify(issuer.token(aud=None, client_id=AUDIENCE, token_use="access"), now=NOW)
    assert "token_use" in await refusal(issuers, issuer.token(aud=None, client_id=AUDIENCE, token_use="id"))
    assert "client_id" in await refusal(issuers, issuer.token(token_use="access"))


async def test_token_without_a_key_id_means_the_only_key_there_is(issuer: LocalIssuer, issuers: Issuers) -> None:
    token = signed({"alg": "RS256"}, issuer.claims())
    assert await issuers.identify(token, now=NOW)
    issuer.rotate(keep=True)
    assert await refusal(believing(facts_of(issuer)), token) == SAME


async def test_other_kinds_of_keys_verify_what_they_are_for(issuer: LocalIssuer) -> None:
    curve, edwards = ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate()
    published = [
        ECAlgorithm.to_jwk(curve.public_key(), as_dict=True),
        OKPAlgorithm.to_jwk(edwards.public_key(), as_dict=True),
    ]
    issuer.published = [{**jwk, "kid": str(i)} for i, jwk in enumerate(published)]
    issuers = believing(facts_of(issuer, algorithms=("ES384", "EdDSA")))
    for key, algorithm, key_id in ((curve, "ES384", "0"), (edwards, "EdDSA", "1")):
        assert await issuers.identify(jwt.encode(issuer.claims(), key, algorithm, headers={"kid": key_id}), now=NOW)
    assert await refusal(issuers, issuer.token()) == SAME


@pytest.mark.parametrize(
    "signature", [b"\0" * 64, b"\xff" * 64, b"\0" * 31 + b"\x01" + b"\0" * 31 + b"\x01", b"", b"\0" * 63, b"\0" * 65]
)
async def test_curve_is_not_fooled_by_numbers_that_are_out_of_its_range(issuer: LocalIssuer, signature: bytes) -> None:
    curve = ec.generate_private_key(ec.SECP256R1())
    issuer.published = [{**ECAlgorithm.to_jwk(curve.public_key(), as_dict=True), "kid": "0"}]
    issuers = believing(facts_of(issuer, algorithms=("ES256",)))
    sound = jwt.encode(issuer.claims(), curve, "ES256", headers={"kid": "0"})
    assert await issuers.identify(sound, now=NOW)
    forged = changed(sound, 2, urlsafe_b64encode(signature).decode().rstrip("="))
    assert await refusal(issuers, forged) == SAME


# -- forged ones -------------------------------------------------------------------------------------------------------


def public_pem() -> bytes:
    return (
        rsa_key(1)
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def hmac_signed(issuer: LocalIssuer, secret: bytes, algorithm: str = "HS256") -> str:
    """PyJWT itself would not sign with a public key."""
    import hmac

    said = f"{part(HEADER | {'alg': algorithm})}.{part(issuer.claims())}"
    return f"{said}.{urlsafe_b64encode(hmac.digest(secret, said.encode(), sha256)).rstrip(b'=').decode()}"


def changed(token: str, at: int, new: str) -> str:
    parts = token.split(".")
    parts[at] = new
    return ".".join(parts)


def by_another_key(issuer: LocalIssuer, **header: Any) -> str:
    return jwt.encode(issuer.claims(), rsa_key(9), "RS256", headers={"kid": "key-1"} | header)


_ES = ec.generate_private_key(ec.SECP256R1())
_OWN_JWK = jwk_of(rsa_key(9), "mine")

FORGERIES: dict[str, Callable[[LocalIssuer], str]] = {
    "another key under the same id": by_another_key,
    "another key under an id of its own": lambda issuer: by_another_key(issuer, kid="mine"),
    "its own key in the header": lambda issuer: by_another_key(issuer, jwk=_OWN_JWK),
    "its own key in the header, soundly signed": lambda issuer: signed(HEADER | {"jwk": _OWN_JWK}, issuer.claims()),
    "the address of its own keys": lambda issuer: by_another_key(issuer, jku="https://example.com/keys"),
    "the address of its own certificate": lambda issuer: by_another_key(issuer, x5u="https://example.com/pem"),
    "its own certificate": lambda issuer: by_another_key(issuer, x5c=["MIIB"]),
    "an extension that must be understood": lambda issuer: signed(HEADER | {"crit": ["exp"]}, issuer.claims()),
    "contents that are not encoded": lambda issuer: signed(HEADER | {"b64": False, "crit": ["b64"]}, issuer.claims()),
    "compressed": lambda issuer: signed(HEADER | {"zip": "DEF"}, issuer.claims()),
    "a token in a token": lambda issuer: signed(HEADER | {"cty": "JWT"}, issuer.claims()),
    "no algorithm": lambda issuer: signed({"typ": "JWT", "kid": "key-1"}, issuer.claims()),
    "algorithm none": lambda issuer: f"{part({'alg': 'none'})}.{part(issuer.claims())}.",
    "algorithm none, signed all the same": lambda issuer: signed(HEADER | {"alg": "none"}, issuer.claims()),
    "algorithm nOnE": lambda issuer: signed(HEADER | {"alg": "nOnE"}, issuer.claims()),
    "algorithm of no text": lambda issuer: signed(HEADER | {"alg": ["RS256"]}, issuer.claims()),
    "public key as a secret": lambda issuer: hmac_signed(issuer, public_pem()),
    "public key as a secret, called RS256": lambda issuer: hmac_signed(issuer, public_pem(), "RS256"),
    "empty secret": lambda issuer: hmac_signed(issuer, b""),
    "algorithm that is not configured": lambda issuer: jwt.encode(
        issuer.claims(), rsa_key(1), "RS512", headers={"kid": "key-1"}
    ),
    "padding that is not configured": lambda issuer: jwt.encode(
        issuer.claims(), rsa_key(1), "PS256", headers={"kid": "key-1"}
    ),
    "another family of keys": lambda issuer: jwt.encode(issuer.claims(), _ES, "ES256", headers={"kid": "key-1"}),
    "path as a key id": lambda issuer: by_another_key(issuer, kid="../../../../dev/null"),
    "query as a key id": lambda issuer: by_another_key(issuer, kid="x' UNION SELECT 'key"),
    "huge key id": lambda issuer: by_another_key(issuer, kid="k" * 2000),
    "empty key id": lambda issuer: signed(HEADER | {"kid": ""}, issuer.claims()),
    "key id of no text": lambda issuer: signed(HEADER | {"kid": 1}, issuer.claims()),
    "key id null": lambda issuer: signed(HEADER | {"kid": None}, issuer.claims()),
    "another type": lambda issuer: issuer.token({"typ": "dpop+jwt"}),
    "logout token": lambda issuer: issuer.token({"typ": "logout+jwt"}),
    "type of no text": lambda issuer: signed(HEADER | {"typ": {"JWT": 1}}, issuer.claims()),
    "another issuer": lambda issuer: issuer.token(iss="https://example.com/"),
    "issuer with a slash more": lambda issuer: issuer.token(iss=issuer.url + "/"),
    "issuer in other letters": lambda issuer: issuer.token(iss=issuer.url.replace("realms", "Realms")),
    "issuers": lambda issuer: signed(HEADER, issuer.claims(iss=[issuer.url])),
    "no issuer": lambda issuer: signed(HEADER, issuer.claims(iss=None)),
    "changed claims": lambda issuer: changed(issuer.token(), 1, part(issuer.claims(sub="root"))),
    "changed header": lambda issuer: changed(issuer.token(), 0, part(HEADER | {"x": 1})),
    "no signature": lambda issuer: changed(issuer.token(), 2, ""),
    "signature of another token": lambda issuer: changed(issuer.token(), 2, issuer.token(sub="bob").rpartition(".")[2]),
    "cut signature": lambda issuer: issuer.token()[:-8],
    "name twice in the claims": lambda issuer: signed(HEADER, json.dumps(issuer.claims())[:-1] + ', "sub": "root"}'),
    "name twice in the header": lambda issuer: signed(
        '{"alg": "RS256", "kid": "key-1", "alg": "none"}', issuer.claims()
    ),
    "name twice, once in escapes": lambda issuer: signed(
        HEADER, json.dumps(issuer.claims())[:-1] + ', "s\\u0075b": "root"}'
    ),
    "not a number": lambda issuer: signed(HEADER, json.dumps(issuer.claims())[:-1] + ', "nbf": NaN}'),
    "infinity": lambda issuer: signed(HEADER, json.dumps(issuer.claims(exp=None))[:-1] + ', "exp": Infinity}'),
    "number of 5,000 digits": lambda issuer: signed(
        HEADER, json.dumps(issuer.claims(exp=None))[:-1] + f', "exp": {"9" * 5000}}}'
    ),
    "deep claims": lambda issuer: signed(HEADER, "[" * 5000),
    "claims that are no object": lambda issuer: signed(HEADER, '"' + issuer.url + '"'),
    "header that is no object": lambda issuer: signed("[]", issuer.claims()),
    "claims that are no JSON": lambda issuer: signed(HEADER, "{"),
    "claims that are no text": lambda issuer: changed(issuer.token(), 1, "gICA"),
    "more than 8 KB": lambda issuer: issuer.token(more="a" * 8192),
    "two parts": lambda issuer: issuer.token().rpartition(".")[0],
    "four parts": lambda issuer: issuer.token() + ".AAAA",
    "five parts (encrypted)": lambda issuer: "AAAA.AAAA.AAAA.AAAA.AAAA",
    "blanks": lambda issuer: issuer.token().replace(".", ". "),
    "a line break at its end": lambda issuer: issuer.token() + "\n",
    "padding": lambda issuer: changed(issuer.token(), 2, "AAAA=="),
    "letters that only look alike": lambda issuer: issuer.token().replace(".", "．"),
    "byte that is no text": lambda issuer: issuer.token() + "\udcff",
    "lone surrogate": lambda issuer: issuer.token() + "\ud800",
    "algorithm in small letters": lambda issuer: signed(HEADER | {"alg": "rs256"}, issuer.claims()),
    "algorithm with a blank": lambda issuer: signed(HEADER | {"alg": "RS256 "}, issuer.claims()),
    "algorithm beside another one that ends early": lambda issuer: changed(
        issuer.token(), 0, part(HEADER | {"alg\0": "none"})
    ),
    "claims taken out": lambda issuer: changed(issuer.token(), 1, ""),
    "claims of another token": lambda issuer: changed(issuer.token(), 1, issuer.token(sub="bob").split(".")[1]),
    "a signature of zeros": lambda issuer: changed(issuer.token(), 2, "A" * 342),
    "the number one as a signature": lambda issuer: changed(issuer.token(), 2, "A" * 341 + "Q"),
    "the modulus as a signature": lambda issuer: changed(issuer.token(), 2, jwk_of(rsa_key(1), "")["n"]),
    "the bare digest as a signature": lambda issuer: changed(
        issuer.token(), 2, urlsafe_b64encode(sha256(issuer.token().rpartition(".")[0].encode()).digest()).decode()[:-1]
    ),
    "the signature of an HTTP request with the same key": lambda issuer: changed(
        issuer.token(),
        2,
        urlsafe_b64encode(rsa_key(1).sign(b"GET /", padding.PKCS1v15(), hashes.SHA256())).decode().rstrip("="),
    ),
    "signed for another digest": lambda issuer: changed(
        jwt.encode(issuer.claims(), rsa_key(1), "RS384", headers={"kid": "key-1"}), 0, part(HEADER)
    ),
    "JSON in place of the compact form": lambda issuer: json.dumps({"payload": issuer.token()}),
    "its scheme twice": lambda issuer: f"Bearer {issuer.token()}",
    "two tokens": lambda issuer: f"{issuer.token()},{issuer.token()}",
    "another alphabet of base64": lambda issuer: changed(issuer.token(), 1, part(issuer.claims())[:-2] + "+/"),
    "issuer with a NUL": lambda issuer: issuer.token(iss=issuer.url + "\0"),
    "issuer with a user": lambda issuer: issuer.token(iss=issuer.url.replace("//", "//a@")),
    "issuer as a prefix": lambda issuer: issuer.token(iss=issuer.url + ".example.com"),
    "nothing": lambda issuer: "",
    "dots": lambda issuer: "..",
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES.keys())
async def test_forged_token_is_nobodys_and_is_not_told_why(
    issuer: LocalIssuer, issuers: Issuers, forge: Callable[[LocalIssuer], str]
) -> None:
    await issuers.identify(issuer.token(), now=NOW)
    assert await refusal(issuers, forge(issuer)) == SAME


async def test_no_forged_token_makes_an_edge_ask_anybody_but_the_issuer(issuer: LocalIssuer) -> None:
    async with LocalIssuer() as other:
        issuers = believing(facts_of(issuer))
        for name in ("jku", "x5u"):
            assert await refusal(issuers, by_another_key(issuer, **{name: f"{other.url}/keys"})) == SAME
        assert other.asked.total() == 0


@pytest.mark.parametrize(
    "header",
    [
        {"kid": "../../../../dev/null"},
        {"kid": "a..b"},
        {"kid": "k" * 129},
        {"kid": "x' UNION"},
        {"kid": "new", "alg": "RS512"},
        {"kid": "new", "alg": "none"},
        {"kid": "new", "jku": "https://example.com"},
    ],
)
async def test_token_that_cannot_be_good_does_not_even_make_an_edge_ask_its_issuer(
    issuer: LocalIssuer, issuers: Issuers, header: dict[str, Any]
) -> None:
    await issuers.identify(issuer.token(), now=NOW)
    assert await refusal(issuers, signed(HEADER | header, issuer.claims()), now=NOW + ASK_SECONDS) == SAME
    assert issuer.asked["/keys"] == 1
    assert await refusal(issuers, by_another_key(issuer, kid="new"), now=NOW + ASK_SECONDS) == SAME
    assert issuer.asked["/keys"] == 2


async def test_key_of_one_issuer_does_not_sign_for_another(issuer: LocalIssuer) -> None:
    async with LocalIssuer() as other:
        other.published = [jwk_of(rsa_key(9), "key-1")]
        issuers = believing(facts_of(issuer), facts_of(other, name="other"))
        assert await issuers.identify(issuer.token(), now=NOW)
        assert await refusal(issuers, issuer.token(iss=other.url)) == SAME


# -- what the issuer publishes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "jwk",
    [
        {"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "kid": "key-1"},
        jwk_of(rsa_key(101, 1024), "key-1"),
        jwk_of(rsa_key(1), "key-1", use="enc"),
        jwk_of(rsa_key(1), "key-1", key_ops=["encrypt"]),
        jwk_of(rsa_key(1), "key-1", key_ops=5),
        jwk_of(rsa_key(1), "key-1", alg="RS512"),
        jwk_of(rsa_key(1), "key-1", d="AQAB"),
        {"kty": "RSA", "kid": "key-1"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "key-1"},
        {},
    ],
    ids=[
        "secret",
        "weak",
        "for encryption",
        "operations",
        "odd operations",
        "algorithm",
        "private",
        "empty",
        "EC",
        "none",
    ],
)
async def test_key_that_is_not_fit_is_not_believed(issuer: LocalIssuer, jwk: dict[str, Any]) -> None:
    issuer.published = [jwk, jwk_of(rsa_key(2), "fit")]
    issuers = believing(facts_of(issuer))
    weak = rsa_key(101, 1024) if "n" in jwk and jwk["n"] != jwk_of(rsa_key(1), "")["n"] else rsa_key(1)
    with pytest.warns(InsecureKeyLengthWarning) if weak.key_size < 2048 else nullcontext():
        token = jwt.encode(issuer.claims(), weak, "RS256", headers={"kid": "key-1"})
    assert await refusal(issuers, token) == SAME


@pytest.mark.parametrize(
    "discovery",
    [
        {"issuer": "https://example.com", "jwks_uri": "KEYS"},
        {"jwks_uri": "KEYS"},
        {"issuer": "SELF"},
        {"issuer": "SELF", "jwks_uri": "http://169.254.169.254/latest/meta-data/"},
        {"issuer": "SELF", "jwks_uri": "http://10.0.0.1/keys"},
        {"issuer": "SELF", "jwks_uri": "file:///etc/passwd"},
        {"issuer": "SELF", "jwks_uri": 5},
    ],
)
async def test_discovery_of_somebody_else_or_to_somewhere_else_gives_no_keys(
    issuer: LocalIssuer, discovery: dict[str, Any]
) -> None:
    said = {"SELF": issuer.url, "KEYS": f"{issuer.url}/keys"}
    issuer.discovery = {name: said.get(value, value) for name, value in discovery.items()}
    with pytest.raises(KeysUnavailable):
        await believing(facts_of(issuer)).identify(issuer.token(), now=NOW)
    assert issuer.asked["/keys"] == 0


async def test_configured_address_of_keys_needs_no_discovery(issuer: LocalIssuer) -> None:
    issuers = believing(facts_of(issuer, jwks_url=f"{issuer.url}/keys"))
    assert await issuers.identify(issuer.token(), now=NOW)
    assert issuer.asked[DISCOVERY] == 0


# -- claims ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"exp": None}, "never expires"),
        ({"exp": str(int(NOW) + 600)}, "'exp' is no time"),
        ({"exp": True}, "'exp' is no time"),
        ({"exp": NOW * 1000}, "'exp' is no time"),
        ({"exp": 10**400}, "'exp' is no time"),
        ({"exp": -(10**400)}, "'exp' is no time"),
        ({"nbf": "soon"}, "'nbf' is no time"),
        ({"iat": []}, "'iat' is no time"),
        ({"aud": None}, "somebody else"),
        ({"aud": "other"}, "somebody else"),
        ({"aud": AUDIENCE + "x"}, "somebody else"),
        ({"aud": AUDIENCE.upper()}, "somebody else"),
        ({"aud": [[AUDIENCE]]}, "somebody else"),
        ({"aud": {AUDIENCE: 1}}, "somebody else"),
        ({"aud": []}, "somebody else"),
        ({"sub": None}, "'sub'"),
        ({"sub": ""}, "'sub'"),
        ({"sub": 7}, "'sub'"),
        ({"sub": "a\nb"}, "'sub'"),
        ({"sub": "a" * 256}, "'sub'"),
        ({"tenant": None}, "names no tenant"),
        ({"tenant": ""}, "names no tenant"),
        ({"tenant": ["acme"]}, "names no tenant"),
        ({"tenant": "../acme"}, "names no tenant"),
        ({"tenant": "acme\n"}, "names no tenant"),
        ({"tenant": "anonymous"}, "names no tenant"),
    ],
)
async def test_signed_token_that_says_too_little_is_refused_and_told_why(
    issuer: LocalIssuer, issuers: Issuers, claims: dict[str, Any], said: str
) -> None:
    token = signed(HEADER, issuer.claims(**claims))
    assert said in await refusal(issuers, token)


@pytest.mark.parametrize("value", ["\ud800", "a\nb", "a\0", "\u202etxt", "a" * 257, ["a"], {"a": 1}, 1.5, None])
async def test_claim_that_is_no_plain_text_is_no_attribute(issuer: LocalIssuer, value: Any) -> None:
    issuers = believing(facts_of(issuer, attributes={"team": "team", "floor": "floor"}))
    principal = await issuers.identify(signed(HEADER, issuer.claims(team=value, floor=3)), now=NOW)
    assert principal.attributes == {"floor": "3"}


@pytest.mark.parametrize("skew", [-90, 90])
async def test_clock_that_is_off_by_more_than_the_leeway_does_not_stretch_a_token(
    issuer: LocalIssuer, issuers: Issuers, skew: int
) -> None:
    """The edge's clock is `skew` seconds off; a token that has just been made, and one that has just expired."""
    fresh, over = issuer.token(iat=int(NOW), nbf=int(NOW)), issuer.token(exp=int(NOW) - 1)
    wide = believing(facts_of(issuer, leeway=120))
    assert await wide.identify(fresh, now=NOW + skew)
    if skew < 0:
        assert "not valid yet" in await refusal(issuers, fresh, now=NOW + skew)
    else:
        assert await issuers.identify(fresh, now=NOW + skew)
        assert "expired" in await refusal(issuers, over, now=NOW + skew)


@pytest.mark.parametrize(("late", "good"), [(-1, True), (LEEWAY - 1, True), (LEEWAY, False), (LEEWAY + 1, False)])
async def test_token_expires_after_the_leeway(issuer: LocalIssuer, issuers: Issuers, late: int, good: bool) -> None:
    token = issuer.token(exp=int(NOW))
    if good:
        assert await issuers.identify(token, now=NOW + late)
    else:
        assert "expired" in await refusal(issuers, token, now=NOW + late)


@pytest.mark.parametrize("name", ["nbf", "iat"])
@pytest.mark.parametrize(("early", "good"), [(LEEWAY, True), (LEEWAY + 1, False)])
async def test_token_begins_with_the_leeway(
    issuer: LocalIssuer, issuers: Issuers, name: str, early: int, good: bool
) -> None:
    claims: dict[str, Any] = {name: int(NOW) + early}
    token = issuer.token(**claims)
    if good:
        assert await issuers.identify(token, now=NOW)
    else:
        assert "not valid yet" in await refusal(issuers, token, now=NOW)


# -- what is known -----------------------------------------------------------------------------------------------------


async def test_known_token_is_not_verified_again_and_expires_all_the_same(
    issuer: LocalIssuer, issuers: Issuers, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = issuer.token(exp=int(NOW) + 10)
    first = await issuers.identify(token, now=NOW)
    verified = 0

    def count(*_: object) -> None:
        nonlocal verified
        verified += 1

    monkeypatch.setattr(issuers, "_verify", count)
    assert await issuers.identify(token, now=NOW + 39) is first
    assert verified == 0
    assert "expired" in await refusal(issuers, token, now=NOW + 40)
    assert verified == 1


async def test_token_whose_key_was_taken_back_is_refused_after_a_minute_and_an_hour_at_most(
    issuer: LocalIssuer, issuers: Issuers
) -> None:
    token = issuer.token(exp=int(NOW) + 10**6)
    await issuers.identify(token, now=NOW)
    issuer.rotate()
    await issuers.refresh(now=NOW + 3600)
    assert await refusal(issuers, token, now=NOW + 3600 + KNOWN_SECONDS) == SAME


# -- rotation and outages of the issuer --------------------------------------------------------------------------------


async def test_new_key_is_believed_at_once_and_the_old_one_while_it_is_published(
    issuer: LocalIssuer, issuers: Issuers
) -> None:
    before = issuer.token(sub="before")
    await issuers.identify(issuer.token(), now=NOW)
    issuer.rotate(keep=True)
    after = NOW + ASK_SECONDS
    assert await issuers.identify(issuer.token(), now=after)
    assert await issuers.identify(before, now=after)


async def test_requests_during_a_rotation_all_succeed(issuer: LocalIssuer, issuers: Issuers) -> None:
    """A token each second for ten minutes, and a new key each minute."""
    for second in range(600):
        if second and second % 60 == 0:
            issuer.rotate(keep=True)
        now = NOW + second
        assert await issuers.identify(issuer.token(jti=str(second), iat=int(now), exp=int(now) + 60), now=now)
    assert issuer.asked["/keys"] == 10


async def test_unknown_keys_make_an_edge_ask_once_in_a_while(issuer: LocalIssuer, issuers: Issuers) -> None:
    await issuers.identify(issuer.token(), now=NOW)
    for second in range(60):
        assert await refusal(issuers, by_another_key(issuer, kid=f"k{second}"), now=NOW + second) == SAME
    assert issuer.asked["/keys"] == 2


async def test_many_at_once_ask_once(issuer: LocalIssuer, issuers: Issuers) -> None:
    tokens = [issuer.token(sub=f"user-{i}") for i in range(50)]
    principals = await asyncio.gather(*(issuers.identify(token, now=NOW) for token in tokens))
    assert len({principal.key_id for principal in principals}) == 50
    assert issuer.asked == {DISCOVERY: 1, "/keys": 1}


async def test_caller_who_leaves_does_not_stop_the_reading_for_the_others(
    issuer: LocalIssuer, issuers: Issuers
) -> None:
    issuer.gate.clear()
    first, second = (asyncio.create_task(issuers.identify(issuer.token(sub=name), now=NOW)) for name in "ab")
    while not issuer.asked:  # noqa: ASYNC110 nobody tells
        await asyncio.sleep(0.01)
    first.cancel()
    issuer.gate.set()
    assert (await second).subject == "b"
    assert issuer.asked["/keys"] == 1


async def test_keys_are_read_anew_behind_a_request_and_not_before_it(issuer: LocalIssuer, issuers: Issuers) -> None:
    issuer.max_age = 300
    await issuers.identify(issuer.token(), now=NOW)
    issuer.gate.clear()
    assert await issuers.identify(issuer.token(sub="bob"), now=NOW + 299)
    assert issuer.asked[DISCOVERY] == 1
    assert await issuers.identify(issuer.token(sub="eve"), now=NOW + 300)  # the issuer is silent
    await eventually(lambda: issuer.asked[DISCOVERY] == 2)
    issuer.gate.set()
    await issuers.refresh(now=NOW + 301)  # joins the reading that the request began
    assert issuer.asked["/keys"] == 2


@pytest.mark.parametrize(("says", "fresh"), [(None, 3600), (1, 300), (1000, 1000), (10**8, 3600)])
async def test_keys_are_fresh_for_as_long_as_their_issuer_says_within_bounds(
    issuer: LocalIssuer, issuers: Issuers, says: int | None, fresh: int
) -> None:
    issuer.max_age = says
    await issuers.refresh(now=NOW)
    await issuers.refresh(now=NOW + fresh - 1)
    assert issuer.asked["/keys"] == 1
    await issuers.refresh(now=NOW + fresh)
    assert issuer.asked["/keys"] == 2


async def test_known_keys_stay_good_while_their_issuer_is_down_but_not_for_ever(
    issuer: LocalIssuer, issuers: Issuers, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "isochrone")
    await issuers.identify(issuer.token(), now=NOW)
    issuer.is_down = True

    async def at(seconds: float) -> Principal:
        now = int(NOW + seconds)
        await issuers.refresh(now=now)
        return await issuers.identify(issuer.token(iat=now, exp=now + 60), now=now)

    for hours in range(1, 24):
        assert await at(hours * 3600)
    with pytest.raises(KeysUnavailable) as caught:
        await at(KEEP_SECONDS)
    assert caught.value.retry_after
    assert "issuer test: its keys cannot be read" in caplog.text
    issuer.is_down = False
    assert await at(KEEP_SECONDS + 60)


async def test_issuer_that_was_never_reached_is_no_reason_to_call_a_token_bad(issuer: LocalIssuer) -> None:
    issuer.is_down = True
    issuers = believing(facts_of(issuer))
    for second in range(5):
        with pytest.raises(KeysUnavailable):
            await issuers.identify(issuer.token(), now=NOW + second)
    assert issuer.asked == {DISCOVERY: 1}
    issuer.is_down = False
    assert await issuers.identify(issuer.token(), now=NOW + 5)


async def test_new_key_during_an_outage_of_its_issuer_is_not_called_bad(issuer: LocalIssuer, issuers: Issuers) -> None:
    await issuers.identify(issuer.token(), now=NOW)
    issuer.rotate()
    issuer.is_down = True
    with pytest.raises(KeysUnavailable):
        await issuers.identify(issuer.token(), now=NOW + ASK_SECONDS)


async def test_answer_without_fit_keys_does_not_replace_those_that_are_known(
    issuer: LocalIssuer, issuers: Issuers
) -> None:
    await issuers.identify(issuer.token(), now=NOW)
    issuer.published = []
    await issuers.refresh(now=NOW + 3600)
    assert await issuers.identify(issuer.token(exp=int(NOW) + 7200, sub="bob"), now=NOW + 3601)


async def test_one_silent_issuer_does_not_keep_another_from_being_asked(issuer: LocalIssuer) -> None:
    async with LocalIssuer() as other:
        for one in (issuer, other):
            one.gate.clear()
        refreshing = asyncio.create_task(believing(facts_of(issuer), facts_of(other, name="other")).refresh(now=NOW))
        await eventually(lambda: issuer.asked[DISCOVERY] == other.asked[DISCOVERY] == 1)
        for one in (issuer, other):
            one.gate.set()
        await refreshing


async def test_process_that_slept_hears_what_was_taken_back_before_it_believes_again(
    issuer: LocalIssuer, issuers: Issuers
) -> None:
    before = issuer.token(exp=int(NOW) + 10**5)
    await issuers.identify(before, now=NOW)
    issuer.rotate()
    assert await refusal(issuers, before, now=NOW + 10_000) == SAME


async def test_process_that_slept_goes_on_with_what_it_knows_while_the_issuer_is_silent(
    issuer: LocalIssuer, issuers: Issuers
) -> None:
    before = issuer.token(exp=int(NOW) + 10**5)
    await issuers.identify(before, now=NOW)
    issuer.gate.clear()
    assert await issuers.identify(before, now=NOW + 10_000)
    issuer.gate.set()


async def test_keys_that_were_read_by_a_clock_ahead_of_time_are_read_anew(
    issuer: LocalIssuer, issuers: Issuers
) -> None:
    await issuers.identify(issuer.token(), now=NOW)
    await issuers.refresh(now=NOW - 86_400)
    assert issuer.asked["/keys"] == 2


async def test_clock_that_was_set_back_does_not_forbid_to_ask(issuer: LocalIssuer, issuers: Issuers) -> None:
    await issuers.identify(issuer.token(), now=NOW)
    issuer.rotate()
    earlier = NOW - 86_400
    assert await issuers.identify(issuer.token(iat=int(earlier), exp=int(earlier) + 60), now=earlier)


def test_what_a_refused_caller_is_told_is_one_line() -> None:
    error: ApiError = Unauthorized(SAME, code="invalid_token")
    assert error.headers()["www-authenticate"] == "Bearer"
    assert "\n" not in error.message


# -- at the edge -------------------------------------------------------------------------------------------------------


async def test_edge_takes_a_token_where_a_key_would_stand(issuer: LocalIssuer) -> None:
    facts = {"name": "test", "url": issuer.url, "audience": AUDIENCE, "tenant_claim": "tenant", "models": ["m"]}
    now = int(time.time())
    sound = issuer.token(iat=now, exp=now + 600)
    async with Upstream() as pool, running_edge(backend(pool), issuer=[facts], auth={"required": True}) as edge:
        answer = await edge.chat(headers={"authorization": f"Bearer {sound}"})
        assert answer.status == 200
        forged = await edge.chat(headers={"authorization": f"Bearer {by_another_key(issuer)}"})
        assert (forged.status, forged.error["code"], forged.error["message"]) == (401, "invalid_token", SAME)
        assert forged.headers["www-authenticate"] == "Bearer"
        assert (await edge.chat()).status == 401
        assert len(pool.requests) == 1
        assert sound not in str(pool.requests[0].headers)
        await edge.settled()
        ledger = await edge.request("GET", "/v1/ledger", headers={"authorization": f"Bearer {sound}"})
        assert [entry["tenant"] for entry in ledger.fields["data"]] == ["acme"]


def test_libraries_that_are_missing_are_named_with_what_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isochrone.front_wiring.find_spec", lambda _: None)
    issuer = Issuer(name="test", url="https://login.example.com", audience=AUDIENCE, tenant="acme")
    with pytest.raises(SettingsError, match="jwt and cryptography not installed; pip install"):
        check_issuers([issuer])
