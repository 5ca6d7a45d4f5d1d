"""Bodies that were packed for the way: unpacked in pieces, so that no bomb gets larger than a body may be.

The same in every door, behind the check of who asks: a stranger cannot make an edge unpack anything.
"""

from __future__ import annotations

import zlib

from isochrone.api.errors import BadRequest, BodyTooLarge, WrongContentType

_GZIP, _ZLIB, _BARE = 31, 15, -15  # what zlib calls the three ways to frame a deflated text


def unpack(body: bytes, encoding: str | None, *, limit: int) -> bytes:
    """The body as it was meant; `limit` is bytes, packed and unpacked. `encoding` is the header content-encoding.

    Raises BodyTooLarge, BadRequest for what cannot be unpacked, WrongContentType for another way of packing.
    """
    if len(body) > limit:
        raise _too_large(limit)
    coding = encoding.strip().lower() if encoding else ""
    if coding in ("", "identity"):
        return body
    return _inflated(body, _framing(coding, body), limit)


def _framing(coding: str, body: bytes) -> int:
    """RFC 9110 section 8.4.1; "deflate" means zlib's frame, and some send none."""
    if coding in ("gzip", "x-gzip"):
        return _GZIP
    if coding == "deflate":
        return _ZLIB if body[:1] and body[0] & 0x0F == 8 else _BARE
    raise WrongContentType(
        f"Send content-encoding: gzip, deflate or none, not {coding[:100]!r}.",
        code="unsupported_encoding",
        param="content-encoding",
    )


def _inflated(body: bytes, framing: int, limit: int) -> bytes:
    unpacking = zlib.decompressobj(framing)
    try:
        text = unpacking.decompress(body, limit + 1)
    except zlib.error:
        raise _broken("is not packed as content-encoding says") from None
    if len(text) > limit:
        raise _too_large(limit)
    if not unpacking.eof:
        raise _broken("is packed, and its end is missing")
    if unpacking.unused_data:
        raise _broken("has something behind its packed end")
    return text


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"The body is larger than {limit} bytes.")


def _broken(why: str) -> BadRequest:
    return BadRequest(f"The body {why}.", code="invalid_body", param="content-encoding")
