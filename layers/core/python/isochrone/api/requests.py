"""From bytes to a request that may be forwarded: unpacked, parsed once, checked by declared shapes, kept as plain data.

What a shape does not name passes through unharmed, since an engine may know it. What is forwarded is the parsed form,
never the raw body, so that what was checked is what is sent.

    read:   unpack (isochrone.api.packing) -> parse
    parse:  decode -> types (the shapes below) -> sizes (isochrone.api.shape)
"""

from __future__ import annotations

import re
from collections.abc import Callable
from operator import call
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta, Struct

from isochrone.api.errors import BadRequest, WrongContentType
from isochrone.api.exchange import Request
from isochrone.api.packing import unpack
from isochrone.api.shape import Guard

_NESTED_TOO_DEEPLY = "The body is nested too deeply."

Text = Annotated[str, Meta(min_length=1)]
Some = Annotated[int, Meta(ge=1)]
_MOST_TOKENS = 10_000_000  # more than any model can hold
Tokens = Annotated[int, Meta(ge=1, le=_MOST_TOKENS)]


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
    n: Some | None = None
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    min_tokens: Annotated[int, Meta(ge=0, le=_MOST_TOKENS)] | None = None
    stop: str | list[str] | None = None
    stop_token_ids: Annotated[list[int], Meta(max_length=1024)] | None = None
    logit_bias: Annotated[dict[str, float], Meta(max_length=1024)] | None = None
    prompt_logprobs: int | None = None
    user: str | None = None


class _Chat(_Common, kw_only=True):
    messages: Annotated[list[_Message], Meta(min_length=1)]
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0)] | None = None
    tools: list[dict[str, Any]] | None = None
    functions: list[dict[str, Any]] | None = None
    response_format: dict[str, Any] | None = None


class _Completion(_Common, kw_only=True):
    prompt: str | list[Any]
    best_of: Some | None = None
    logprobs: Annotated[int, Meta(ge=0)] | None = None


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

    def __repr__(self) -> str:
        """Without what people say: it ends up in logs."""
        return f"Ask({self.operation.name}, {self.model!r}, stream={self.stream})"

    @property
    def choices(self) -> int:
        """How many answers were asked for: `n` to every prompt, one to every input of an embedding."""
        if self.operation is EMBEDDING:
            return _texts_in(self.fields["input"])
        prompts = _texts_in(self.fields["prompt"]) if self.operation is COMPLETION else 1
        return (self.fields.get("n") or 1) * prompts

    @property
    def generations(self) -> int:
        """How many answers engines make for it: of `best_of` nobody is told more than `n`."""
        told = self.fields.get("n") or 1
        made = max(told, self.fields.get("best_of") or 1) if self.operation is COMPLETION else told
        return self.choices // told * made if self.operation is not EMBEDDING else self.choices

    @property
    def most_tokens(self) -> int | None:
        """Its own bound for each of them, None where it has none. Engines differ in which of two bounds counts."""
        if self.operation is EMBEDDING:
            return 0
        return max(self.fields.get("max_completion_tokens") or 0, self.fields.get("max_tokens") or 0) or None


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


def read(operation: Operation, request: Request, guard: Guard) -> Ask:
    """The request that came with this body. Raises BadRequest, BodyTooLarge, WrongContentType."""
    headers = request.headers
    body = unpack(request.body, headers.get("content-encoding"), limit=guard.max_body)
    return parse(operation, body, headers.get("content-type"), guard)


def parse(operation: Operation, body: bytes, content_type: str | None, guard: Guard) -> Ask:
    """Check a body against the operation's shape and the guard's limits.

    Raises BadRequest (`param` names the field), WrongContentType.
    """
    if content_type and not _is_json(content_type):
        raise WrongContentType(f"Send content-type: application/json, not {content_type[:100]!r}.")
    guard.check_raw(body)
    fields = _decode(body)
    _check_operation(fields, operation)
    try:
        checked: Any = msgspec.convert(fields, operation.shape)
    except msgspec.ValidationError as error:
        raise _named(error, operation) from None
    guard.check(fields, body)
    stream, options = getattr(checked, "stream", None), getattr(checked, "stream_options", None)
    ask = Ask(operation, checked.model, bool(stream), bool(options and options.include_usage), fields)
    if operation is not CHAT and ask.choices > guard.most_answers:
        param = "input" if operation is EMBEDDING else "prompt"
        raise BadRequest(f"'{param}' asks for more than {guard.most_answers} answers at once.", param=param)
    return ask


_CONTENTS = {"messages": CHAT, "prompt": COMPLETION, "input": EMBEDDING}


def _check_operation(fields: dict[str, Any], operation: Operation) -> None:
    """What another route reads has no shape here: whoever looks at a request must not look at the wrong contents."""
    for name, route in _CONTENTS.items():
        if name in fields and route is not operation:
            raise BadRequest(f"'{name}' belongs to /v1{route.path}, not here.", code="unknown_parameter", param=name)


def _is_json(content_type: str) -> bool:
    essence = content_type.partition(";")[0].strip().lower()
    return essence == "application/json" or essence.endswith("+json")


class _Key:
    """The name of a field, equal to no other one: so a field that stands twice is there twice."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


_OBJECT: msgspec.json.Decoder[dict[_Key, Any]] = msgspec.json.Decoder(dict[_Key, Any], dec_hook=call)


def _decode(body: bytes) -> dict[str, Any]:
    try:
        pairs = _OBJECT.decode(body)
    except RecursionError:
        raise BadRequest(_NESTED_TOO_DEEPLY, code="invalid_json") from None
    except UnicodeDecodeError:
        raise BadRequest("The body is not UTF-8 text.", code="invalid_json") from None
    except msgspec.ValidationError:
        raise BadRequest("The body must be a JSON object.", code="invalid_json") from None
    except msgspec.DecodeError as error:
        raise BadRequest(f"The body is not valid JSON: {_mistake(body, str(error))}.", code="invalid_json") from None
    fields = {key.name: value for key, value in pairs.items()}
    if len(fields) < len(pairs):
        raise _twice([key.name for key in pairs])
    return fields


def _mistake(body: bytes, said: str) -> str:
    if not body.strip():
        return "it is empty"
    # msgspec says the same of both.
    return "it ends too early, or one half of a surrogate pair stands alone" if "truncated" in said else said


def _twice(names: list[str]) -> BadRequest:
    """Which of two values counts is read differently here and there, and what is checked must be what is done."""
    name = next(name for name in names if names.count(name) > 1)[:100]
    return BadRequest(f"'{name}' stands more than once.", code="duplicate_field", param=name)


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
