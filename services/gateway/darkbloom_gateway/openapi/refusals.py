"""Error responses: one shape, and examples that the code itself has made."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import orjson
from darkbloom_edge.dialects.schemas.parts import (
    COUNT,
    SOME,
    STRING,
    Schema,
    const,
    obj,
    ref,
    said,
)

from darkbloom_gateway import errors
from darkbloom_gateway.envelopes import MESSAGES_PATH, error_body, speaks_anthropic
from darkbloom_gateway.errors import ApiError
from darkbloom_gateway.openapi.operation import JSON, SEALED

_FACTS: Mapping[str, Schema] = dict.fromkeys(
    (
        "required_micro_usd",
        "available_micro_usd",
        "balance_micro_usd",
        "max_affordable_tokens",
        "debt_micro_usd",
        "limit",
        "requested",
    ),
    COUNT,
)
_DETAILS = {"message": said(STRING, "for people; may change"), "type": SOME, "code": SOME}
_PARAM = {"param": said(STRING, "the field at fault"), **_FACTS}
SCHEMAS: Mapping[str, Schema] = {
    "Error": obj({"error": obj(_DETAILS, _PARAM)}),
    "AnthropicError": obj(
        {"type": const("error"), "error": obj(_DETAILS, _PARAM), "request_id": STRING}
    ),
    "DeviceError": obj({"error": SOME}, {"error_description": STRING}),
}
_SHORT = {
    "required_micro_usd": 2_048,
    "available_micro_usd": 1_000,
    "balance_micro_usd": 1_000,
    "max_affordable_tokens": 117,
}
EXAMPLES: Mapping[int, tuple[ApiError, ...]] = {
    400: (
        errors.bad_request("temperature must be between 0 and 2", param="temperature"),
        errors.above_limit("key", "output tokens", 100_000, 64_000),
        errors.kid_mismatch(),
        errors.decryption_failed(),
        errors.envelope_invalid(),
    ),
    401: (
        errors.unauthenticated("missing credentials: send Authorization: Bearer <api key>"),
        errors.unauthenticated("invalid api key"),
    ),
    402: (
        errors.insufficient_funds(_SHORT),
        errors.key_cap_reached(_SHORT),
        errors.account_frozen(1_200_000),
    ),
    403: (
        errors.forbidden("sign in to do this: an api key cannot"),
        errors.model_not_allowed(),
        errors.closing_account(),
    ),
    404: (errors.model_not_found(), errors.not_found("there is no such key")),
    408: (errors.body_too_slow(),),
    409: (
        errors.no_linked_machine(),
        ApiError(409, "conflict", "this Idempotency-Key came before with another request"),
    ),
    410: (ApiError(410, "expired_code", "this code has expired"), errors.offer_expired()),
    413: (
        errors.body_too_large(16 * 1024 * 1024),
        errors.prompt_above_limit("account", "prompt tokens", 2_000_000, 1_000_000),
    ),
    422: (
        ApiError(
            422,
            "invalid_request_error",
            "tools[0].function.parameters: not is not enforced",
            param="tools[0].function.parameters",
        ),
    ),
    429: (errors.rate_limited(7), errors.draining()),
    431: (errors.headers_too_large(),),
    500: (errors.internal(),),
    502: (errors.provider_failed(), ApiError(502, "stripe_error", "stripe has not answered")),
    503: (errors.unavailable(), errors.alias_unroutable()),
    504: (errors.timed_out(),),
}
"""What each status looks like; all but a few are made where the gateway makes them."""
WORDS: Mapping[int, str] = {
    400: "the request is wrong; `param` names the field",
    401: "no usable credential",
    402: "a confirmed shortfall, with the amounts",
    403: "a credential of the wrong kind, or not for this",
    404: "unknown to this caller",
    408: "the body came too slowly",
    409: "the state of things does not allow it",
    410: "expired",
    413: "too large",
    422: "a schema that cannot be enforced",
    429: "too many requests: wait as `Retry-After` says",
    431: "target and headers are too large, or too many",
    500: "a fault of ours",
    502: "somebody behind us failed",
    503: "not available now",
    504: "silence after the first content",
}
_ONLY_OF_INFERENCE = frozenset(
    {
        "above_rate_limit",
        "kid_mismatch",
        "decryption_failed",
        "invalid_sealed_envelope",
        "model_not_allowed",
        "no_linked_machine",
        "payload_too_large",
        "model_unavailable",
        "provider_error",
        "model_not_found",
    }
)


def responses(
    path: str, statuses: Iterable[int], other: Mapping[int, Schema], *, inference: bool
) -> dict[str, Any]:
    """Return the error responses of an operation.

    Args:
        path: decides whose envelope it is.
        statuses: what may come.
        other: schemas that stand beside the one shape.
        inference: whether examples of inference belong here.
    """
    family = _ANTHROPIC if speaks_anthropic(path) else _INFERENCE if inference else _PLAIN
    found: dict[str, Any] = {}
    for status in sorted(set(statuses)):
        if status == _OF_THE_CONNECTION:
            # Said before anybody knows whose route it is.
            found[str(status)] = {"$ref": f"#/components/responses/{_PLAIN.name}{status}"}
        elif status in other:
            found[str(status)] = _response(status, family, other[status])
        else:
            found[str(status)] = {"$ref": f"#/components/responses/{family.name}{status}"}
    return found


_OF_THE_CONNECTION = 431


class _Family(NamedTuple):
    """Where a refusal belongs: whose shape it has, and which examples."""

    name: str
    schema: str
    inference: bool


_PLAIN = _Family("Refused", "Error", inference=False)
_INFERENCE = _Family("Inference", "Error", inference=True)
_ANTHROPIC = _Family("Anthropic", "AnthropicError", inference=True)


def _response(status: int, family: _Family, other: Schema | None = None) -> dict[str, Any]:
    shape = ref(family.schema)
    path = MESSAGES_PATH if family is _ANTHROPIC else ""
    examples = {
        error.code: {"value": _shown(error, path)}
        for error in EXAMPLES[status]
        if family.inference is (error.code in _ONLY_OF_INFERENCE) or _everywhere(error)
    }
    return {
        "description": WORDS[status],
        "headers": _headers(status, inference=family.inference),
        "content": {
            JSON: {
                "schema": {"anyOf": [shape, other]} if other is not None else shape,
                **({"examples": examples} if examples else {}),
            },
            **{kind: {"schema": ref("SealedAnswer")} for kind in SEALED if family.inference},
        },
    }


def _everywhere(error: ApiError) -> bool:
    return error.code not in _ONLY_OF_INFERENCE and error.kind not in ("conflict", "stripe_error")


def _headers(status: int, *, inference: bool) -> dict[str, Any]:
    names = ["X-Request-ID"]
    if status == 401:  # noqa: PLR2004 - a status
        names.append("WWW-Authenticate")
    if status == 429:  # noqa: PLR2004 - a status
        names += ["Retry-After", "X-RateLimit-Reset", "Connection", *RATES]
    if status == 503:  # noqa: PLR2004 - a status
        names.append("Retry-After-Some")
    if inference and status == 402:  # noqa: PLR2004 - a status
        names += RATES
    return {name.removesuffix("-Some"): {"$ref": f"#/components/headers/{name}"} for name in names}


def _shown(error: ApiError, path: str) -> Any:
    body = orjson.loads(error_body(error, path))
    if path.startswith(MESSAGES_PATH):
        body["request_id"] = "k3v0a9b2c1d4"
    return body


RATES = tuple(
    f"X-RateLimit-{word}-{what}"
    for what in ("Requests", "Input-Tokens", "Output-Tokens")
    for word in ("Limit", "Remaining", "Reset")
)
"""Triples of the fullest bucket."""


def _header(description: str, schema: Schema, *, required: bool = False) -> dict[str, Any]:
    return {"description": description, "schema": schema, "required": required}


HEADERS: Mapping[str, dict[str, Any]] = {
    "X-Request-ID": _header(
        "the caller's, or 12 characters of ours", {"type": "string"}, required=True
    ),
    "WWW-Authenticate": _header("`Bearer`", {"type": "string"}, required=True),
    "Retry-After": _header(
        "whole seconds", {"type": "integer", "minimum": 1, "maximum": 60}, required=True
    ),
    "Retry-After-Some": _header(
        "whole seconds; absent where waiting is no use",
        {"type": "integer", "minimum": 1, "maximum": 60},
    ),
    "Connection": _header("`close` where this gateway leaves", {"type": "string"}),
    "X-RateLimit-Reset": _header("Unix seconds, where requests were too many", {"type": "integer"}),
    **{
        name: _header(
            "of the bucket that is emptiest, or that refused",
            {"type": "string" if "Reset" in name else "integer"},
        )
        for name in RATES
    },
}
"""Components of headers, as errors have them."""

COMPONENTS: Mapping[str, dict[str, Any]] = {
    f"{family.name}{status}": _response(status, family)
    for family in (_PLAIN, _INFERENCE, _ANTHROPIC)
    for status in EXAMPLES
}
"""Components of error responses."""
