"""`edge/schema`: JSON is checked and given back, anything else gets an example, and no schema costs much."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from isochrone.api.errors import BadRequest
from isochrone.light.schema import run

PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 6},
        "age": {"type": "integer", "minimum": 18},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}},
        "mail": {"type": "string", "format": "email"},
        "boss": {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
    },
    "required": ["name", "age", "boss"],
    "additionalProperties": False,
}


def fields(schema: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}


def test_json_that_fits_is_given_back() -> None:
    assert run('{"age": 20, "name": "Ada Lovelace", "boss": null}', fields(PERSON)) == {
        "age": 20,
        "name": "Ada Lovelace",
        "boss": None,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"age": 20, "boss": null}', "'name' is a required property"),
        ('{"age": 17, "name": "Ada Lovelace", "boss": null}', r"\$.age: 17 is less than the minimum of 18"),
        ("42", "42 is not of type 'object'"),
    ],
)
def test_json_that_does_not_fit_is_refused_with_the_place(text: str, message: str) -> None:
    with pytest.raises(BadRequest, match=f"The JSON does not fit the schema: .*{message}") as caught:
        run(text, fields(PERSON))
    assert (caught.value.code, caught.value.param) == ("schema_mismatch", "messages")


@pytest.mark.parametrize("text", ['{"age": 20', "[1, 2,]", "[" * 20_000, "[" * 9_000 + "]" * 9_000])
def test_broken_json_is_refused_and_not_taken_for_words(text: str) -> None:
    with pytest.raises(BadRequest, match="The user turn is no JSON"):
        run(text, fields(PERSON))


SCHEMAS: list[dict[str, Any]] = [
    {},
    PERSON,
    {"const": 7},
    {"enum": ["x", "y"]},
    {"type": ["null", "string"]},
    {"type": "boolean"},
    {"type": "string", "maxLength": 2},
    {"type": "string", "minLength": 9, "maxLength": 9},
    *({"type": "string", "format": name} for name in ("date", "date-time", "uuid", "ipv6", "unheard-of")),
    {"type": "integer", "minimum": 3, "multipleOf": 5},
    {"type": "integer", "exclusiveMinimum": 0},
    {"type": "number", "exclusiveMaximum": 0},
    {"type": "number", "maximum": -2.5},
    {"type": "integer", "exclusiveMaximum": -10, "multipleOf": 5},
    {"type": "array", "items": {"type": "string"}, "minItems": 3},
    {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": False},
    {"type": "array", "items": {"type": "string"}, "maxItems": 0},
    {"items": {"type": "integer"}},
    {"properties": {"a": {"default": 3}, "b": {"examples": ["q"], "type": "string"}}},
    {"allOf": [{"properties": {"a": {"type": "integer"}}}, {"required": ["a", "b"]}], "type": "object"},
    {"oneOf": [{"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]}, {"type": "string"}]},
    {"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "integer", "minimum": 4}}},
    {
        "$ref": "#/$defs/node",
        "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}},
    },
    {
        "type": "object",
        "properties": {"children": {"type": "array", "items": {"$ref": "#"}}},
        "required": ["children"],
    },
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=str)
def test_words_are_answered_with_an_example_that_fits(schema: dict[str, Any]) -> None:
    Draft202012Validator(schema).validate(run("What is the weather?", fields(schema)))


def test_example_names_every_property_once_and_ends_where_the_schema_does_not() -> None:
    example = run("x", fields(PERSON))
    assert example["name"] == "textxx"
    assert (example["age"], example["tags"], example["mail"]) == (18, ["a"], "name@example.com")
    assert isinstance(example["boss"], dict)


@pytest.mark.parametrize("more", [{}, {"response_format": {"type": "json_object"}}, {"response_format": 3}, fields(3)])
def test_request_without_a_schema_says_where_it_belongs(more: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match=r"'response_format.json_schema.schema' is missing") as caught:
        run("x", more)
    assert caught.value.param == "response_format"


DOUBLING: dict[str, Any] = {
    "$ref": "#/$defs/0",
    "$defs": {str(i): {"anyOf": [{"allOf": [{"$ref": f"#/$defs/{i + 1}"}] * 2}] * 2} for i in range(60)}
    | {"60": {"type": "integer"}},
}


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "strin"}, "'strin' is not valid"),
        ({"properties": 5}, "5 is not of type 'object'"),
        ({"type": "string", "pattern": "(a+)+$"}, "'pattern' is not supported"),
        ({"type": "string", "pattern": "("}, "not a 'regex'"),
        ({"$ref": "#"}, "never ends"),
        ({"$ref": "#/$defs/none"}, "is not in it"),
        ({"$ref": "https://example.com/schema.json"}, "https://example.com/schema.json' is not in it"),
        ({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "never ends"),
        ({"type": "array", "items": {"type": "string"}, "minItems": 10**9}, "never ends"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "no example of it"),
        ({"not": {}}, "no example of it"),
        (DOUBLING, "no example of it"),
        ({"enum": ["x" * 20_001]}, "is larger than 20,000 bytes"),
        ({"type": "integer", "minimum": 1e308, "multipleOf": 1e-308}, "no example of it"),
    ],
    ids=lambda value: str(value)[:40],
)
@pytest.mark.parametrize("text", ["words", '"text"'])
def test_schema_that_cannot_be_used_is_refused_soon(schema: Any, message: str, text: str) -> None:
    begun = time.process_time()
    with pytest.raises(BadRequest, match=message if text == "words" else None) as caught:
        run(text, fields(schema))
    assert "\n" not in str(caught.value)
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    ("schema", "data"),
    [
        ({"uniqueItems": True}, [{}] * 4_000),
        ({"items": {"enum": list(range(1000))}}, [-1] * 3_000),
        ({"items": {"not": {"enum": list(range(1000))}}}, [-1] * 3_000),
    ],
    ids=["unique", "enum", "not"],
)
def test_check_that_would_take_long_is_given_up(schema: Any, data: Any) -> None:
    with pytest.raises(BadRequest, match=r"too much work|does not fit"):
        run(json.dumps(data), fields(schema))
