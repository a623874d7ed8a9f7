"""Signed documents: canonical JSON whose exact bytes are carried (docs/wire.md §5)."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from darkbloom_edge.errors import MalformedError
from darkbloom_edge.strict_json import canonical_json, parse_json_object

MAX_DOCUMENT_BYTES = 65_536
"""Largest signed document that is read."""

Count = Annotated[int, Meta(ge=0, le=2**53 - 1)]
"""A number that every JSON reader keeps exact."""
HexDigest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
"""32 bytes in lower-case hex."""
Key32 = Annotated[str, Meta(pattern=r"^[A-Za-z0-9+/]{43}=\Z")]
"""32 bytes in base64."""
Point65 = Annotated[str, Meta(pattern=r"^[A-Za-z0-9+/]{87}=\Z")]
"""A P-256 point of 65 bytes in base64."""
Date = Annotated[str, Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")]
"""A calendar date in UTC."""
Instant = Annotated[str, Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z\Z")]
"""A time in RFC 3339, UTC, whole seconds."""
Name = Annotated[str, Meta(min_length=1, max_length=512)]
"""A short free name."""
Version = Annotated[int, Meta(ge=1, le=1)]
"""The only version of every document so far."""

_PATH = re.compile(r"at `\$\.?([^`]*)`\Z")
_INSTANT = re.compile(r"(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2})(\.\d{1,9})?Z\Z", re.ASCII)

T = TypeVar("T", bound=msgspec.Struct)


def encode_document(document: msgspec.Struct) -> bytes:
    """Write a document's canonical bytes; absent fields are left out."""
    fields: dict[str, Any] = msgspec.to_builtins(document)

    return canonical_json({name: value for name, value in fields.items() if value is not None})


def decode_document(data: bytes, kind: type[T], *, max_bytes: int = MAX_DOCUMENT_BYTES) -> T:
    """Read a document; fields that this version does not know are ignored.

    Raises:
        MalformedError: too large, not a JSON object, or a field missing or out of its range.
    """
    fields = parse_json_object(data, max_bytes=max_bytes)

    return convert_document(fields, kind)


def convert_document(fields: dict[str, Any], kind: type[T]) -> T:
    """Check the fields of a document; errors as `decode_document`."""
    try:
        return msgspec.convert(fields, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        where = _PATH.search(str(error))
        field = where.group(1) if where is not None else ""
        raise MalformedError("is missing or not allowed", field or "document") from None


def rfc3339(instant: datetime) -> str:
    """Write a time zone aware time in UTC and whole seconds."""
    whole = instant.astimezone(UTC).replace(microsecond=0, tzinfo=None)

    return f"{whole.isoformat()}Z"


def parse_rfc3339(text: str, *, fraction: bool = False) -> datetime:
    """Read a time in UTC.

    Args:
        text: such as `2026-01-31T12:00:00Z`.
        fraction: whether a fraction of a second is allowed.

    Raises:
        MalformedError: the text is no such time.
    """
    match = _INSTANT.match(text)
    if match is None or (match.group(2) is not None and not fraction):
        raise MalformedError("not a time in rfc 3339 and utc")

    try:
        whole = datetime.fromisoformat(f"{match.group(1)}+00:00")
    except ValueError:
        raise MalformedError("not a time in rfc 3339 and utc") from None
    micros = round(float(match.group(2) or 0) * 1_000_000)

    return whole.replace(microsecond=min(micros, 999_999))
