"""One rule says which schemas can be enforced, and its words hold nothing of a schema."""

from typing import Any

import pytest
from darkbloom_edge.errors import MalformedError
from darkbloom_edge.schema import MAX_ENUM_VALUES, MAX_SUBSCHEMAS, check_schema

CANARY = "canary-7f3a"


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {CANARY: schema}}
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object", "properties": {"not": {"type": "string"}}, "required": ["not"]},
        {"enum": ["not", "if"], "default": {"not": 1}},
        {"$ref": "#/$defs/a", "$defs": {"a": {"type": ["string", "null"]}}},
        {"type": "array", "items": {"anyOf": [{"const": 1}, True]}, "uniqueItems": False},
        {"type": "string", "format": "something of ours", "title": "t", "examples": ["e"]},
        nested(20),
    ],
)
def test_what_a_grammar_can_hold_passes(schema: dict[str, Any]) -> None:
    check_schema(schema)


@pytest.mark.parametrize(
    ("schema", "word"),
    [
        ({"not": {}}, "not"),
        ({"items": {"if": {"const": CANARY}}}, "if"),
        ({"anyOf": [{"uniqueItems": True}]}, "uniqueItems"),
        ({"properties": {CANARY: {"propertyNames": {"pattern": CANARY}}}}, "propertyNames"),
        ({"$ref": f"https://example.com/{CANARY}"}, "$ref"),
        ({"pattern": CANARY * 200}, "pattern"),
        ({"patternProperties": {CANARY * 200: {}}}, "pattern"),
        ({"properties": [CANARY]}, "properties"),
        ({"anyOf": {CANARY: 1}}, "anyOf"),
        ({"items": [CANARY]}, "subschema"),
        ({"required": CANARY}, "required"),
        ({"description": CANARY * 20_000}, "larger"),
        ({"enum": list(range(MAX_ENUM_VALUES + 1))}, "enum"),
        ({"properties": {str(index): {} for index in range(MAX_SUBSCHEMAS)}}, "subschemas"),
        (nested(25), "nested"),
    ],
)
def test_what_no_grammar_can_hold_is_refused_by_its_keyword(
    schema: dict[str, Any], word: str
) -> None:
    with pytest.raises(MalformedError) as refused:
        check_schema(schema)

    assert word in str(refused.value)
    assert CANARY not in str(refused.value)
