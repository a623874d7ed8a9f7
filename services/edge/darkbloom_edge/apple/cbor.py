"""Strict CBOR: `cbor2` reads, this says what may be read.

Refused: tags, floats, indefinite lengths, duplicate keys, longer spellings than needed, trailing
bytes, deep nesting, wide containers. So one value has one spelling, up to the order of its keys.
"""

from io import BytesIO
from typing import Any

import cbor2

from darkbloom_edge.errors import MalformedError

MAX_DEPTH = 8
"""Deepest nesting of maps and arrays (spec/security.md §11)."""
MAX_ELEMENTS = 16
"""Most entries of one map or array, likewise."""

_WORD = 1 << 64
_FAILURES = (cbor2.CBORError, ValueError, OverflowError, EOFError, RecursionError)


def _refuse(_value: object, _immutable: object = None) -> Any:
    raise MalformedError("a cbor tag")


# Without these cbor2 would build dates, patterns, addresses and e-mails out of what strangers send.
_TAGS = dict.fromkeys(
    (0, 1, 2, 3, 4, 5, 30, 35, 36, 37, 52, 54, 100, 258, 260, 261, 1004, 43000, 55799), _refuse
)


def decode_cbor(data: bytes, *, max_bytes: int) -> Any:
    """Read exactly one item.

    Raises:
        MalformedError: too large, not CBOR, not strict, or followed by something.
    """
    value, size = decode_first(data, max_bytes=max_bytes)
    if size != len(data):
        raise MalformedError("trailing bytes after cbor")

    return value


def decode_first(data: bytes, *, max_bytes: int) -> tuple[Any, int]:
    """Read the first item and return it with its size in bytes; errors as `decode_cbor`."""
    if len(data) > max_bytes:
        raise MalformedError(f"cbor is larger than {max_bytes} bytes")

    source = BytesIO(data)
    try:
        value = cbor2.CBORDecoder(
            source,
            max_depth=MAX_DEPTH,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            semantic_decoders=_TAGS,
        ).decode()
        size = source.tell()
        _check_kinds(value)
        # Tags that share and refer, and longer spellings, come back as something else.
        strict = cbor2.dumps(value) == data[:size]
    except _FAILURES:
        raise MalformedError("not strict cbor") from None
    if not strict:
        raise MalformedError("cbor is not in its shortest form")

    return value, size


def _check_kinds(value: object) -> None:
    if isinstance(value, dict):
        children = [*value.keys(), *value.values()]
        entries = len(value)
    elif isinstance(value, list):
        children = value
        entries = len(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        if not -_WORD <= value < _WORD:
            raise MalformedError("a cbor number is too large")
        return
    elif isinstance(value, bytes | str | bool):
        return
    else:
        raise MalformedError("cbor of a kind that is not read")

    if entries > MAX_ELEMENTS:
        raise MalformedError(f"cbor with more than {MAX_ELEMENTS} entries")
    for child in children:
        _check_kinds(child)
