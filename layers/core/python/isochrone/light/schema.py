"""Answers in the shape that a request's `response_format` wants, without a model: a client can be tried out with it.

A user turn of JSON is checked and given back; any other turn is answered with an example of the schema. Both are
checked by jsonschema, with two differences: nothing is fetched for a `$ref`, and the work is bounded, because a small
schema can ask for endless work. `pattern` is refused for the same reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from isochrone.api.errors import BadRequest
from isochrone.light.example import NoExample, example_of

NEEDS = ("jsonschema",)
MAX_CHARS = 20_000
_MAX_WORK = 30_000
_REFUSED = ("pattern", "patternProperties")
_FIELD = "response_format.json_schema.schema"

Check = Callable[[Any, Any, Any, Any], Iterator[Any] | None]


def run(text: str, fields: Mapping[str, Any]) -> Any:
    """The data to answer with. Raises BadRequest for data that does not fit, and for schemas that cannot be used."""
    schema = _schema_in(fields)
    given, data = _json_in(text)
    try:
        _check_schema(schema)
        answer = data if given else example_of(schema)
        wrong = _misfit(schema, answer)
    except (NoExample, OverflowError) as error:
        raise _no_example(str(error)) from None
    except RecursionError:
        raise _unusable("it never ends") from None
    if wrong and given:
        raise BadRequest(f"The JSON does not fit the schema: {wrong}.", code="schema_mismatch", param="messages")
    if wrong:
        raise _no_example(wrong)
    return answer


def _no_example(why: str) -> BadRequest:
    return BadRequest(f"'{_FIELD}': no example of it can be made here: {why}.", param="response_format")


def _unusable(why: str) -> BadRequest:
    return BadRequest(f"'{_FIELD}' cannot be used here: {why}.", param="response_format")


def _schema_in(fields: Mapping[str, Any]) -> Any:
    wanted = fields.get("response_format")
    named = wanted.get("json_schema") if isinstance(wanted, dict) else None
    schema = named.get("schema") if isinstance(named, dict) else None
    if not isinstance(schema, dict):
        raise BadRequest(f"'{_FIELD}' is missing: it says what the answer is to look like.", param="response_format")
    if len(msgspec.json.encode(schema)) > MAX_CHARS:
        raise BadRequest(f"'{_FIELD}' is larger than {MAX_CHARS:,} bytes.", param="response_format")
    return schema


def _json_in(text: str) -> tuple[bool, Any]:
    """(was it JSON, the data)"""
    try:
        return True, msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        if text.lstrip()[:1] in ("{", "["):
            raise BadRequest(f"The user turn is no JSON: {error}.", code="invalid_json", param="messages") from None
        return False, None


def _check_schema(schema: Any) -> None:
    from jsonschema import Draft202012Validator  # noqa: PLC0415
    from jsonschema.exceptions import SchemaError  # noqa: PLC0415

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise _unusable(f"{error.json_path}: {error.message:.200}") from None


def _misfit(schema: Any, data: Any) -> str | None:
    """What is wrong with `data`, in one line; None when it fits."""
    from jsonschema import Draft202012Validator  # noqa: PLC0415
    from jsonschema.exceptions import best_match  # noqa: PLC0415
    from referencing.exceptions import Unresolvable  # noqa: PLC0415
    from referencing.jsonschema import EMPTY_REGISTRY  # noqa: PLC0415

    validator = _bounded(Draft202012Validator)(schema, registry=EMPTY_REGISTRY)
    try:
        found = best_match(validator.iter_errors(data))
    except Unresolvable as error:
        raise _unusable(f"{error.ref!r:.100} is not in it") from None
    return f"{found.json_path}: {found.message:.200}" if found else None


def _bounded(validator: Any) -> Any:
    """The validator with an end to its work, for one use."""
    from jsonschema.validators import extend  # noqa: PLC0415

    done = 0

    def counted(name: str, check: Check) -> Check:
        def run_check(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any] | None:
            nonlocal done
            done += _work(name, value, instance)
            if done > _MAX_WORK:
                raise _unusable("it takes too much work")
            if name in _REFUSED:
                raise _unusable(f"{name!r} is not supported")
            return check(validator, value, instance, schema)

        return run_check

    return extend(validator, {name: counted(name, check) for name, check in validator.VALIDATORS.items()})


def _work(name: str, value: Any, instance: Any) -> int:
    if name == "uniqueItems" and isinstance(instance, list):
        return len(instance) ** 2
    return 1 + (len(value) if isinstance(value, list) else 0)
