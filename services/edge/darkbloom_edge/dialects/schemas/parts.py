"""Words in which the schemas are written."""

from collections.abc import Mapping
from typing import Any, TypeAlias

from darkbloom_edge.dialects.fields import MAX_INTEGER

Schema: TypeAlias = dict[str, Any]

STRING: Schema = {"type": "string"}
SOME: Schema = {"type": "string", "minLength": 1}
BOOLEAN: Schema = {"type": "boolean"}
INTEGER: Schema = {"type": "integer"}
COUNT: Schema = {"type": "integer", "minimum": 0}
NUMBER: Schema = {"type": "number"}
NULL: Schema = {"type": "null"}
ANY_OBJECT: Schema = {"type": "object"}


def ref(name: str) -> Schema:
    """Return a reference to a component."""
    return {"$ref": f"#/components/schemas/{name}"}


def text(**limits: Any) -> Schema:
    """Return a string with limits."""
    return {"type": "string", **limits}


def words(*values: str) -> Schema:
    """Return one of these strings."""
    return {"type": "string", "enum": list(values)}


def const(value: str) -> Schema:
    """Return exactly this string."""
    return {"type": "string", "const": value}


def whole(low: int, high: int = MAX_INTEGER) -> Schema:
    """Return an integer between two bounds, both included."""
    return {"type": "integer", "minimum": low, "maximum": high}


def number(low: float, high: float) -> Schema:
    """Return a number between two bounds, both included."""
    return {"type": "number", "minimum": low, "maximum": high}


def array(items: Schema, **limits: Any) -> Schema:
    """Return a list."""
    return {"type": "array", "items": items, **limits}


def mapping(values: Schema) -> Schema:
    """Return an object with names of the other side's choice."""
    return {"type": "object", "additionalProperties": values}


def obj(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    """Return an object; more members than these may be there."""
    schema: Schema = {"type": "object", "properties": {**required, **(optional or {})}}
    if required:
        schema["required"] = list(required)
    return schema


def either(*schemas: Schema) -> Schema:
    """Return what fits one of these or more."""
    return {"anyOf": list(schemas)}


def nullable(schema: Schema) -> Schema:
    """Return the schema, or null."""
    kind = schema.get("type")
    if kind == "null":
        return schema
    if isinstance(kind, str) and "enum" not in schema and "const" not in schema:
        return {**schema, "type": [kind, "null"]}
    return either(schema, NULL)


def options(fields: Mapping[str, Schema]) -> dict[str, Schema]:
    """Return optional fields of a request, where null is the same as absent."""
    return {name: nullable(schema) for name, schema in fields.items()}


def said(schema: Schema, description: str) -> Schema:
    """Return the schema with a sentence about it."""
    return {**schema, "description": description}
