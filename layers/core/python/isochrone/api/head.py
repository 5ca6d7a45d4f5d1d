"""The head of a request in one normal form, before anything is routed or decided by it.

Two programs that read one head in two ways are how rules are got around: `/v1/%2e%2e/admin`, a header that another
proxy calls by another name. What has two readings is refused here, in every door alike.

| in a head | here |
|---|---|
| path with `//`, a segment `.` or `..`, a backslash, control character, `;`, encoded slash, or encoded twice | 404 |
| path or query that does not begin with a slash, names a host, has a fragment | 400 |
| header whose name has an underscore | dropped: gateways (CGI, nginx) hold it for the one with a hyphen |
| more headers, or longer ones, than the limits say | 431; a URL of more than 8,190 bytes 414 |
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import unquote

from isochrone.api.errors import BadRequest, HeadersTooLarge, NotFound, UrlTooLong
from isochrone.api.exchange import Request
from isochrone.settings import Limits

MAX_URL = 8190  # bytes, as aiohttp and most proxies have it
# Behind these stands the name of a model, which may have a slash that clients encode.
_WITH_NAMES = ("/v1/models/",)
_AMBIGUOUS = re.compile(r"//|/\.{1,2}(/|$)|[\x00-\x1f\x7f\\%;\ufffd]")
_ENCODED_SLASH = re.compile("%2f", re.IGNORECASE)


def normalise(request: Request, limits: Limits) -> None:
    """Bring path and headers into their normal form. Raises what is wrong, also what the door found already."""
    if request.flaw:
        raise request.flaw
    request.path = path_of(request.path)
    request.headers = headers_of(request.headers, most=limits.headers, most_bytes=limits.header_bytes)


def target_of(raw: str) -> tuple[str, str]:
    """Path and query of a request line's target, both as they came. Raises BadRequest, UrlTooLong."""
    if len(raw) > MAX_URL:
        raise UrlTooLong(f"The URL is longer than {MAX_URL} bytes.")
    if not raw.startswith("/") or "#" in raw:
        raise BadRequest("The target of the request must be a path.", code="invalid_target")
    path, _, query = raw.partition("?")
    return path, query


def path_of(raw: str) -> str:
    """The decoded path. Raises NotFound for one that could be read in another way, UrlTooLong."""
    if len(raw) > MAX_URL:
        raise UrlTooLong(f"The URL is longer than {MAX_URL} bytes.")
    path = unquote(raw) if "%" in raw else raw
    if _AMBIGUOUS.search(path) or (_ENCODED_SLASH.search(raw) and not raw.startswith(_WITH_NAMES)):
        raise NotFound(f"There is no {raw[:200]!r} here; the API is below /v1.", code="unknown_url")
    return path or "/"


def headers_of(headers: Mapping[str, str], *, most: int, most_bytes: int) -> dict[str, str]:
    """Those that are read here, of lower-case names. Raises HeadersTooLarge."""
    if len(headers) > most:
        raise HeadersTooLarge(f"The request has more than {most} headers.")
    if sum(map(len, headers)) + sum(map(len, headers.values())) + 4 * len(headers) > most_bytes:
        raise HeadersTooLarge(f"The headers take more than {most_bytes} bytes.")
    return {name: value for name, value in headers.items() if "_" not in name}
