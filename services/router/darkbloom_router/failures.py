"""What to do about a failed attempt before its first content (routing section 10).

A provider's error is closed words; which of them mean "the request is wrong", "I am full" and "I am
broken" is decided here, once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum, IntEnum, auto

from darkbloom_router import refusals
from darkbloom_router.model import Blame
from darkbloom_router.refusals import Refusal

MAX_CAPACITY_FAILURES = 3
MAX_TIMEOUTS = 3
_BAD_REQUEST = 400
MAX_UNPROVEN_LATE = 2
"""Machines that may say they would be late before the next one needs a forecast to the contrary."""


class Code(IntEnum):
    """The numbers of `router.v1.FailureCode`."""

    UNSPECIFIED = 0
    INVALID_REQUEST = 1
    INVALID_MEDIA = 2
    MEDIA_TOO_LARGE = 3
    UNSUPPORTED_MEDIA = 4
    TEMPLATE_RENDER = 5
    MODEL_UNAVAILABLE = 6
    CAPACITY = 7
    CANCELLED = 8
    ENCRYPTION_FAILURE = 9
    GENERATION_FAILURE = 10
    INTERNAL_FAILURE = 11
    BOUND_EXCEEDED = 12


class Detail(IntEnum):
    """The numbers of `router.v1.FailureReason` that change what is done."""

    UNSPECIFIED = 0
    JINJA_TEMPLATE = 1
    JINJA_CHANNEL_TAGS = 2
    JINJA_NULL_BRIDGE = 3
    MODEL_LOAD = 4
    CAPACITY_TIMEOUT = 5
    QUEUE_FULL = 6
    TOKEN_BUDGET_EXHAUSTED = 7
    REQUEST_EXCEEDS_CONTEXT = 8
    REQUEST_EXCEEDS_NODE = 9
    CAPACITY_BUSY = 10
    DEADLINE_UNREACHABLE = 11
    DRAINING = 12
    CLIENT_ERROR = 14
    SENDER_KEY_REUSED = 16
    HEADER_EXPIRED = 17
    HEADER_MISMATCH = 18
    TOOL_NONCOMPLIANCE = 15
    UNSUPPORTED_PARAMETER = 19
    UNSUPPORTED_SCHEMA = 20


class Kind(Enum):
    """How a failure moves the ladder."""

    FINAL = auto()
    """No other machine would do better."""
    CAPACITY = auto()
    """Another machine may have room; only a few are tried."""
    FREE = auto()
    """Nobody's fault; costs nothing."""
    LATE = auto()
    """It says that it cannot be in time; costs nothing, but others then need better evidence."""
    PRICE = auto()
    """It charges more than the money reaches; costs nothing."""
    SIZE = auto()
    """This machine takes no body of this size; others may."""
    TIMEOUT = auto()
    """Our own patience ended; only a few are tried."""
    FAULT = auto()
    """The machine failed; others are tried until none is left."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One judged failure."""

    kind: Kind
    refusal: Refusal
    """What the consumer sees if it stays the last word."""
    word: str
    """Closed word for metrics."""
    draining: bool = False
    blame: Blame = Blame.NOBODY
    """Which memory of faults it feeds."""


LOST = Failure(Kind.FAULT, refusals.PROVIDER_LOST, "provider_lost")
LEFT = Failure(Kind.FREE, refusals.PROVIDER_UNAVAILABLE, "provider_left")
STALE = Failure(Kind.FREE, refusals.PROVIDER_UNAVAILABLE, "verdict_lapsed")
MOVED = Failure(Kind.FREE, refusals.MACHINE_BUSY, "reservation_refused")
STALLED = Failure(
    Kind.TIMEOUT, refusals.FIRST_CHUNK_TIMEOUT, "first_chunk_timeout", blame=Blame.MACHINE
)
OUT_OF_TIME = Failure(Kind.TIMEOUT, refusals.FIRST_CHUNK_TIMEOUT, "deadline")
PROTOCOL = Failure(Kind.FAULT, refusals.PROVIDER_FAILED, "protocol", blame=Blame.MACHINE)
VIOLATION = Failure(Kind.FAULT, refusals.ENCRYPTION_FAILED, "encryption_failure")
CONGESTED = Failure(Kind.CAPACITY, refusals.MACHINE_BUSY, "link_congested")
UNTRUSTED = Failure(Kind.FREE, refusals.PROVIDER_UNAVAILABLE, "verdict_declined")
TOO_DEAR = Failure(Kind.PRICE, refusals.TOO_DEAR, "price")
ENDED_EMPTY = Failure(
    Kind.FAULT, refusals.PROVIDER_FAILED, "terminal_without_answer", blame=Blame.MACHINE
)

_DRAINING = Failure(Kind.FREE, refusals.PROVIDER_UNAVAILABLE, "draining", draining=True)
_LATE = Failure(Kind.LATE, refusals.DEADLINE_UNREACHABLE, "deadline_unreachable", blame=Blame.LATE)
_CONTEXT = Failure(Kind.FINAL, refusals.OVERSIZED, "context_exceeded")
_TEMPLATE = Failure(Kind.FINAL, refusals.TEMPLATE_FAILED, "template_render")
_BOUND = Failure(Kind.FINAL, refusals.BOUND_EXCEEDED, "bound_exceeded")
_MEDIA = Failure(Kind.FINAL, refusals.MEDIA_TOO_LARGE, "media_too_large")
_BODY = Failure(Kind.SIZE, refusals.PAYLOAD_TOO_LARGE, "payload_too_large")
_NODE = Failure(Kind.CAPACITY, refusals.OVERSIZED, "exceeds_node")
_CLIENT = Failure(Kind.FINAL, refusals.CLIENT_ERROR, "client_error")
_SCHEMA = Failure(Kind.FINAL, refusals.UNSUPPORTED_SCHEMA, "unsupported_schema")
_BUSY = Failure(Kind.CAPACITY, refusals.MACHINE_BUSY, "capacity", blame=Blame.FULL)
_FULL = Failure(Kind.CAPACITY, refusals.OVERSIZED, "capacity", blame=Blame.FULL)
_UNLOADED = Failure(Kind.FAULT, refusals.PROVIDER_UNAVAILABLE, "model_load", blame=Blame.LOAD)
_UNRULY = Failure(Kind.FAULT, refusals.PROVIDER_FAILED, "tool_noncompliance")
_SEALING = Failure(
    Kind.FAULT, refusals.ENCRYPTION_FAILED, "encryption_failure", blame=Blame.MACHINE
)
_TIMEOUT = Failure(Kind.FAULT, refusals.PROVIDER_TIMEOUT, "provider_timeout", blame=Blame.MACHINE)
_DOWN = Failure(Kind.FAULT, refusals.PROVIDER_UNAVAILABLE, "provider_error", blame=Blame.MACHINE)
_BROKEN = Failure(Kind.FAULT, refusals.PROVIDER_FAILED, "provider_error", blame=Blame.MACHINE)

_HEADER = Failure(Kind.FINAL, refusals.SEALED_HEADER, "sealed_header")

_BY_DETAIL: Mapping[int, Failure] = {
    Detail.DRAINING: _DRAINING,
    Detail.DEADLINE_UNREACHABLE: _LATE,
    Detail.REQUEST_EXCEEDS_CONTEXT: _CONTEXT,
    Detail.JINJA_TEMPLATE: _TEMPLATE,
    Detail.JINJA_CHANNEL_TAGS: _TEMPLATE,
    Detail.JINJA_NULL_BRIDGE: _TEMPLATE,
    Detail.CLIENT_ERROR: _CLIENT,
    Detail.UNSUPPORTED_PARAMETER: _CLIENT,
    Detail.UNSUPPORTED_SCHEMA: _SCHEMA,
    Detail.QUEUE_FULL: _BUSY,
    Detail.CAPACITY_BUSY: _BUSY,
    Detail.CAPACITY_TIMEOUT: _BUSY,
    Detail.TOKEN_BUDGET_EXHAUSTED: _FULL,
    Detail.REQUEST_EXCEEDS_NODE: _NODE,
    Detail.MODEL_LOAD: _UNLOADED,
    Detail.TOOL_NONCOMPLIANCE: _UNRULY,
}
_BY_CODE: Mapping[int, Failure] = {
    Code.INVALID_REQUEST: _CLIENT,
    Code.INVALID_MEDIA: _CLIENT,
    Code.UNSUPPORTED_MEDIA: _CLIENT,
    Code.MEDIA_TOO_LARGE: _MEDIA,
    Code.TEMPLATE_RENDER: _TEMPLATE,
    Code.BOUND_EXCEEDED: _BOUND,
    Code.CAPACITY: _FULL,
    Code.ENCRYPTION_FAILURE: _SEALING,
}
_BY_STATUS: Mapping[int, Failure] = {413: _BODY, 503: _DOWN, 504: _TIMEOUT}
_HEADER_FAULTS = frozenset(
    {Detail.SENDER_KEY_REUSED, Detail.HEADER_EXPIRED, Detail.HEADER_MISMATCH}
)
_UNPROVOKED = frozenset({_BUSY, _UNLOADED, _DRAINING})
"""What no content of a request brings about."""


def judge(code: int, detail: int, status: int) -> Failure:
    """Return what a provider's error means: the detail decides, then the code, then the status.

    Numbers that nobody knows are a fault of the machine.
    """
    return _BY_DETAIL.get(detail) or _BY_CODE.get(code) or _BY_STATUS.get(status, _BROKEN)


def judge_promised(code: int, detail: int, status: int) -> Failure:
    """Return what a provider's error means where the consumer himself has sealed.

    Nobody between the two ends has read the request: any bytes may be in the box, or a header that
    does not say what the offer says, or a prompt of another length than was told. So a word that
    content alone can provoke blames no machine; else one consumer could shut them all, for free.
    What the router sees for itself (a lost stream, silence, a broken protocol) counts as always.
    """
    failure = judge(code, detail, status)
    if failure is _SEALING and status == _BAD_REQUEST and detail in _HEADER_FAULTS:
        # The next machine would find the same header; a box that does not open may be its fault.
        return _HEADER
    return failure if failure in _UNPROVOKED else replace(failure, blame=Blame.NOBODY)


@dataclass(slots=True)
class Ladder:
    """What has gone wrong with one request so far.

    Attributes:
        hard_ttft: Whether one machine that does not begin in time ends the request.
    """

    max_attempts: int
    hard_ttft: bool = False
    attempts: int = 0
    capacity: int = 0
    timeouts: int = 0
    unreachable: int = 0
    """Distinct machines that said they cannot be in time."""
    final: Refusal | None = None
    fault: Refusal | None = None
    size: Refusal | None = None
    full: Refusal | None = None
    late: Refusal | None = None
    dear: Refusal | None = None
    undecided: Refusal | None = None
    feasible_s: float | None = None
    """When a machine that refused could, by its own word."""

    def note(self, failure: Failure) -> None:
        """Remember a failed attempt."""
        match failure.kind:
            case Kind.FINAL:
                self.final = self.final or failure.refusal
            case Kind.FAULT:
                # A machine's own timeout stays the answer, whatever fails after it.
                if self.fault is not refusals.PROVIDER_TIMEOUT:
                    self.fault = failure.refusal
            case Kind.SIZE:
                self.size = failure.refusal
            case Kind.CAPACITY:
                self.capacity += 1
                at_limit = self.capacity >= MAX_CAPACITY_FAILURES
                self.full = refusals.OVERSIZED if at_limit else failure.refusal
            case Kind.TIMEOUT:
                self.timeouts += 1
                self.late = refusals.TTFT_TOO_SLOW if self.hard_ttft else failure.refusal
            case Kind.LATE:
                self.unreachable += 1
                self.late = self.late or failure.refusal
            case Kind.PRICE:
                self.dear = failure.refusal
            case Kind.FREE:
                self.undecided = self.undecided or failure.refusal

    @property
    def ended(self) -> bool:
        """Whether another attempt would be one too many."""
        return (
            self.final is not None
            or self.attempts >= self.max_attempts
            or self.capacity >= MAX_CAPACITY_FAILURES
            or self.timeouts >= (1 if self.hard_ttft else MAX_TIMEOUTS)
        )

    @property
    def needs_evidence(self) -> bool:
        """Whether the next machine must be believed to be in time."""
        return self.unreachable >= MAX_UNPROVEN_LATE

    @property
    def verdict(self) -> Refusal | None:
        """The answer by precedence: client error, fault, no room, deadline, price.

        None where no attempt has decided anything: then the fleet as it stands is the answer.
        """
        return self.final or self.fault or self.size or self.full or self.late or self.dear
