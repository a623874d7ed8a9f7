"""JSON bodies of the control plane: small, an object, and each field read with its own error.

    body = await read_object(request)
    amount = usd(body, "amount_usd", least=Decimal("0.50"))
    note = text(body, "note", default="", longest=200)

A missing or malformed field is 400 `invalid_request_error` with `param`. Dollars are parsed as
decimals and leave as integer micro-USD; no float is ever in between.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson
from fastapi import Request

from darkbloom_gateway.errors import ClientGoneError, bad_request
from darkbloom_gateway.wire import read_body

MAX_BODY = 64 * 1024
_IDLE_S = 10.0
_MICRO = 1_000_000
_USD = re.compile(r"[0-9]{1,9}(\.[0-9]{1,2})?")
_LARGEST_USD = Decimal(1_000_000)
Body = Mapping[str, Any]


async def read_object(request: Request, *, empty: bool = False) -> Body:
    """Return the JSON object of a request.

    Args:
        request: whose body.
        empty: whether no body at all counts as an empty object.

    Raises:
        ApiError: 400 for anything else, 408 when it comes too slowly, 413 above 64 KiB.
    """
    try:
        raw = await read_body(request.scope, request.receive, limit=MAX_BODY, idle_s=_IDLE_S)
    except ClientGoneError:
        raise bad_request("the body ended early") from None
    if empty and not raw:
        return {}
    return parse_object(raw)


def parse_object(raw: bytes) -> Body:
    """Return a body's JSON object.

    Raises:
        ApiError: 400 for anything else.
    """
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise bad_request("the body is not JSON") from None
    if not isinstance(body, dict):
        raise bad_request("the body is not a JSON object")
    return body


def text(body: Body, name: str, *, default: str | None = None, longest: int = 200) -> str:
    """Return a text field; without a default it must be there and not be empty."""
    value = body.get(name, default)
    if value is None:
        value = default
    if not isinstance(value, str) or "\x00" in value or not _encodable(value):
        raise bad_request(f"{name} must be a text", param=name)
    if len(value) > longest:
        raise bad_request(f"{name} has at most {longest} characters", param=name)
    if default is None and not value:
        raise bad_request(f"{name} is missing", param=name)
    return value


def integer(body: Body, name: str, *, least: int, most: int, default: int | None = None) -> int:
    """Return a whole number within its bounds."""
    value = body.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise bad_request(f"{name} must be a whole number from {least} to {most}", param=name)
    return value


def flag(body: Body, name: str, *, default: bool = False) -> bool:
    """Return a field that is true or false."""
    value = body.get(name, default)
    if not isinstance(value, bool):
        raise bad_request(f"{name} must be true or false", param=name)
    return value


def only(body: Body, *names: str) -> None:
    """Refuse a body with other fields than these: a misspelt one would change what is done."""
    if body.keys() - set(names):
        raise bad_request(f"there may be no other fields than {', '.join(names)}")


def usd(body: Body, name: str, *, least: Decimal = Decimal("0.01")) -> int:
    """Return dollars, given as a text with at most 2 decimals, as micro-USD."""
    value = body.get(name)
    if not isinstance(value, str) or _USD.fullmatch(value) is None:
        raise bad_request(
            f'{name} must be dollars as a text with at most 2 decimals, such as "10.00"', param=name
        )
    dollars = Decimal(value)
    if not least <= dollars <= _LARGEST_USD:
        raise bad_request(f"{name} must be from {least} to {_LARGEST_USD}", param=name)
    return int(dollars * _MICRO)


def moment(body: Body, name: str) -> datetime | None:
    """Return a time with a zone (RFC 3339), in UTC; None where there is none."""
    value = body.get(name)
    if value is None or value == "":
        return None
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise bad_request(f"{name} must be a time such as 2026-01-31T12:00:00Z", param=name)
    try:
        return at.astimezone(UTC)
    except OverflowError:
        raise bad_request(f"{name} is not a time of this era", param=name) from None


def usd2(micros: int) -> str:
    """Write micro-USD as dollars with two decimals, cut off."""
    sign = "-" if micros < 0 else ""
    cents = abs(micros) // (_MICRO // 100)
    return f"{sign}{cents // 100}.{cents % 100:02d}"


def usd6(micros: int) -> str:
    """Write micro-USD as dollars with six decimals."""
    sign = "-" if micros < 0 else ""
    return f"{sign}{abs(micros) // _MICRO}.{abs(micros) % _MICRO:06d}"


def rfc3339(at: datetime) -> str:
    """Write a time in UTC."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _encodable(value: str) -> bool:
    """Say whether a text can be stored: JSON may escape halves of characters."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
