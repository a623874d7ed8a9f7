"""Every way in which a request can be refused: closed words, statuses and sentences.

One table (http-api section 4, routing sections 8 and 10). Nothing here comes from a provider.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum

from darkbloom_router.model import Demand, Gate, OwnerPolicy

MIN_RETRY_S = 2


class Reason(IntEnum):
    """Why; the numbers are those of `router.v1.RefusalReason`."""

    UNSPECIFIED = 0
    MACHINE_BUSY = 1
    NO_PROVIDER = 2
    MODEL_TOO_LARGE = 3
    TTFT_TOO_SLOW = 4
    QUEUE_FULL = 5
    QUEUE_DEADLINE = 6
    ROUTING_SATURATED = 7
    CONTEXT_EXCEEDED = 8
    PROMPT_TOO_LONG = 9
    OVERSIZED_REQUEST = 10
    DEADLINE_UNREACHABLE = 11
    FIRST_CHUNK_TIMEOUT = 12
    DISPATCH_EXHAUSTED = 13
    CLIENT_ERROR = 14
    TEMPLATE_RENDER_FAILED = 15
    DRAINING = 16
    ENCRYPTION_FAILURE = 17
    PRICE = 18
    MACHINE_OFFLINE = 20
    MODEL_NOT_LOADED = 21
    OFFER_EXPIRED = 22


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the consumer will see."""

    http_status: int
    kind: str
    """`type` of the error body."""
    code: str
    reason: Reason
    message: str
    retry_after_s: int | None = None

    def after(self, seconds: int) -> "Refusal":
        """Return the same with another Retry-After."""
        return replace(self, retry_after_s=seconds)


def _limited(code: str, reason: Reason, message: str) -> Refusal:
    return Refusal(429, "rate_limit_exceeded", code, reason, message, MIN_RETRY_S)


def _invalid(status: int, code: str, reason: Reason, message: str) -> Refusal:
    return Refusal(status, "invalid_request_error", code, reason, message)


def _fault(status: int, retry_after_s: int | None, reason: Reason, message: str) -> Refusal:
    return Refusal(status, "provider_error", "provider_error", reason, message, retry_after_s)


MACHINE_BUSY = _limited(
    "machine_busy", Reason.MACHINE_BUSY, "every machine that serves this model is busy"
)
NO_PROVIDER = _limited(
    "no_provider", Reason.NO_PROVIDER, "no machine can serve this model at the moment"
)
QUEUE_FULL = _limited(
    "queue_full", Reason.QUEUE_FULL, "too many requests wait for this model already"
)
QUEUE_DEADLINE = _limited(
    "queue_deadline", Reason.QUEUE_DEADLINE, "no machine became free before the deadline"
)
SATURATED = _limited(
    "routing_saturated", Reason.ROUTING_SATURATED, "too many requests are open at once"
)
TTFT_TOO_SLOW = _limited(
    "ttft_too_slow", Reason.TTFT_TOO_SLOW, "no machine would begin to answer in time"
)
PROMPT_TOO_LONG = _limited(
    "prompt_too_long", Reason.PROMPT_TOO_LONG, "this request is larger than any machine can hold"
)
OVERSIZED = _limited(
    "oversized_request", Reason.OVERSIZED_REQUEST, "no machine has room for a request of this size"
)
DEADLINE_UNREACHABLE = _limited(
    "deadline_unreachable", Reason.DEADLINE_UNREACHABLE, "no machine can answer in time"
)
FIRST_CHUNK_TIMEOUT = _limited(
    "first_chunk_timeout", Reason.FIRST_CHUNK_TIMEOUT, "no machine began to answer in time"
)
OWN_MACHINE_BUSY = Refusal(
    429, "machine_busy", "machine_busy", Reason.MACHINE_BUSY, "your machine is busy", MIN_RETRY_S
)
OWN_MACHINE_OFFLINE = Refusal(
    503,
    "machine_offline",
    "machine_offline",
    Reason.MACHINE_OFFLINE,
    "none of your machines can serve now",
    30,
)
MACHINE_NOT_FOUND = Refusal(
    404,
    "machine_not_found",
    "machine_not_found",
    Reason.MACHINE_OFFLINE,
    "no machine of yours is connected under this id",
)
OWN_MODEL_NOT_LOADED = Refusal(
    503,
    "model_not_loaded",
    "model_not_loaded",
    Reason.MODEL_NOT_LOADED,
    "none of your machines has this model ready",
    15,
)
UNAVAILABLE = Refusal(
    503,
    "model_unavailable",
    "model_unavailable",
    Reason.NO_PROVIDER,
    "this model is not available",
)
TOO_LARGE = replace(
    UNAVAILABLE,
    reason=Reason.MODEL_TOO_LARGE,
    message="this model fits on no connected machine",
)
INCAPABLE = replace(
    UNAVAILABLE,
    code="model_capability_unsupported",
    message="no machine supports what this request asks of the model",
)
DRAINING = _limited("draining", Reason.DRAINING, "this replica is leaving").after(3)
CONTEXT_EXCEEDED = _limited(
    "context_exceeded",
    Reason.CONTEXT_EXCEEDED,
    "prompt and answer together are longer than the context of this model",
)
REJECTED_MODEL = _limited(
    "machine_busy", Reason.MACHINE_BUSY, "this model takes no requests at the moment"
)
CLIENT_ERROR = _invalid(
    400, "invalid_request_error", Reason.CLIENT_ERROR, "the model refused this request as invalid"
)
SEALED_HEADER = _invalid(
    400,
    "invalid_request_error",
    Reason.CLIENT_ERROR,
    "the header of the sealed request is not what its offer asked for",
)
UNSUPPORTED_SCHEMA = _invalid(
    400,
    "unsupported_schema",
    Reason.CLIENT_ERROR,
    "a json schema of this request cannot be enforced",
)
MEDIA_TOO_LARGE = _invalid(413, "payload_too_large", Reason.CLIENT_ERROR, "media is too large")
PAYLOAD_TOO_LARGE = _invalid(
    413, "payload_too_large", Reason.CLIENT_ERROR, "no machine takes a request of this size"
)
TEMPLATE_FAILED = _invalid(
    422,
    "model_capability",
    Reason.TEMPLATE_RENDER_FAILED,
    "the chat template of this model cannot render this request",
)
BOUND_EXCEEDED = _invalid(
    400,
    "invalid_request_error",
    Reason.PROMPT_TOO_LONG,
    "the prompt has more tokens than were reserved for it",
)
PROVIDER_LOST = _fault(502, None, Reason.DISPATCH_EXHAUSTED, "the machine that served it was lost")
PROVIDER_FAILED = _fault(502, None, Reason.DISPATCH_EXHAUSTED, "every machine failed to answer")
PROVIDER_UNAVAILABLE = _fault(
    503, MIN_RETRY_S, Reason.DISPATCH_EXHAUSTED, "every machine that was tried is unavailable"
)
PROVIDER_TIMEOUT = _fault(504, None, Reason.DISPATCH_EXHAUSTED, "every machine timed out")
ENCRYPTION_FAILED = _fault(
    502, None, Reason.ENCRYPTION_FAILURE, "no machine answered with a valid envelope"
)
TOO_DEAR = Refusal(
    402,
    "provider_error",
    "provider_error",
    Reason.PRICE,
    "every machine that could answer charges more: insufficient funds for provider price",
)
OFFER_EXPIRED = Refusal(
    410,
    "offer_expired",
    "offer_expired",
    Reason.OFFER_EXPIRED,
    "this offer is over: it was used or given back, or its time is up",
)
INTERNAL = Refusal(
    500,
    "internal_error",
    "internal_error",
    Reason.UNSPECIFIED,
    "the request could not be understood by the router",
)

_CAPACITY = frozenset(
    {
        Gate.NO_HEADROOM,
        Gate.FREE_MEMORY,
        Gate.CAPACITY_COOLDOWN,
        Gate.SLOT_RELOADING,
        Gate.OFFLINE,
    }
)
_ABILITY = frozenset({Gate.TRAIT_FLOOR, Gate.VISION})
_NOT_READY = frozenset({Gate.NOT_SERVING_MODEL, Gate.SLOT_RELOADING, Gate.SLOT_CRASHED})
_ELSEWHERE = frozenset({Gate.NOT_SERVING_MODEL, Gate.EXCLUDED, Gate.ALLOWLIST})


def worth_waiting(gates: Mapping[Gate, int]) -> bool:
    """Return whether a place may come free by itself: somebody is only full or busy."""
    return any(gates.get(gate) for gate in (Gate.NO_HEADROOM, Gate.FREE_MEMORY))


def for_gates(gates: Mapping[Gate, int], demand: Demand) -> Refusal:
    """Return the answer when a scan found nobody, from who failed where."""
    if demand.policy is OwnerPolicy.EXCLUSIVE:
        return _for_own({gate for gate, count in gates.items() if count}, demand)
    relevant = {gate for gate, count in gates.items() if count and gate not in _ELSEWHERE}
    if relevant == {Gate.MODEL_TOO_LARGE}:
        return TOO_LARGE
    if relevant and relevant <= _ABILITY:
        return INCAPABLE
    if relevant & _CAPACITY:
        return MACHINE_BUSY
    return TTFT_TOO_SLOW if Gate.TTFT_CEILING in relevant else NO_PROVIDER


def _for_own(shut: set[Gate], demand: Demand) -> Refusal:
    """Return the answer of self-route, from where the caller's own machines failed."""
    own = shut - {Gate.ALLOWLIST, Gate.EXCLUDED}
    if not own:
        return MACHINE_NOT_FOUND if demand.machine else OWN_MACHINE_OFFLINE
    if own & {Gate.NO_HEADROOM, Gate.FREE_MEMORY}:
        return OWN_MACHINE_BUSY
    if own & _NOT_READY:
        return OWN_MODEL_NOT_LOADED
    if own <= _ABILITY:
        return INCAPABLE
    return TOO_LARGE if own == {Gate.MODEL_TOO_LARGE} else OWN_MACHINE_OFFLINE
