"""The keys with which an issuer signs (JWKS, RFC 7517): those that are fit for it, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
from jwt import PyJWK
from jwt.exceptions import PyJWTError

_MOST_KEYS: Final = 100
# NIST SP 800-131A; a larger one than this costs much time to verify with and gains nothing.
_RSA_BITS: Final = range(2048, 8193)
_FAMILY: Final = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}


class _Document(msgspec.Struct):
    keys: list[dict[str, Any]]


class KeySet:
    """The public keys of one document, each bound to one algorithm."""

    def __init__(self, keys: Sequence[tuple[str | None, PyJWK]]) -> None:
        self._keys: dict[tuple[str | None, str], PyJWK] = {}
        for key_id, key in keys:
            self._keys.setdefault((key_id, key.algorithm_name), key)

    @classmethod
    def of(cls, document: bytes, algorithms: Sequence[str]) -> KeySet:
        """Those that fit these algorithms. Raises ValueError when it is no such document, or has none of them."""
        found = msgspec.json.decode(document, type=_Document).keys
        keys = [(_id_of(jwk), key) for jwk in found[:_MOST_KEYS] for key in _keys_of(jwk, algorithms)]
        if not keys:
            raise ValueError("no key in it fits the algorithms of the issuer")
        return cls(keys)

    def find(self, key_id: str | None, algorithm: str) -> PyJWK | None:
        """A token without a key id means the only key there is."""
        if key_id is not None:
            return self._keys.get((key_id, algorithm))
        fitting = [key for (_, name), key in self._keys.items() if name == algorithm]
        return fitting[0] if len(fitting) == 1 else None


def _id_of(jwk: dict[str, Any]) -> str | None:
    key_id = jwk.get("kid")
    return key_id if isinstance(key_id, str) else None


def _keys_of(jwk: dict[str, Any], algorithms: Sequence[str]) -> Iterator[PyJWK]:
    """One for each algorithm that it may be used with; a private or weak one for none."""
    if not _is_public_and_for_signatures(jwk):
        return
    for algorithm in algorithms:
        if jwk.get("kty") != _FAMILY[algorithm[:2]] or jwk.get("alg", algorithm) != algorithm:
            continue
        try:
            key = PyJWK(jwk, algorithm)
        except (PyJWTError, ValueError, TypeError):
            continue
        if jwk["kty"] != "RSA" or key.key.key_size in _RSA_BITS:
            yield key


def _is_public_and_for_signatures(jwk: dict[str, Any]) -> bool:
    operations = jwk.get("key_ops", ["verify"])
    return "d" not in jwk and jwk.get("use", "sig") == "sig" and isinstance(operations, list) and "verify" in operations
