"""Errors as SDKs expect them: OpenAI's shape, and Anthropic's on its own path."""

from typing import Any

import orjson

from darkbloom_client.refusal import RefusedError
from darkbloom_client.steps import Headers

MESSAGES_PATH = "/v1/messages"
REFUSED_STATUS = 403
"""Of a refusal: SDKs do not try such a status again by themselves."""
REFUSED_HEADER = "x-darkbloom-refused"
"""Names the reason in the headers of a refusal that came before any content."""

_ANTHROPIC = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "invalid_request_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_JSON: Headers = [("content-type", "application/json")]


def error_body(path: str, status: int, details: dict[str, Any]) -> bytes:
    """Write an error for callers of a path.

    Args:
        path: of the caller's request.
        status: of the response.
        details: `message`, `type`, `code` and more.
    """
    if path != MESSAGES_PATH:
        return orjson.dumps({"error": details})
    kind = _ANTHROPIC.get(status, "invalid_request_error" if status < 500 else "api_error")  # noqa: PLR2004 - where server errors begin
    return orjson.dumps({"type": "error", "error": {**details, "type": kind}})


def refusal(path: str, error: RefusedError) -> tuple[int, Headers, bytes]:
    """Return status, headers and body of a refusal before any content."""
    details = {"message": str(error), "type": "end_to_end_refused", "code": error.reason.value}
    headers = [*_JSON, (REFUSED_HEADER, error.reason.value), ("x-should-retry", "false")]

    return REFUSED_STATUS, headers, error_body(path, REFUSED_STATUS, details)


def own_error(
    path: str, status: int, message: str, *, kind: str, code: str, param: str | None = None
) -> tuple[int, Headers, bytes]:
    """Return status, headers and body of an error that this process finds by itself."""
    details: dict[str, Any] = {"message": message, "type": kind, "code": code}
    if param is not None:
        details["param"] = param

    return status, list(_JSON), error_body(path, status, details)


def gateway_error(path: str, status: int, content: bytes) -> bytes:
    """Write the gateway's error for callers of a path; offers speak OpenAI's shape."""
    try:
        details = orjson.loads(content)["error"]
        details = {str(name): value for name, value in details.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        details = {"message": f"the gateway answered {status}", "type": "provider_error"}
        details["code"] = details["type"]

    return error_body(path, status, details)
