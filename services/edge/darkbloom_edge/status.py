"""The canonical status: what a provider signs when it is challenged."""

from collections.abc import Mapping
from typing import Any

from darkbloom_edge.strict_json import canonical_json

_ALWAYS = frozenset({"nonce", "timestamp"})
_ESCAPES = ((b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"))


def canonical_status(fields: Mapping[str, Any]) -> bytes:
    """Write a status: sorted keys at every level, compact, UTF-8, U+2028 and U+2029 escaped.

    Null, empty strings and empty maps are left out, except `nonce` and `timestamp`. An explicit
    false stays, because absence must differ from it.

    Raises:
        MalformedError: a value that JSON cannot carry.
    """
    present = {
        name: value
        for name, value in fields.items()
        if name in _ALWAYS or (value is not None and value not in ("", {}))
    }
    data = canonical_json(present)
    for raw, escaped in _ESCAPES:
        data = data.replace(raw, escaped)

    return data
