"""The fields of an API key in JSON (http-api §12): read with their own errors, written exactly.

Dollars are numbers in this part of the API. They are read and written as decimals; no float is
ever in between.
"""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson
from darkbloom.billing.v1.account_pb2 import ApiKey, LimitReset
from darkbloom_mesh.clock import Clock
from fastapi import Request

from darkbloom_gateway import convert
from darkbloom_gateway.errors import ApiError, ClientGoneError
from darkbloom_gateway.routes.bodies import MAX_BODY, rfc3339
from darkbloom_gateway.wire import read_body

MAX_NAME = 100
MAX_MODELS = 100
_IDLE_S = 10.0
_MICRO = 1_000_000
_MAX_USD = Decimal(1_000_000)
_MAX_RPM = 2**31 - 1
_MAX_TPM = 2**53
_MAX_MODEL = 256
_RESETS = ("none", "daily", "weekly", "monthly")


def refused(message: str, param: str | None = None) -> ApiError:
    """400 `bad_request`: what these routes say to anything malformed."""
    return ApiError(400, "bad_request", message, param=param)


async def read_settings(request: Request) -> Mapping[str, Any]:
    """Return the JSON object of a request, numbers as decimals; no body is an empty object.

    Raises:
        ApiError: 400, 408 or 413.
    """
    try:
        raw = await read_body(request.scope, request.receive, limit=MAX_BODY, idle_s=_IDLE_S)
    except ClientGoneError:
        raise refused("the body ended early") from None
    if not raw:
        return {}
    try:
        body = json.loads(raw, parse_float=Decimal, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise refused("the body is not JSON") from None
    if not isinstance(body, dict):
        raise refused("the body is not a JSON object")
    return body


def read_key(body: Mapping[str, Any], clock: Clock) -> tuple[ApiKey, list[str]]:
    """Read settings; return a key that has them and the names of the fields that were given.

    `null` clears: the field's name is returned and the key does not have it.

    Raises:
        ApiError: 400 `bad_request` with the field at fault.
    """
    key, named = ApiKey(), []
    for name, value in body.items():
        reader = _READERS.get(name)
        if reader is None:
            raise refused("this field does not exist or cannot be set", _shown(name))
        field, read = reader
        named.append(field)
        if value is not None:
            read(key, name, value)
    if key.HasField("expire_time") and convert.instant(key.expire_time) <= clock.now():
        raise refused("expires_at must be in the future", "expires_at")
    return key, named


def write_key(key: ApiKey) -> dict[str, Any]:
    """Write a key without its secret; what it does not have is left out."""
    content: dict[str, Any] = {
        "id": key.key_id,
        "name": key.name,
        "label": key.label,
        "disabled": key.disabled,
        "limit_reset": LimitReset.Name(key.limit_reset).removeprefix("LIMIT_RESET_").lower(),
        "usage_usd": _usd(key.usage_micros),
        "self_route_only": key.self_route_only,
        "created_at": rfc3339(convert.instant(key.create_time)),
    }
    if key.HasField("limit_micros"):
        content["limit_usd"] = _usd(key.limit_micros)
        content["remaining_usd"] = _usd(key.remaining_micros)
    for field, name in _LIMITS.items():
        if key.HasField(field):  # type: ignore[arg-type]
            content[name] = getattr(key, field)
    if key.allowed_models:
        content["allowed_models"] = list(key.allowed_models)
    if key.HasField("expire_time"):
        content["expires_at"] = rfc3339(convert.instant(key.expire_time))
    if key.HasField("last_use_time"):
        content["last_used_at"] = rfc3339(convert.instant(key.last_use_time))
    return content


def _usd(micros: int) -> orjson.Fragment:
    """Write micro-USD as a JSON number, exactly, without trailing zeros."""
    whole, rest = divmod(micros, _MICRO)
    digits = f"{rest:06d}".rstrip("0")
    return orjson.Fragment(f"{whole}.{digits}" if digits else f"{whole}")


def _shown(name: str) -> str:
    """Return a field's name as it may be repeated."""
    return name if name.isascii() and name.isidentifier() and len(name) <= MAX_NAME else "body"


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _name(key: ApiKey, name: str, value: Any) -> None:
    if not isinstance(value, str) or len(value) > MAX_NAME or not value.isprintable():
        raise refused(f"{name} must be a printable text of at most {MAX_NAME} characters", name)
    key.name = value


def _flag(field: str) -> Callable[[ApiKey, str, Any], None]:
    def read(key: ApiKey, name: str, value: Any) -> None:
        if not isinstance(value, bool):
            raise refused(f"{name} must be true or false", name)
        setattr(key, field, value)

    return read


def _number(field: str, most: int) -> Callable[[ApiKey, str, Any], None]:
    def read(key: ApiKey, name: str, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            raise refused(f"{name} must be a whole number from 0 to {most}", name)
        setattr(key, field, value)

    return read


def _limit_usd(key: ApiKey, name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise refused(f"{name} must be a number", name)
    dollars = Decimal(value)
    if not 0 <= dollars <= _MAX_USD or dollars * _MICRO % 1:
        raise refused(f"{name} must be from 0 to {_MAX_USD}, with at most 6 decimals", name)
    key.limit_micros = int(dollars * _MICRO)


def _limit_reset(key: ApiKey, name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise refused(f"{name} must be one of {', '.join(_RESETS)}", name)
    # An unknown word never starts anew, as in the original (billing §8).
    word = value if value in _RESETS else "none"
    key.limit_reset = LimitReset.Value(f"LIMIT_RESET_{word.upper()}")


def _models(key: ApiKey, name: str, value: Any) -> None:
    if not isinstance(value, list) or len(value) > MAX_MODELS or not all(map(_is_model, value)):
        raise refused(f"{name} must be a list of at most {MAX_MODELS} models", name)
    key.allowed_models.extend(value)


def _is_model(value: Any) -> bool:
    return (
        isinstance(value, str)
        and 0 < len(value) <= _MAX_MODEL
        and value.isascii()
        and value.isprintable()
        and " " not in value
    )


def _expires(key: ApiKey, name: str, value: Any) -> None:
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else None
        at = at.astimezone(UTC) if at is not None and at.tzinfo is not None else None
    except (ValueError, OverflowError):
        at = None
    if at is None:
        raise refused(f"{name} must be a time such as 2030-01-31T12:00:00Z", name)
    key.expire_time.FromDatetime(at)


_READERS: Mapping[str, tuple[str, Callable[[ApiKey, str, Any], None]]] = {
    "name": ("name", _name),
    "disabled": ("disabled", _flag("disabled")),
    "limit_usd": ("limit_micros", _limit_usd),
    "limit_reset": ("limit_reset", _limit_reset),
    "rpm_limit": ("rpm_limit", _number("rpm_limit", _MAX_RPM)),
    "itpm_limit": ("input_tpm_limit", _number("input_tpm_limit", _MAX_TPM)),
    "otpm_limit": ("output_tpm_limit", _number("output_tpm_limit", _MAX_TPM)),
    "allowed_models": ("allowed_models", _models),
    "self_route_only": ("self_route_only", _flag("self_route_only")),
    "expires_at": ("expire_time", _expires),
}
_LIMITS: Mapping[str, str] = {
    "rpm_limit": "rpm_limit",
    "input_tpm_limit": "itpm_limit",
    "output_tpm_limit": "otpm_limit",
}
