"""Which JSON schemas can be enforced token by token, so that refusals come before any work.

The rule is the same at the gateway and in the engine. What is refused here would otherwise be
ignored by a grammar, and an answer would claim a shape that nobody checked. Faults name keywords
and limits, never what a schema holds.

Enforced: `type`, `enum`, `const`, `properties`, `required`, `additionalProperties`,
`patternProperties`, `minProperties`, `maxProperties`, `items`, `prefixItems`, `minItems`,
`maxItems`, `minLength`, `maxLength`, `pattern`, `minimum`, `maximum`, `exclusiveMinimum`,
`exclusiveMaximum`, `multipleOf`, `format` (those of `FORMATS`; others are annotations), `anyOf`,
`oneOf` whose branches cannot overlap, `allOf`, and `$ref` inside the document.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from darkbloom_edge.errors import MalformedError
from darkbloom_edge.strict_json import canonical_json

MAX_SCHEMA_BYTES: Final = 128 * 1024
MAX_SCHEMA_DEPTH: Final = 24
"""Schemas inside schemas."""
MAX_SUBSCHEMAS: Final = 1000
MAX_ENUM_VALUES: Final = 2000
"""In one document; a `const` counts as one."""
MAX_PATTERN_CHARS: Final = 1024
FORMATS: Final = frozenset(
    {
        *("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6"),
        *("uuid", "uri"),
    }
)
"""Formats that are enforced."""

_UNENFORCED: Final = (
    *("not", "if", "then", "else", "contains", "minContains", "maxContains", "propertyNames"),
    *("dependentRequired", "dependentSchemas", "dependencies", "unevaluatedProperties"),
    *("unevaluatedItems", "additionalItems", "$dynamicRef", "$recursiveRef"),
)
_MAPS: Final = ("properties", "patternProperties", "$defs", "definitions")
_LISTS: Final = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLES: Final = ("items", "additionalProperties")


def check_schema(schema: Mapping[str, Any]) -> None:
    """Check that a schema uses only what can be enforced, and is of bearable size.

    Raises:
        MalformedError: it does not; the text names a keyword or a limit.
    """
    if len(canonical_json(schema)) > MAX_SCHEMA_BYTES:
        raise MalformedError(f"schema is larger than {MAX_SCHEMA_BYTES} bytes")
    subschemas = values = 0
    for depth, node in _walk(schema):
        subschemas += 1
        if depth > MAX_SCHEMA_DEPTH:
            raise MalformedError(f"schema is nested deeper than {MAX_SCHEMA_DEPTH}")
        if subschemas > MAX_SUBSCHEMAS:
            raise MalformedError(f"schema has more than {MAX_SUBSCHEMAS} subschemas")
        if isinstance(node, bool):
            continue
        if not isinstance(node, Mapping):
            raise MalformedError("a subschema is neither an object nor a boolean")
        _check_node(node)
        enum = node.get("enum", ())
        values += len(enum) if isinstance(enum, list) else 1
        if values > MAX_ENUM_VALUES:
            raise MalformedError(f"schema has more than {MAX_ENUM_VALUES} enum values")


def _check_node(node: Mapping[str, Any]) -> None:
    for keyword in _UNENFORCED:
        if keyword in node:
            raise MalformedError(f"keyword {keyword} cannot be enforced")
    if node.get("uniqueItems", False) is not False:
        raise MalformedError("keyword uniqueItems cannot be enforced")
    reference = node.get("$ref", "#")
    if not isinstance(reference, str) or not reference.startswith("#"):
        raise MalformedError("keyword $ref must point into the same schema")
    if not isinstance(node.get("required", []), list):
        raise MalformedError("keyword required must be an array")
    patterns = [node.get("pattern", "")]
    keyed = node.get("patternProperties")
    patterns += list(keyed) if isinstance(keyed, Mapping) else []
    for pattern in patterns:
        if not isinstance(pattern, str) or len(pattern) > MAX_PATTERN_CHARS:
            raise MalformedError(f"pattern is longer than {MAX_PATTERN_CHARS} characters")


def _walk(schema: Any) -> Iterator[tuple[int, Any]]:
    """Give every subschema with its depth; never recurses."""
    waiting = [(0, schema)]
    while waiting:
        depth, node = waiting.pop()
        yield depth, node
        if not isinstance(node, Mapping):
            continue
        for keyword in _MAPS:
            inner = node.get(keyword, {})
            if not isinstance(inner, Mapping):
                raise MalformedError(f"keyword {keyword} must be an object")
            waiting += [(depth + 1, child) for child in inner.values()]
        for keyword in _LISTS:
            several = node.get(keyword, [])
            if not isinstance(several, list):
                raise MalformedError(f"keyword {keyword} must be an array")
            waiting += [(depth + 1, child) for child in several]
        waiting += [(depth + 1, node[keyword]) for keyword in _SINGLES if keyword in node]
