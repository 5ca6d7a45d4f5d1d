"""From bytes to a request that may be forwarded: parsed once, checked by declared shapes, kept as plain data.

What a shape does not name passes through unharmed, since an engine may know it. What is forwarded is the parsed form,
never the raw body, so that what was checked is what is sent.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta, Struct

from isochrone.api.errors import BadRequest, WrongContentType

# Lists and objects cost far more memory and time than their bytes say. Brackets in texts are counted too, so this is
# far above what a real request has.
_MAX_CONTAINERS = 200_000
_NESTED_TOO_DEEPLY = "The body is nested too deeply."

Text = Annotated[str, Meta(min_length=1)]


class _StreamOptions(Struct):
    include_usage: bool | None = None


class _Message(Struct):
    role: Text
    content: str | list[dict[str, Any]] | None = None


class _Common(Struct, kw_only=True):
    model: Annotated[str, Meta(min_length=1, max_length=256)]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    stop: str | list[str] | None = None
    user: str | None = None


class _Chat(_Common, kw_only=True):
    messages: Annotated[list[_Message], Meta(min_length=1)]
    max_completion_tokens: Annotated[int, Meta(ge=1)] | None = None
    tools: list[dict[str, Any]] | None = None
    response_format: dict[str, Any] | None = None


class _Completion(_Common, kw_only=True):
    prompt: str | list[Any]


class _Embedding(Struct, kw_only=True):
    model: Annotated[str, Meta(min_length=1, max_length=256)]
    input: str | list[Any]


class Operation(NamedTuple):
    """One generating route: its path below /v1, which is also its path at a backend, and the shape of its body."""

    name: str
    path: str
    shape: type[Struct]


CHAT = Operation("chat", "/chat/completions", _Chat)
COMPLETION = Operation("completion", "/completions", _Completion)
EMBEDDING = Operation("embedding", "/embeddings", _Embedding)
OPERATIONS = (CHAT, COMPLETION, EMBEDDING)


class Ask(NamedTuple):
    """What the caller wants generated. `fields` is the whole parsed body; treat it as read-only.

    `continues`: it holds the beginning of an answer, which the backend is to go on with; not every one can.
    """

    operation: Operation
    model: str
    stream: bool
    include_usage: bool
    fields: dict[str, Any]
    continues: bool = False

    @property
    def choices(self) -> int:
        """How many answers were asked for: `n` to every prompt, one to every input of an embedding."""
        if self.operation is EMBEDDING:
            return _texts_in(self.fields["input"])
        prompts = _texts_in(self.fields["prompt"]) if self.operation is COMPLETION else 1
        return (self.fields.get("n") or 1) * prompts


def _texts_in(said: str | list[Any]) -> int:
    """A list of tokens is one text, any other list many."""
    several = isinstance(said, list) and said and not isinstance(said[0], int)
    return len(said) if several else 1


def without_stream(ask: Ask) -> Ask:
    """The same request for a body."""
    fields = {name: value for name, value in ask.fields.items() if name not in ("stream", "stream_options")}
    return ask._replace(stream=False, include_usage=False, fields=fields)


def encode(value: Any, *, by: Callable[[Any], bytes] = msgspec.json.encode) -> bytes:
    """JSON of a request's own data, which may be as deep as the decoder just lets pass. Raises BadRequest."""
    try:
        return by(value)
    except RecursionError:
        raise BadRequest(_NESTED_TOO_DEEPLY, code="invalid_json") from None


def parse(operation: Operation, body: bytes, content_type: str | None, *, max_messages: int) -> Ask:
    """Check a body against the operation's shape. Raises BadRequest (`param` names the field), WrongContentType."""
    if content_type and not _is_json(content_type):
        raise WrongContentType(f"Send content-type: application/json, not {content_type[:100]!r}.")
    fields = _decode(body)
    try:
        checked: Any = msgspec.convert(fields, operation.shape)
    except msgspec.ValidationError as error:
        raise _named(error, operation) from None
    if len(fields.get("messages") or ()) > max_messages:
        raise BadRequest(f"'messages' has more than {max_messages} entries.", param="messages")
    stream, options = getattr(checked, "stream", None), getattr(checked, "stream_options", None)
    return Ask(operation, checked.model, bool(stream), bool(options and options.include_usage), fields)


def _is_json(content_type: str) -> bool:
    essence = content_type.partition(";")[0].strip().lower()
    return essence == "application/json" or essence.endswith("+json")


def _decode(body: bytes) -> dict[str, Any]:
    if body.count(b"[") + body.count(b"{") > _MAX_CONTAINERS:
        raise BadRequest(f"The body has more than {_MAX_CONTAINERS} lists and objects.", code="body_too_complex")
    try:
        fields = msgspec.json.decode(body)
    except RecursionError:
        raise BadRequest(_NESTED_TOO_DEEPLY, code="invalid_json") from None
    except UnicodeDecodeError:
        raise BadRequest("The body is not UTF-8 text.", code="invalid_json") from None
    except msgspec.DecodeError as error:
        detail = "it is empty" if not body.strip() else str(error)
        raise BadRequest(f"The body is not valid JSON: {detail}.", code="invalid_json") from None
    if not isinstance(fields, dict):
        raise BadRequest("The body must be a JSON object.", code="invalid_json")
    return fields


_FIELD = re.compile(r"field `([^`]+)`")


def _named(error: msgspec.ValidationError, operation: Operation) -> BadRequest:
    """msgspec says "Expected `str`, got `int` - at `$.messages[0].role`": turn that into OpenAI's `param`."""
    message, _, trail = str(error).partition(" - at `")
    param = trail.rstrip("`").removeprefix("$").lstrip(".")
    if missing := _FIELD.search(message):
        param = f"{param}.{missing.group(1)}".lstrip(".")
        return BadRequest(f"'{param}' is missing.", code="missing_required_parameter", param=param)
    if "length >= 1" in message:
        return BadRequest(f"'{param}' must not be empty.", param=param)
    expected = message.replace("`", "").replace("Expected", "expected", 1)
    code = "invalid_type" if ", got " in message else "invalid_value"
    return BadRequest(f"'{param}' is wrong: {expected}.", code=code, param=param)
