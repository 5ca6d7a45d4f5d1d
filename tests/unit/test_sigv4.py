"""The signature against AWS's published examples and against botocore's signer."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.stores.dynamodb.sigv4 import authorization, signing_key

# The keys of every published example.
ACCESS_KEY, SECRET_KEY = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
AT = "20150830T123600Z"
HOST, DATE = ("host", "example.amazonaws.com"), ("x-amz-date", AT)
FORM = ("content-type", "application/x-www-form-urlencoded")
TOKEN = (
    "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwth"
    "Ax7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAki"
    "Y9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA=="
)

# From AWS's SigV4 test suite (service "service") and the ListUsers example of the IAM user guide.
PUBLISHED = {
    "get-vanilla": (
        {"method": "GET", "headers": [HOST, DATE]},
        "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
    ),
    "post-vanilla": (
        {"headers": [HOST, DATE]},
        "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
    ),
    "get-vanilla-query-order-key-case": (
        {"method": "GET", "headers": [HOST, DATE], "query": "Param1=value1&Param2=value2"},
        "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
    ),
    "post-x-www-form-urlencoded": (
        {"headers": [FORM, HOST, DATE], "body": b"Param1=value1"},
        "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
    ),
    "post-header-key-sort": (
        {"headers": [HOST, ("my-header1", "value1"), DATE]},
        "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c",
    ),
    "post-sts-header-before": (
        {"headers": [HOST, DATE, ("x-amz-security-token", TOKEN)]},
        "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
    ),
    "iam-list-users": (
        {
            "service": "iam",
            "method": "GET",
            "query": "Action=ListUsers&Version=2010-05-08",
            "headers": [(FORM[0], f"{FORM[1]}; charset=utf-8"), ("host", "iam.amazonaws.com"), DATE],
        },
        "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7",
    ),
}


def sign(**request: Any) -> str:
    defaults = {"access_key": ACCESS_KEY, "secret_key": SECRET_KEY, "region": "us-east-1", "service": "service"}
    return authorization(**{**defaults, "at": AT, "body": b"", **request})


@pytest.mark.parametrize(("request_", "signature"), PUBLISHED.values(), ids=PUBLISHED)
def test_published_example_gets_the_published_signature(request_: dict[str, Any], signature: str) -> None:
    assert sign(**request_).endswith(f"Signature={signature}")


def test_authorization_names_key_scope_and_signed_headers() -> None:
    assert sign(headers=[HOST, DATE]).startswith(
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        "SignedHeaders=host;x-amz-date, Signature="
    )


@pytest.mark.parametrize(
    ("day", "key"),
    [
        ("20120215", "f4780e2d9f65fa895f9c67b32ce1baf0b0d8a43505a000a1a9e090d414db404d"),
        ("20150830", "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9"),
    ],
)
def test_signing_key_is_the_published_one_of_its_day(day: str, key: str) -> None:
    assert signing_key(SECRET_KEY, day, "us-east-1", "iam").hex() == key


@given(
    body=st.binary(max_size=300),
    secret=st.text("abcXYZ019+/", min_size=1, max_size=40),
    token=st.none() | st.text("abcXYZ019+/=", min_size=1, max_size=40),
    region=st.sampled_from(["us-east-1", "eu-west-1", "cn-north-1"]),
    operation=st.sampled_from(["GetItem", "PutItem", "SearchVectors"]),
)
def test_signature_is_botocores_for_any_call(
    body: bytes, secret: str, token: str | None, region: str, operation: str
) -> None:
    auth, awsrequest, credentials = (
        import_module(f"botocore.{name}") for name in ("auth", "awsrequest", "credentials")
    )
    host = f"dynamodb.{region}.amazonaws.com"
    headers = [("content-type", "application/x-amz-json-1.0"), ("host", host), DATE]
    headers += [("x-amz-security-token", token)] if token else []
    headers += [("x-amz-target", f"DynamoDB_20120810.{operation}")]
    request = awsrequest.AWSRequest("POST", f"https://{host}/", data=body, headers=dict(headers))
    request.context["timestamp"] = AT
    signer = auth.SigV4Auth(credentials.Credentials(ACCESS_KEY, secret, token), "dynamodb", region)
    theirs = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
    ours = sign(secret_key=secret, region=region, service="dynamodb", headers=headers, body=body)
    assert ours.endswith(f"Signature={theirs}")
