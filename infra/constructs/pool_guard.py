"""Runs inside vLLM on a GPU node, as its `--middleware`: lets in who shows one of the keys that are good now.

vLLM's own `--api-key` is fixed when it starts, and protects some of its paths only. This reads the digests of the good
keys from a file that the node keeps up to date, so a key is rotated without a restart; every path but OPEN is closed,
and without the file all of them. Standard library only: the node has this file and no other of ours.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from hashlib import sha256
from pathlib import Path
from typing import Any

# Digests in hexadecimal, one a line; replaced as a whole.
KEYS = Path(__file__).with_name("keys")
OPEN = frozenset({"/health", "/metrics", "/metrics/"})
REFUSAL = b'{"error":{"message":"This key is not good here.","type":"authentication_error","code":"invalid_api_key"}}'

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Guard:
    """ASGI middleware (asgi.readthedocs.io) before `app`; `keys` is the file with the digests."""

    def __init__(self, app: App, keys: Path = KEYS) -> None:
        self._app = app
        self._keys = keys
        self._stamp: tuple[int, int] | None = None
        self._digests: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] in OPEN or self._lets_in(scope["headers"]):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(REFUSAL))]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": REFUSAL})

    def _lets_in(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        shown = [value for name, value in headers if name == b"authorization"]
        if len(shown) != 1 or shown[0][:7].lower() != b"bearer ":
            return False
        digest = sha256(shown[0][7:]).hexdigest()
        return any(hmac.compare_digest(digest, good) for good in self._good())

    def _good(self) -> list[str]:
        """The digests in the file, read again when it was replaced."""
        try:
            status = self._keys.stat()
            stamp = (status.st_ino, status.st_mtime_ns)
            if stamp != self._stamp:
                self._digests, self._stamp = self._keys.read_text(encoding="ascii").split(), stamp
        except OSError:
            self._digests, self._stamp = [], None
        return self._digests
