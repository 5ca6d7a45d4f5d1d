"""What the claims of a verified token mean here: until when it holds, for whom it was made, and whom it speaks for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from isochrone.admission.principal import ANONYMOUS, Principal
from isochrone.api.errors import Unauthorized
from isochrone.settings import Issuer

_LONGEST_SUBJECT: Final = 255  # OpenID Connect Core, section 2
_LONGEST_ATTRIBUTE: Final = 256
_MOST_TAGS: Final = 64
# Seconds since 1970 are less than this for 30,000 years; milliseconds are more.
_NO_TIME: Final = 1e12
# As the configuration writes names of tenants and tags.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}", re.ASCII)

Claims = Mapping[str, Any]


def principal_of(claims: Claims, issuer: Issuer, *, now: float) -> Principal:
    """Whom a token speaks for whose signature and issuer are verified; `now` in epoch seconds.

    Raises Unauthorized, which may say what is wrong: who holds a signed token may read it anyway.
    """
    expires = _check_times(claims, issuer.leeway, now)
    _check_audience(claims, issuer)
    subject = _subject_in(claims)
    return Principal(
        f"{issuer.name}:{subject}",
        issuer.tenant or _tenant_in(claims, issuer.tenant_claim or ""),
        kind="token",
        subject=subject,
        tags=_tags_in(claims, issuer.tags_claim),
        attributes=_attributes_in(claims, issuer.attributes),
        models=issuer.models,
        regions=issuer.regions,
        limits=issuer.limits,
        priority=issuer.priority,
        expires=expires,
    )


def refused(why: str, *, code: str = "invalid_token") -> Unauthorized:
    """One line for who sent a token that is not good here."""
    return Unauthorized(why, code=code)


def _check_times(claims: Claims, leeway: float, now: float) -> float:
    expires = _time_in(claims, "exp")
    if expires is None:
        raise refused("This token never expires (it has no 'exp'); such tokens are not taken.")
    if now >= expires + leeway:
        raise refused("This token has expired.", code="token_expired")
    begins = (_time_in(claims, name) for name in ("nbf", "iat"))
    if any(begin is not None and now < begin - leeway for begin in begins):
        raise refused("This token is not valid yet ('nbf' or 'iat').")
    return expires


def _time_in(claims: Claims, name: str) -> float | None:
    if name not in claims:
        return None
    time = claims[name]
    if not isinstance(time, int | float) or isinstance(time, bool) or not abs(time) < _NO_TIME:
        raise refused(f"In this token {name!r} is no time.")
    return time


def _check_audience(claims: Claims, issuer: Issuer) -> None:
    audience = claims.get(issuer.audience_claim)
    if issuer.audience not in (audience if isinstance(audience, list) else [audience]):
        raise refused(f"This token was made for somebody else ({issuer.audience_claim!r}).")
    for name, value in issuer.required.items():
        if claim(claims, name) != value:
            raise refused(f"This token is of another kind ({name!r}).")


def _subject_in(claims: Claims) -> str:
    subject = claims.get("sub")
    if not isinstance(subject, str) or not subject.isprintable() or not 0 < len(subject) <= _LONGEST_SUBJECT:
        raise refused("This token does not say whose it is ('sub').")
    return subject


def _tenant_in(claims: Claims, name: str) -> str:
    tenant = claim(claims, name)
    if not isinstance(tenant, str) or not _NAME.fullmatch(tenant) or tenant == ANONYMOUS.tenant:
        raise refused(f"This token names no tenant ({name!r}).")
    return tenant


def _tags_in(claims: Claims, name: str | None) -> tuple[str, ...]:
    """A list of names, or names with blanks between them as in `scope`."""
    found = claim(claims, name) if name else None
    tags = found.split() if isinstance(found, str) else found if isinstance(found, list) else []
    return tuple(tag for tag in tags if isinstance(tag, str) and _NAME.fullmatch(tag))[:_MOST_TAGS]


def _attributes_in(claims: Claims, names: Mapping[str, str]) -> dict[str, str]:
    """A claim that is not there, or is no plain value, is no attribute: a policy that asks for it does not allow."""
    found = {attribute: _plain(claim(claims, name)) for attribute, name in names.items()}
    return {attribute: value for attribute, value in found.items() if value is not None}


def _plain(value: object) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value) if isinstance(value, str | int) else None
    return text if text is not None and len(text) <= _LONGEST_ATTRIBUTE and text.isprintable() else None


def claim(claims: Claims, name: str) -> object:
    """The claim of that name or, where there is none, what a path with dots leads to: `realm_access.roles`."""
    if name in claims or "." not in name:
        return claims.get(name)
    first, _, rest = name.partition(".")
    inner = claims.get(first)
    return claim(inner, rest) if isinstance(inner, dict) else None
