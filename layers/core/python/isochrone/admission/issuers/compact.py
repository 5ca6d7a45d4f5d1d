"""A token as it was sent: three parts of base64url, JSON without anything that two readers could read differently.

Nothing here is verified. RFC 7515 (JWS), 7519 (JWT) and 8725 (best practices) say what each part may be.
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode
from typing import Any, Final, NamedTuple, NoReturn

LONGEST: Final = 8192
_FORM = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)
# A key that the token itself brings or points to, an extension that must be understood, another form of contents.
_REFUSED: Final = frozenset({"jwk", "jku", "x5u", "x5c", "crit", "b64", "zip", "enc", "cty"})
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})
# Base64 (Cognito), hex (Google), thumbprints and UUIDs (Keycloak); looked up by comparison only.
_KEY_ID = re.compile(r"[A-Za-z0-9+/=_.:~-]{1,128}", re.ASCII)


class Malformed(ValueError):
    """This is no token that we read; the message is for tests and never for who sent it."""


class Unverified(NamedTuple):
    """What a token says of itself. Its signature has not been looked at."""

    algorithm: str
    key_id: str | None
    issuer: str
    claims: dict[str, Any]


def read(token: str) -> Unverified:
    """Raises Malformed."""
    if len(token) > LONGEST or not _FORM.fullmatch(token):
        raise Malformed("not three parts of base64url, or too long")
    header, claims = map(_json_in, token.split(".")[:2])
    if found := _REFUSED & header.keys():
        raise Malformed(f"its header has {sorted(found)}")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise Malformed("its type is another")
    algorithm, issuer = header.get("alg"), claims.get("iss")
    if not isinstance(algorithm, str) or not isinstance(issuer, str):
        raise Malformed("it does not say its algorithm, or its issuer")
    return Unverified(algorithm, _key_id_in(header), issuer, claims)


def _key_id_in(header: dict[str, Any]) -> str | None:
    key_id = header.get("kid")
    if "kid" not in header:
        return None
    if not isinstance(key_id, str) or not _KEY_ID.fullmatch(key_id) or ".." in key_id:
        raise Malformed("its key id is none")
    return key_id


def _json_in(part: str) -> dict[str, Any]:
    try:
        found = json.loads(_decoded(part), object_pairs_hook=_without_doubles, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"a part of it cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise Malformed("a part of it is no object")
    return found


def _decoded(part: str) -> str:
    return urlsafe_b64decode(part + "=" * (-len(part) % 4)).decode()


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Malformed("a name stands twice in it")
    return found


def _refuse(constant: str) -> NoReturn:
    raise Malformed(f"{constant} is no JSON")
