from __future__ import annotations

from typing import Any

import pytest

from isochrone.stores.dynamodb.items import item_bytes


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ({"S": ""}, 0),
        ({"S": "abc"}, 3),
        ({"S": "等时线"}, 9),
        ({"B": b"\x00\xff"}, 2),
        ({"N": "0"}, 1),
        ({"N": "7"}, 2),
        ({"N": "1800000000"}, 2),
        ({"N": "1800000000.25"}, 7),
        ({"N": "-12"}, 3),
        ({"N": "1.25e-07"}, 3),
        ({"BOOL": True}, 1),
        ({"NULL": True}, 1),
        ({"L": []}, 3),
        ({"L": [{"N": "7"}, {"S": "ab"}]}, 3 + 1 + 2 + 1 + 2),
    ],
    ids=str,
)
def test_value_has_the_size_that_dynamodb_documents(value: dict[str, Any], size: int) -> None:
    assert item_bytes({"": value}) == size


def test_names_count_with_the_bytes_of_their_utf8_form() -> None:
    assert item_bytes({"pk": {"S": "a"}, "名": {"S": "b"}}) == 2 + 1 + 3 + 1
