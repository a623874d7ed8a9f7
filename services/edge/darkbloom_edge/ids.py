"""Server-made ids: a prefix, an underscore, 32 lower-case hex digits (docs/wire.md §1)."""

import re
import secrets

from darkbloom_edge.errors import MalformedError

ID_BYTES = 16
"""Random bytes in every id."""

_PREFIX = re.compile(r"[a-z][a-z0-9]{0,15}\Z")
_HEX = re.compile(r"[0-9a-f]{32}\Z")


def new_id(prefix: str, entropy: bytes | None = None) -> str:
    """Make an id such as `req_…`.

    Args:
        prefix: what is named: "req", "att", "prov", "ver", "hold".
        entropy: 16 random bytes; drawn from the system when absent.
    """
    return id_text(prefix, secrets.token_bytes(ID_BYTES) if entropy is None else entropy)


def id_text(prefix: str, raw: bytes) -> str:
    """Write 16 raw bytes as an id.

    Raises:
        MalformedError: the prefix is not a lower-case word, or `raw` is not 16 bytes.
    """
    if _PREFIX.match(prefix) is None:
        raise MalformedError("id prefix is not a lower-case word")
    if len(raw) != ID_BYTES:
        raise MalformedError(f"{prefix} id is not {ID_BYTES} bytes")

    return f"{prefix}_{raw.hex()}"


def id_bytes(text: str, prefix: str) -> bytes:
    """Read the 16 raw bytes of an id.

    Raises:
        MalformedError: the text is not the one and only spelling of an id with this prefix.
    """
    head, _, tail = text.partition("_")
    if head != prefix or _HEX.match(tail) is None:
        raise MalformedError(f"not a {prefix} id")

    return bytes.fromhex(tail)
