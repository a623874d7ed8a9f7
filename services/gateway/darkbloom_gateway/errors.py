"""What a consumer is told: one class, and the closed list of its instances (http-api §4).

Nothing a provider wrote ever gets into one of these. Statuses, types and codes are the contract;
messages are for people and may change.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import final

from darkbloom_edge.errors import RequestError
from darkbloom_mesh.errors import MeshError

MAX_RETRY_AFTER_S = 60
"""Longest wait that a consumer is asked for."""
# The rest of such a body never comes, so the connection cannot carry another request.
_HANG_UP = ((b"connection", b"close"),)


@final
class ApiError(MeshError):
    """A request ends with this status and this body.

    Args:
        http_status: 400 to 599.
        kind: `type` of the body.
        message: for people.
        code: `code` of the body; equals `type` when absent.
        param: the field at fault.
        retry_after_s: whole seconds, clamped to 1 to 60; absent sends no header.
        facts: more integers for the body, such as what a hold needs.
        headers: more response headers.
    """

    def __init__(
        self,
        http_status: int,
        kind: str,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
        facts: Mapping[str, int] | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(message)
        self.http_status = http_status
        self.kind = kind
        self.code = code or kind
        self.param = param
        self.retry_after_s = None if retry_after_s is None else clamp_retry_after(retry_after_s)
        self.facts = dict(facts or {})
        self.headers = headers


class ViolationFault(StrEnum):
    """How a provider broke the rules of the edge."""

    UNOPENABLE = "unopenable"
    HEADER = "header"
    COUNTS = "counts"
    TERMINAL = "terminal"
    DELTA = "delta"


@final
class ViolationError(Exception):
    """A box, a count or a terminal is not what it must be; never carries content."""

    def __init__(self, fault: ViolationFault) -> None:
        super().__init__(fault.value)
        self.fault = fault


class LaneLostError(Exception):
    """The router went away, or is leaving, before this request had content."""


class ClientGoneError(Exception):
    """The consumer left; there is nobody to answer."""


def clamp_retry_after(seconds: float) -> int:
    """Round up to whole seconds between 1 and `MAX_RETRY_AFTER_S`."""
    return max(1, min(MAX_RETRY_AFTER_S, -int(-seconds // 1)))


def bad_request(message: str, *, param: str | None = None, code: str | None = None) -> ApiError:
    """400: the request itself is wrong."""
    return ApiError(400, "invalid_request_error", message, param=param, code=code)


def of_request(error: RequestError) -> ApiError:
    """Return what a dialect found wrong as the answer that it is."""
    return ApiError(error.status, error.type, error.message, code=error.code, param=error.param)


def unauthenticated(message: str) -> ApiError:
    """401: no usable credential."""
    return ApiError(401, "authentication_error", message)


def forbidden(message: str) -> ApiError:
    """403: a credential of the wrong kind for this."""
    return ApiError(403, "forbidden", message)


def closing_account() -> ApiError:
    """403: nothing of this account counts any more."""
    return ApiError(403, "account_pending_deletion", "this account is being deleted")


def insufficient_funds(facts: Mapping[str, int]) -> ApiError:
    """402: confirmed shortfall; `facts` say how much, in micro-USD and tokens."""
    return ApiError(
        402,
        "insufficient_funds",
        "the balance does not cover the worst case of this request",
        code="insufficient_quota",
        facts=facts,
    )


def key_cap_reached(facts: Mapping[str, int]) -> ApiError:
    """402: the key's own spend cap; facts as above."""
    return ApiError(
        402,
        "insufficient_quota",
        "the spend cap of this key does not cover the worst case of this request",
        facts=facts,
    )


def account_frozen(debt_micros: int | None) -> ApiError:
    """402 where the account owes money, which a deposit heals; else 403: an operator froze it."""
    if debt_micros:
        return ApiError(
            402,
            "insufficient_funds",
            "the account owes money; a deposit pays that first",
            code="account_frozen",
            facts={"debt_micro_usd": debt_micros},
        )
    return ApiError(403, "forbidden", "this account is frozen", code="account_frozen")


def no_linked_machine() -> ApiError:
    """409: self-route by an account without machines."""
    return ApiError(409, "no_linked_machine", "no machine is linked to this account")


def model_not_allowed() -> ApiError:
    """403: outside the key's list."""
    return ApiError(403, "model_not_allowed", "this key may not use this model", param="model")


def model_not_found() -> ApiError:
    """404: neither an alias nor a build."""
    return ApiError(404, "model_not_found", "the model does not exist", param="model")


def not_found(message: str) -> ApiError:
    """404: a thing of the caller's that does not exist."""
    return ApiError(404, "not_found", message)


def no_such_endpoint() -> ApiError:
    """404: the catch-all."""
    return ApiError(404, "invalid_request_error", "this endpoint is not implemented")


def method_not_allowed(allow: str) -> ApiError:
    """405: a known path with another method."""
    return ApiError(
        405,
        "invalid_request_error",
        "this method is not allowed here",
        headers=((b"allow", allow.encode("ascii")),),
    )


def malformed_http() -> ApiError:
    """400: not HTTP; nothing after it could be read."""
    return ApiError(400, "invalid_request_error", "the request is not HTTP/1.1")


def headers_too_large() -> ApiError:
    """431: the target and headers of a request are too many or too large."""
    return ApiError(431, "invalid_request_error", "the request's headers are too large or too many")


def body_too_slow() -> ApiError:
    """408: the body stopped coming."""
    return ApiError(
        408, "invalid_request_error", "the request body came too slowly", headers=_HANG_UP
    )


def body_too_large(limit: int) -> ApiError:
    """413: over the ceiling of the route."""
    return ApiError(413, "invalid_request_error", f"the request body is larger than {limit} bytes")


def prompt_too_large() -> ApiError:
    """413: more tokens than any hold may carry."""
    return ApiError(
        413,
        "invalid_request_error",
        "the prompt is larger than any model can take",
        code="payload_too_large",
    )


def prompt_above_limit(owner: str, words: str, needed: int, limit: int) -> ApiError:
    """413: a prompt that no wait makes small enough for the limit of this key or account."""
    return ApiError(
        413,
        "invalid_request_error",
        f"this request needs {needed} {words}, the limit of this {owner} is {limit} at once",
        code="payload_too_large",
        facts={"limit": limit, "requested": needed},
    )


def above_limit(owner: str, words: str, needed: int, limit: int) -> ApiError:
    """400: more than a full bucket of this key or account ever holds."""
    return ApiError(
        400,
        "invalid_request_error",
        f"this request needs {needed} {words}, the limit of this {owner} is {limit} at once",
        code="above_rate_limit",
        facts={"limit": limit, "requested": needed},
    )


def rate_limited(retry_after_s: float, headers: tuple[tuple[bytes, bytes], ...] = ()) -> ApiError:
    """429: a bucket is empty."""
    return ApiError(
        429,
        "rate_limit_exceeded",
        "too many requests",
        retry_after_s=retry_after_s,
        headers=headers,
    )


def first_content_late() -> ApiError:
    """429: nobody produced content in time."""
    return ApiError(429, "rate_limit_exceeded", "no provider answered in time", retry_after_s=10)


def internal() -> ApiError:
    """500: ours."""
    return ApiError(500, "internal_error", "internal error")


def provider_failed(message: str = "the provider failed") -> ApiError:
    """502: the provider's fault, or its output is unusable."""
    return ApiError(502, "provider_error", message)


def alias_unroutable() -> ApiError:
    """503: the alias points at no routable build."""
    return ApiError(503, "model_unavailable", "the model has no routable build now", param="model")


def unavailable(
    message: str = "the service is temporarily unavailable", *, retry_after_s: float = 5
) -> ApiError:
    """503: a store or a room does not answer; never to be shown as lack of money."""
    return ApiError(503, "service_unavailable", message, retry_after_s=retry_after_s)


def draining() -> ApiError:
    """429: this process leaves and another one takes the next try, or all of them are closed."""
    return ApiError(429, "rate_limit_exceeded", "this gateway is draining", retry_after_s=3)


def overloaded() -> ApiError:
    """503: a bound of this process is reached."""
    return unavailable("this gateway is busy", retry_after_s=1)


def timed_out() -> ApiError:
    """504: silence after the first content."""
    return ApiError(504, "timeout", "the provider stopped answering")


def offer_expired() -> ApiError:
    """410: end-to-end mode: used, declined, somebody else's, or too late."""
    return ApiError(
        410, "offer_expired", "this offer is over: it was used or given back, or its time is up"
    )


def offer_unreachable() -> ApiError:
    """503: end-to-end mode: no lane leads to the replica that keeps the offer."""
    return ApiError(
        503,
        "service_unavailable",
        "the router that keeps this offer cannot be reached from here: ask for another one",
        code="offer_unreachable",
    )


def offer_exceeded() -> ApiError:
    """413: end-to-end mode: more ciphertext than was asked for."""
    return ApiError(
        413,
        "invalid_request_error",
        "the sealed body is larger than the offer's body_bytes",
        code="offer_exceeded",
        headers=_HANG_UP,
    )


def too_many_open_offers() -> ApiError:
    """429: end-to-end mode: as many as may be are open for this account."""
    return ApiError(
        429,
        "rate_limit_exceeded",
        "too many offers of this account are open at once",
        code="too_many_open_offers",
        retry_after_s=2,
    )


def encryption_unavailable() -> ApiError:
    """503: no key is configured; requests that are not sealed still work."""
    return ApiError(503, "encryption_unavailable", "sealed requests are not available here")


def envelope_unreadable(cause: ApiError) -> ApiError:
    """400: the body did not come, or is over the ceiling; the connection ends where it must."""
    return ApiError(
        400,
        "invalid_request_error",
        f"the sealed body cannot be read: {cause.message}",
        headers=cause.headers,
    )


def envelope_invalid() -> ApiError:
    """400: no envelope."""
    return ApiError(
        400,
        "invalid_sealed_envelope",
        "the body is no sealed envelope: kid, ephemeral_public_key and ciphertext, in base64",
    )


def kid_mismatch() -> ApiError:
    """400: sealed to a key that is not, or no longer, accepted."""
    return ApiError(
        400, "kid_mismatch", "the request is sealed to another key: read /v1/encryption-key again"
    )


def decryption_failed() -> ApiError:
    """400: the box is not authentic."""
    return ApiError(400, "decryption_failed", "the sealed body does not open")


def envelope_misdirected() -> ApiError:
    """400: an authentic box whose header is for something else."""
    return ApiError(
        400,
        "invalid_sealed_envelope",
        "the header inside the box is not one of a request to this route with this credential",
        code="sealed_header_mismatch",
    )


def envelope_stale() -> ApiError:
    """400: an authentic box of another time."""
    return ApiError(
        400,
        "invalid_sealed_envelope",
        "the request was sealed too long ago, or by a clock that is ahead",
        code="sealed_request_expired",
    )


def envelope_replayed() -> ApiError:
    """400: it came before; also a retry is sealed anew."""
    return ApiError(
        400,
        "invalid_sealed_envelope",
        "this envelope came before: seal every try anew",
        code="replayed_envelope",
    )


def encryption_failed() -> ApiError:
    """500: the answer could not be sealed, and is not sent in the clear instead."""
    return ApiError(500, "encryption_failed", "the answer could not be sealed")
