from __future__ import annotations

import json
from typing import Any

import pytest
from jwt.algorithms import RSAAlgorithm
from jwt.utils import base64url_encode

from isochrone.admission.issuers.keyset import KeySet
from tests.issuers import jwk_of, rsa_key


def keys_of(*jwks: dict[str, Any], algorithms: tuple[str, ...] = ("RS256",)) -> KeySet:
    return KeySet.of(json.dumps({"keys": jwks}).encode(), algorithms)


def test_key_is_found_by_its_id_and_the_algorithm() -> None:
    keys = keys_of(jwk_of(rsa_key(1), "one"), jwk_of(rsa_key(2), "two"), algorithms=("RS256", "PS256"))
    found = keys.find("two", "PS256")
    assert found
    assert found.algorithm_name == "PS256"
    assert found.key.public_numbers() == rsa_key(2).public_key().public_numbers()
    assert keys.find("two", "RS512") is None
    assert keys.find("three", "RS256") is None


def test_first_of_two_with_the_same_id_is_meant() -> None:
    found = keys_of(jwk_of(rsa_key(1), "one"), jwk_of(rsa_key(2), "one")).find("one", "RS256")
    assert found
    assert found.key.public_numbers() == rsa_key(1).public_key().public_numbers()


@pytest.mark.parametrize(("bits", "fit"), [(1024, False), (2047, False), (2048, True), (8192, True), (8193, False)])
def test_rsa_key_of_a_length_that_is_weak_or_costly_is_not_believed(bits: int, fit: bool) -> None:
    modulus = base64url_encode((1 << bits - 1 | 1).to_bytes(-(-bits // 8))).decode()
    keys = keys_of(jwk_of(rsa_key(1), "one"), jwk_of(rsa_key(1), "two") | {"n": modulus})
    assert bool(keys.find("two", "RS256")) is fit


def test_private_key_that_was_published_is_not_believed() -> None:
    private = RSAAlgorithm.to_jwk(rsa_key(1), as_dict=True)
    with pytest.raises(ValueError, match="no key in it fits"):
        keys_of({name: value for name, value in private.items() if name != "key_ops"})


def test_keys_beyond_the_hundredth_are_not_read() -> None:
    filler = [{"kty": "oct", "kid": str(i)} for i in range(100)]
    with pytest.raises(ValueError, match="no key in it fits"):
        keys_of(*filler, jwk_of(rsa_key(1), "one"))


@pytest.mark.parametrize("document", [b"", b"[]", b"{}", b'{"keys": {}}', b'{"keys": [5]}', b'{"keys": []}'])
def test_whatever_is_no_document_of_keys_is_refused(document: bytes) -> None:
    with pytest.raises(ValueError):
        KeySet.of(document, ("RS256",))
