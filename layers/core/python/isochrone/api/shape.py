"""What a request may weigh: how deep, how many, how long. All of it is refused before anything is done for the request.

A few bytes of a body can cost an engine hours (a million choices, a schema that unfolds without end) or make a backend
fetch an address of its own network (a picture by URL). `Guard` looks at what was parsed; it changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from isochrone.api.errors import BadRequest
from isochrone.api.schemas import LARGEST_SCHEMA, check_references, check_size
from isochrone.settings import Limits, Model

# Lists and objects cost far more memory and time than their bytes say, and so do short values. Brackets and commas in
# texts are counted too, so these are far above what a real request has.
_MAX_CONTAINERS = 200_000
_MAX_VALUES = 1_000_000
_LONGEST_STOP = 256
_TOOLS = ("tools", "functions")
_FORMS = ("response_format", "guided_json", "structured_outputs", "json_schema")
_WITH_SCHEMAS = frozenset((*_TOOLS, *_FORMS))
# Where a schema stands in one of them.
_SCHEMAS = ("parameters", "schema", "json")


class Guard:
    """The limits of one configuration, and how many tokens each model can hold."""

    def __init__(self, limits: Limits, models: tuple[Model, ...] = ()) -> None:
        self.most_answers = max(limits.choices, limits.messages)
        self.max_body = limits.body_bytes
        self._depth = limits.depth
        self._with_pictures = limits.images == "forward"
        self._contexts = _longest_contexts(models)
        choices, logprobs, tokens = limits.choices, limits.top_logprobs, limits.max_tokens
        self._largest = {
            "n": choices,
            "best_of": choices,
            "top_logprobs": logprobs,
            "logprobs": logprobs,
            "prompt_logprobs": logprobs,
            **({"max_tokens": tokens, "max_completion_tokens": tokens} if tokens else {}),
        }
        self._longest = {
            "messages": limits.messages,
            "stop": limits.stop,
            "tools": limits.tools,
            "functions": limits.tools,
        }

    def context_of(self, model: str) -> int | None:
        """The most tokens that the model, or one that may stand in for it, can hold; None where that is not said."""
        return self._contexts.get(model)

    def check_raw(self, body: bytes) -> None:
        """Before it is parsed. Raises BadRequest (`body_too_complex`)."""
        if len(body) > 3 * _MAX_CONTAINERS and body.count(b"[") + body.count(b"{") > _MAX_CONTAINERS:
            raise BadRequest(f"The body has more than {_MAX_CONTAINERS} lists and objects.", code="body_too_complex")
        if len(body) > 2 * _MAX_VALUES and body.count(b",") > _MAX_VALUES:
            raise BadRequest(f"The body has more than {_MAX_VALUES} values.", code="body_too_complex")

    def check(self, fields: Mapping[str, Any], body: bytes) -> None:
        """The parsed body, whose types are right, and its bytes. Raises BadRequest, whose `param` names the field."""
        self._check_depth(fields)
        for name, value in fields.items():
            if type(value) is int:
                self._check_number(name, value)
            elif type(value) is list:
                self._check_list(name, value)
        self._check_tokens(fields)
        _check_stop(fields.get("stop"))
        _check_schemas(fields, body)

    def _check_depth(self, fields: Mapping[str, Any]) -> None:
        """Level by level, so that no depth can exhaust the stack."""
        level: list[Any] = [fields]
        for _ in range(self._depth):
            level = [
                inner
                for outer in level
                for inner in (outer.values() if type(outer) is dict else outer)
                if (kind := type(inner)) is dict or kind is list
            ]
            if not level:
                return
        raise BadRequest(f"The body is nested more than {self._depth} levels deep.", code="body_too_complex")

    def _check_number(self, name: str, value: int) -> None:
        if value > self._largest.get(name, value):
            raise BadRequest(f"'{name}' must not be above {self._largest[name]}.", param=name)

    def _check_list(self, name: str, value: list[Any]) -> None:
        if len(value) > self._longest.get(name, len(value)):
            raise BadRequest(f"'{name}' has more than {self._longest[name]} entries.", param=name)
        if name == "messages":
            self._check_contents(value)

    def _check_tokens(self, fields: Mapping[str, Any]) -> None:
        context = self._contexts.get(fields["model"]) if self._contexts else None
        if context is None:
            return
        for name in ("max_tokens", "max_completion_tokens", "min_tokens"):
            if isinstance(tokens := fields.get(name), int) and tokens > context:
                raise BadRequest(f"'{name}' is above the {context} tokens that the model can hold.", param=name)

    def _check_contents(self, messages: list[Any]) -> None:
        for number, message in enumerate(messages):
            content = message.get("content") if type(message) is dict else None
            if type(content) is list:
                self._check_parts(content, f"messages[{number}].content")

    def _check_parts(self, parts: list[Any], param: str) -> None:
        for number, part in enumerate(parts):
            for name, url in _urls_of(part) if type(part) is dict else ():
                self._check_url(url, f"{param}[{number}].{name}")

    def _check_url(self, url: Any, param: str) -> None:
        """What carries its own bytes is as good as text; what only names a place, a backend would fetch."""
        if not isinstance(url, str):
            raise BadRequest(f"'{param}' is wrong: expected str.", code="invalid_type", param=param)
        if url[:5].lower() == "data:":
            return
        if not self._with_pictures:
            raise BadRequest(f"'{param}' names an address, and here only data: URLs are taken.", param=param)
        if not _is_public(url):
            raise BadRequest(f"'{param}' must be an http(s) or data: URL of a public host.", param=param)


def _longest_contexts(models: tuple[Model, ...]) -> dict[str, int]:
    """The most tokens that a model, or one that may stand in for it, can hold; only where all of them say so."""
    held = {model.name: model.context for model in models}
    found = {}
    for model in models:
        contexts = [held.get(name) for name in (model.name, *model.fallback)]
        if known := [context for context in contexts if context]:
            found.update({model.name: max(known)} if len(known) == len(contexts) else {})
    return found


def _check_stop(stop: Any) -> None:
    texts = {f"stop[{number}]": text for number, text in enumerate(stop)} if type(stop) is list else {"stop": stop}
    for param, text in texts.items():
        if isinstance(text, str) and len(text) > _LONGEST_STOP:
            raise BadRequest(f"'{param}' is longer than {_LONGEST_STOP} characters.", param=param)


def _check_schemas(fields: Mapping[str, Any], body: bytes) -> None:
    """Only what is long, or refers to something ($ref), can be too much; most are neither."""
    if _WITH_SCHEMAS.isdisjoint(fields):
        return
    refers = b"$" in body or (b"\\" in body and b"\\u0024" in body)
    if len(body) > LARGEST_SCHEMA or refers:
        for param, schema in _schemas_of(fields):
            check_size(schema, param)
            if refers:
                check_references(schema, param)


def _schemas_of(fields: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name in _TOOLS:
        tools = fields.get(name)
        for number, tool in enumerate(tools if isinstance(tools, list) else ()):
            if isinstance(tool, dict):
                yield f"{name}[{number}]", _schema_in(tool.get("function", tool))
    for name in _FORMS:
        if isinstance(form := fields.get(name), dict):
            yield name, _schema_in(form.get("json_schema", form))


def _schema_in(holder: Any) -> Any:
    """Engines call its place by several names; what has none of them is looked at as a whole."""
    if not isinstance(holder, dict):
        return None
    return next((holder[name] for name in _SCHEMAS if isinstance(holder.get(name), dict)), holder)


def _urls_of(part: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """`{"type": "image_url", "image_url": {"url": ...}}`, and so for sound and films."""
    for name, value in part.items():
        if name.endswith("_url"):
            yield (f"{name}.url", value.get("url")) if isinstance(value, dict) else (name, value)


def _is_public(url: str) -> bool:
    """By its letters alone: nothing is looked up here, so what a name stands for is the backend's own care."""
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").rstrip(".")
    except ValueError:
        return False
    if parts.scheme not in ("http", "https") or not host or "%" in host:
        return False
    try:
        return ip_address(host).is_global
    except ValueError:
        return _is_public_name(host)


def _is_public_name(host: str) -> bool:
    """A last label that begins with a digit is a number in disguise (0x7f.1, 2130706433, 127.1)."""
    *above, last = host.split(".")
    return bool(above) and not last[:1].isdigit() and last not in ("localhost", "local", "internal", "localdomain")
