"""AWS Signature Version 4, pure: the same arguments give the same signature, and nothing else is read.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from functools import lru_cache


def authorization(
    *,
    access_key: str,
    secret_key: str,
    region: str,
    service: str,
    at: str,
    headers: Sequence[tuple[str, str]],
    body: bytes,
    method: str = "POST",
    path: str = "/",
    query: str = "",
) -> str:
    """The value of the Authorization header.

    `at` is the value of x-amz-date, `20150830T123600Z`. `headers` are those to sign: lower-case names in alphabetical
    order, trimmed values, `host` and `x-amz-date` among them. `path` and `query` are in their canonical form.
    """
    scope = f"{at[:8]}/{region}/{service}/aws4_request"
    names = ";".join([name for name, _ in headers])
    lines = "".join([f"{name}:{value}\n" for name, value in headers])
    canonical = f"{method}\n{path}\n{query}\n{lines}\n{names}\n{_sha256(body)}"
    to_sign = f"AWS4-HMAC-SHA256\n{at}\n{scope}\n{_sha256(canonical.encode())}"
    signature = _hmac(signing_key(secret_key, at[:8], region, service), to_sign).hex()
    return f"AWS4-HMAC-SHA256 Credential={access_key}/{scope}, SignedHeaders={names}, Signature={signature}"


# Four of the five hashes of a signature change once a day; a few entries carry over midnight and key rotation.
@lru_cache(maxsize=8)
def signing_key(secret_key: str, day: str, region: str, service: str) -> bytes:
    """The key for one day (`20150830`), region and service."""
    key = f"AWS4{secret_key}".encode()
    for part in (day, region, service, "aws4_request"):
        key = _hmac(key, part)
    return key


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")
