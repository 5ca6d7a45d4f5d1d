"""The only URLs that the guarded client asks. Pure.

text ──▶ PublicUrl(text) ──▶ GuardedClient: resolve once, check every address, connect to one of those
              └── NotPublic: which rule it breaks
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import SplitResult, urlsplit

import idna

from isochrone.outbound.addresses import Address, is_loopback, is_public, parsed

_LONGEST = 2048
_PORTS: Final = frozenset({443, 8443})
# Some clients take a backslash for a slash, and drop control characters and blanks: others do not.
_AMBIGUOUS = re.compile(r"[\x00-\x20\x7f\\]")
# A host that ends so is a number to some: http://127.1, http://0x7f000001 (WHATWG URL, "ends in a number").
_NUMBER = re.compile(r"(^|\.)(\d+|0x[0-9a-f]*)$")


class NotPublic(ValueError):
    """This may not be asked in somebody else's name; the message is for the operator."""


class PublicUrl:
    """A URL that may be asked although somebody else has named it: `https`, a public host, port 443 or 8443.

    `own` is a URL that the operator wrote, on whose behalf this one is asked: its port may be used, too, and where it
    is on this machine (127.0.0.1, ::1, localhost or a name that ends in .localhost), this one may be, at any port and
    with `http`. A name is only checked for its form here: what it resolves to is asked of `may_reach` for each address
    that is about to be connected to. Raises NotPublic.
    """

    __slots__ = ("host", "is_local", "port", "text")

    def __init__(self, text: str, *, own: str | None = None) -> None:
        parts = _split(text)
        self.host = _host_of(parts)
        self.port = _port_of(parts)
        self.is_local = _is_local(self.host)
        self._check(parts, own)
        self.text = f"{parts.scheme}://{_authority(self.host, parts.port)}{_target(parts)}"
        if not self.text.isascii():
            raise NotPublic("its path holds more than ASCII; write that as %XX")

    def __repr__(self) -> str:
        return f"PublicUrl({self.text!r})"

    def may_reach(self, address: str) -> bool:
        """Is this, an address that its host has, one that may be connected to?"""
        found = parsed(address)
        return found is not None and (is_loopback(found) if self.is_local else is_public(found))

    def _check(self, parts: SplitResult, own: str | None) -> None:
        allowed = _split(own) if own else None
        if self.is_local:
            if allowed is None or not _is_local(_host_of(allowed)):
                raise NotPublic(f"{self.host} is this machine")
            return
        if parts.scheme != "https":
            raise NotPublic("only https is asked")
        if self.port not in _PORTS and (allowed is None or self.port != _port_of(allowed)):
            raise NotPublic(f"port {self.port} is not asked")
        if (address := parsed(self.host)) and not is_public(address):
            raise NotPublic(f"{self.host} is no public address")
        if address is None and "." not in self.host:
            raise NotPublic(f"{self.host} is no full name")


def _split(text: str) -> SplitResult:
    if len(text) > _LONGEST or _AMBIGUOUS.search(text):
        raise NotPublic("it is too long, or holds blanks, backslashes or control characters")
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError as error:
        raise NotPublic(f"it cannot be read: {error}") from None
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise NotPublic("it is no https:// URL")
    if "@" in parts.netloc or "#" in text:
        raise NotPublic("it names a user, or a fragment")
    return parts


def _host_of(parts: SplitResult) -> str:
    """Its one normal form: lower case, ASCII, no trailing dot; an address is an address to everybody."""
    host = parts.hostname or ""
    if "[" in parts.netloc:
        return str(_address_of(host))
    try:
        name = idna.encode(host, uts46=True).decode().removesuffix(".")
    except idna.IDNAError:
        raise NotPublic("its host is no name") from None
    return str(_address_of(name)) if _NUMBER.search(name) else name


def _address_of(host: str) -> Address:
    address = parsed(host)
    if address is None:
        raise NotPublic("its host is a number that is no address in the usual form")
    return address


def _port_of(parts: SplitResult) -> int:
    return parts.port if parts.port is not None else (443 if parts.scheme == "https" else 80)


def _is_local(host: str) -> bool:
    address = parsed(host)
    return is_loopback(address) if address else host == "localhost" or host.endswith(".localhost")


def _authority(host: str, port: int | None) -> str:
    name = f"[{host}]" if ":" in host else host
    return name if port is None else f"{name}:{port}"


def _target(parts: SplitResult) -> str:
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
