"""An error in the form that Lambda shows to the operator. The client never sees it."""

from __future__ import annotations

import base64
import traceback
from typing import NamedTuple

import msgspec


class Fault(NamedTuple):
    """What is reported to the Runtime API: a type that can be counted, a sentence, where it happened."""

    type: str
    message: str
    trace: tuple[str, ...] = ()

    @classmethod
    def of(cls, error: BaseException, message: str, *, kind: str | None = None) -> Fault:
        """`message` is ours on purpose: the text of an exception may hold a prompt or a key."""
        trace = tuple(
            f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)
        )
        return cls(kind or type(error).__name__, message, trace)

    def document(self) -> bytes:
        return msgspec.json.encode(
            {"errorMessage": self.message, "errorType": self.type, "stackTrace": self.trace},
        )

    def trailers(self) -> dict[str, str]:
        """How a stream that has begun is reported as failed."""
        return {
            "Lambda-Runtime-Function-Error-Type": self.type,
            "Lambda-Runtime-Function-Error-Body": base64.b64encode(self.document()).decode(),
        }

    def __str__(self) -> str:
        return " | ".join([f"{self.type}: {self.message}", *self.trace])
