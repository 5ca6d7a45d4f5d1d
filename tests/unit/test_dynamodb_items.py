from __future__ import annotations

import json
import subprocess
import sys

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.stores.dynamodb.client import aws_endpoint
from isochrone.stores.dynamodb.errors import ConditionFailed, InvalidCall, StoreRefused, error_of
from isochrone.stores.dynamodb.items import from_item, to_item
from isochrone.stores.protocols import StoreBusy, StoreUnavailable

values = st.none() | st.booleans() | st.text() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)


@given(st.dictionaries(st.text(min_size=1), values))
def test_flat_dict_survives_the_way_to_an_item_and_back(entry: dict[str, object]) -> None:
    item = msgspec.json.decode(msgspec.json.encode(to_item(entry)))
    assert from_item(item) == entry


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [1], {"a": 1}, b"x"])
def test_value_that_cannot_be_stored_is_refused_with_its_name(value: object) -> None:
    with pytest.raises(ValueError, match="cost"):
        to_item({"cost": value})


def test_number_that_dynamodb_has_normalised_is_read_as_int() -> None:
    assert from_item({"cost": {"N": "1"}}) == {"cost": 1}


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "ConditionalCheckFailedException", ConditionFailed),
        (400, "ProvisionedThroughputExceededException", StoreBusy),
        (400, "ThrottlingException", StoreBusy),
        (500, "InternalServerError", StoreUnavailable),
        (400, "ResourceNotFoundException", StoreRefused),
        (400, "AccessDeniedException", StoreRefused),
        (400, "ValidationException", InvalidCall),
    ],
)
def test_error_is_told_apart_by_what_the_caller_can_do(status: int, code: str, kind: type[Exception]) -> None:
    body = json.dumps({"__type": f"com.amazonaws.dynamodb.v20120810#{code}"}).encode()
    assert type(error_of("GetItem", status, body)) is kind


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"__type": 7}', b"\xff\xfe"])
def test_error_that_is_not_dynamodbs_still_has_its_status(body: bytes) -> None:
    assert str(error_of("GetItem", 403, body)) == "GetItem: 403: no message"


def test_china_has_its_own_domain() -> None:
    assert aws_endpoint("eu-west-1") == "https://dynamodb.eu-west-1.amazonaws.com"
    assert aws_endpoint("cn-north-1") == "https://dynamodb.cn-north-1.amazonaws.com.cn"


def test_importing_the_stores_loads_no_part_of_boto3() -> None:
    code = "import sys, isochrone.stores.dynamodb.ledger, isochrone.stores.dynamodb.fleet; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in run.stdout.split()}
    assert "aiohttp" in loaded
    assert not loaded & {"boto3", "botocore", "aiobotocore", "s3transfer"}
