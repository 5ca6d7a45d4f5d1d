"""What can go wrong in a call to DynamoDB, by what the caller can do about it.

StoreUnavailable        it may work later (5xx, too slow, no connection): go on without the store
├── StoreBusy           throttled, so nothing was done
└── StoreRefused        it will not work until somebody acts (no such table, access denied, no credentials)
    └── InvalidCall     the request makes no sense there (a table of another shape, a name or a value that cannot be)
ConditionFailed         the item that is stored does not fit the condition; `item` is what is stored
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct, field

from isochrone.stores.protocols import StoreBusy, StoreUnavailable

# Answered with status 400, yet worth another try.
_PASSING = frozenset(
    {
        "ItemCollectionSizeLimitExceededException",
        "LimitExceededException",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "ThrottlingException",
        "TransactionConflictException",
    }
)
_MISTAKES = frozenset({"SerializationException", "UnknownOperationException", "ValidationException"})
STALE_CREDENTIALS = frozenset({"ExpiredTokenException", "ExpiredToken", "UnrecognizedClientException"})


class StoreRefused(StoreUnavailable):
    """DynamoDB will keep saying no until somebody acts. `code` is its word for it, e.g. ResourceNotFoundException."""

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class InvalidCall(StoreRefused):
    """DynamoDB could not make sense of the request: a mistake of set-up or of this program, not of the network."""


class ConditionFailed(Exception):
    """A conditional write found something else. `item` is what is stored, in DynamoDB JSON; empty if nothing is."""

    def __init__(self, item: dict[str, Any]) -> None:
        super().__init__("the stored item does not fit the condition")
        self.item = item


class _Fault(Struct):
    type: str = field(name="__type", default="")
    message: str = ""
    Message: str = ""
    Item: dict[str, Any] = field(default_factory=dict)


def error_of(operation: str, status: int, body: bytes) -> Exception:
    """The error that an answer other than 200 stands for; `body` may be anything, as proxies answer too."""
    fault = _read(body)
    code = fault.type.rpartition("#")[2]
    text = f"{operation}: {code or status}: {fault.message or fault.Message or 'no message'}"
    if code == "ConditionalCheckFailedException":
        return ConditionFailed(fault.Item)
    if status == 429 or code in _PASSING:
        return StoreBusy(text)
    if status >= 500:
        return StoreUnavailable(text)
    if code in _MISTAKES:
        return InvalidCall(text, code=code)
    return StoreRefused(text, code=code)


def _read(body: bytes) -> _Fault:
    try:
        return msgspec.json.decode(body, type=_Fault)
    except msgspec.MsgspecError:
        return _Fault()
