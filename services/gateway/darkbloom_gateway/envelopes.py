"""The shapes in which an error leaves: OpenAI's everywhere, Anthropic's on its own routes."""

import orjson
from darkbloom_mesh.context import request_id

from darkbloom_gateway.errors import ApiError

MESSAGES_PATH = "/v1/messages"
"""Where the Anthropic dialect lives, and everything below it."""

_BY_STATUS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    409: "invalid_request_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def speaks_anthropic(path: str) -> bool:
    """Whether callers of this path expect Anthropic's shapes."""
    return path == MESSAGES_PATH or path.startswith(MESSAGES_PATH + "/")


def error_body(error: ApiError, path: str = "") -> bytes:
    """Write the JSON body of an error as callers of that path expect it."""
    details: dict[str, str | int] = {"message": error.message}
    if speaks_anthropic(path):
        details["type"] = _BY_STATUS.get(error.http_status, "api_error")
    else:
        details["type"] = error.kind
    details["code"] = error.code
    if error.param is not None:
        details["param"] = error.param
    details |= error.facts
    if speaks_anthropic(path):
        return orjson.dumps({"type": "error", "error": details, "request_id": request_id()})
    return orjson.dumps({"error": details})
