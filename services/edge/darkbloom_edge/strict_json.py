"""One strict reader and one canonical writer of JSON (docs/wire.md §4).

Two readers that disagree about a document can be played against each other, so everything that is
ambiguous is refused: duplicate keys, lone surrogates, numbers that overflow, trailing data.
"""

import re
from typing import Any

import orjson

from darkbloom_edge.errors import MalformedError

MAX_DEPTH = 96
"""Deepest nesting of objects and arrays that is read."""

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')


def parse_json(data: bytes | bytearray, *, max_bytes: int) -> Any:
    """Read one JSON document.

    Raises:
        MalformedError: too large, not JSON, not UTF-8, too deep, or an object repeats a key.
    """
    if len(data) > max_bytes:
        raise MalformedError(f"json is larger than {max_bytes} bytes")

    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        # The cause holds the whole document, so it is cut off.
        raise MalformedError("not valid json in utf-8") from None

    # Outside of strings a valid document has exactly one colon per member, so fewer members than
    # colons means that a later key has replaced an earlier one.
    if _count_members(value) != _STRING.sub(b"", data).count(b":"):
        raise MalformedError("a json object repeats a key")

    return value


def parse_json_object(data: bytes | bytearray, *, max_bytes: int) -> dict[str, Any]:
    """Read one JSON document that must be an object; errors as `parse_json`."""
    value = parse_json(data, max_bytes=max_bytes)
    if not isinstance(value, dict):
        raise MalformedError("json is not an object")

    return value


def canonical_json(value: Any) -> bytes:
    """Write JSON with sorted keys, compact, UTF-8, shortest round-trip floats.

    Raises:
        MalformedError: the value cannot be written, such as a lone surrogate or a huge integer.
    """
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except (TypeError, RecursionError):
        raise MalformedError("value cannot be written as json") from None


def json_text(text: str) -> bytes:
    """Write one string as a JSON string, quotes included.

    Raises:
        MalformedError: the text holds a lone surrogate.
    """
    try:
        return orjson.dumps(text)
    except TypeError:
        raise MalformedError("text is not valid unicode") from None


def _count_members(value: Any) -> int:
    """Count the members of all objects, refusing what is nested too deep."""
    members = 0
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                members += len(item)
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
        if not below:
            return members
        level = below

    raise MalformedError(f"json is nested deeper than {MAX_DEPTH} levels")
