"""Narrow a JSON schema, so that a model that follows it also comes to an end.

Narrowing never lets anything in that the schema forbids: what is generated validates against the
schema as it was sent. Where a schema leaves something open, the narrower reading is taken:

- an object that lists `properties` and says nothing of others has no others;
- an integer without any bound is one that every JSON reader holds exactly;
- properties come in the order of `required`.

Formats that cannot be enforced are annotations and are dropped, as the standard has it.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from darkbloom_edge.schema import FORMATS

MAX_SAFE_INTEGER: Final = 2**53 - 1
EMPTY_OBJECT: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {},
    "additionalProperties": False,
}
"""What a function without parameters takes."""

_INTEGER_BOUNDS: Final = frozenset(
    {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "enum", "const", "multipleOf"}
)
_COMBINED: Final = frozenset({"anyOf", "oneOf", "allOf", "$ref", "patternProperties"})
_MAPS: Final = ("properties", "patternProperties", "$defs", "definitions")
_LISTS: Final = ("anyOf", "oneOf", "prefixItems")
_SINGLES: Final = ("items", "additionalProperties")


def narrowed(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Give the narrower schema; the argument has passed `check_schema`."""
    # Parts that are joined by allOf describe one object together: none of them is complete.
    return _node(schema, close=not _mentions(schema, "allOf"))


def _node(schema: Mapping[str, Any], *, close: bool) -> dict[str, Any]:
    node = dict(schema)
    combined = any(keyword in node for keyword in _COMBINED)
    _narrow_children(node, close=close and not (combined and "properties" in node))

    if "properties" in node:
        node["properties"] = _ordered(node["properties"], node.get("required"))
        if "additionalProperties" not in node and close and not combined:
            node["additionalProperties"] = False
    if node.get("type") == "integer" and not _INTEGER_BOUNDS & node.keys():
        node["minimum"], node["maximum"] = -MAX_SAFE_INTEGER, MAX_SAFE_INTEGER
    if node.get("format") not in FORMATS:
        node.pop("format", None)
    node.pop("uniqueItems", None)
    node.pop("x-guidance", None)
    return node


def _narrow_children(node: dict[str, Any], *, close: bool) -> None:
    def child(value: Any) -> Any:
        return _node(value, close=close) if isinstance(value, Mapping) else value

    for keyword in _MAPS:
        if keyword in node:
            node[keyword] = {name: child(value) for name, value in node[keyword].items()}
    for keyword in _LISTS:
        if keyword in node:
            node[keyword] = [child(value) for value in node[keyword]]
    for keyword in _SINGLES:
        if keyword in node:
            node[keyword] = child(node[keyword])


def _ordered(properties: Mapping[str, Any], required: Iterable[Any] | None) -> dict[str, Any]:
    """Put properties in the order of `required`: a canonical request has lost its own."""
    names = [name for name in required or () if isinstance(name, str)]
    order = {name: place for place, name in reversed(list(enumerate(names)))}
    return dict(sorted(properties.items(), key=lambda item: order.get(item[0], len(order))))


def _mentions(value: Any, keyword: str) -> bool:
    if isinstance(value, Mapping):
        return keyword in value or any(_mentions(inner, keyword) for inner in value.values())
    if isinstance(value, list):
        return any(_mentions(inner, keyword) for inner in value)
    return False
