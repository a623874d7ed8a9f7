"""Requests and their attempts while they live: plain state, looked up by stream number.

A request belongs to the gateway lane that opened it, an attempt also to one provider's lane; a
frame moves one of them only when it came from the lane that owns that end.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from functools import partial

from darkbloom.router.v1.gateway_lane_pb2 import Open
from darkbloom_mesh.lane import Lane
from opentelemetry.trace import SpanContext

from darkbloom_router.failures import Ladder
from darkbloom_router.governor import Ticket
from darkbloom_router.model import Demand, Opened, Signed, Verdict
from darkbloom_router.plans import Plan
from darkbloom_router.provider import Candidate, Provider
from darkbloom_router.replicas.lane import ProviderLane
from darkbloom_router.reservations import Reservation
from darkbloom_router.timers import Timer, Timers

ATTEMPT_BIT = 1 << 63
PREFIX_SHIFT = 40
MAX_PREFIX = 1 << 23


class Phase(IntEnum):
    """How far an attempt has come."""

    RESERVING = -1
    """Another replica, which holds the provider's stream, is asked for a place."""
    OFFERED = 0
    """A place is debited; nothing was sent to the provider."""
    SENT = 1
    ACCEPTED = 2
    COMMITTED = 3
    """The first content went to the gateway."""
    PARKED = 4
    """No frame is relayed any more; only its money is open."""
    DONE = 5


@dataclass(slots=True, eq=False)
class GatewayLink:
    """One gateway worker's lane and what it has open."""

    lane: Lane
    name: str = ""
    worker: int = 0
    prefix: int = 0
    requests: dict[int, "Request"] = field(default_factory=dict)
    """By request stream."""


@dataclass(slots=True, eq=False)
class Request:
    """One request of a gateway, from OPEN to its last frame."""

    request_id: str
    stream: int
    gateway: GatewayLink
    demand: Demand
    deadline: float
    """Monotonic seconds: no first content by then ends it."""
    ladder: Ladder
    opened_at: float
    opened_unix_ns: int = 0
    traceparent: str = ""
    tried: list[SpanContext] = field(default_factory=list)
    """Spans of its attempts that have ended; the next one is linked to them."""
    reserve_s: float = 0.0
    """How long an offer waits for its SEALED; 0 is until the deadline."""
    message: Open = field(default_factory=Open)
    """As it came; shown to replicas that are asked for a place."""
    excluded: set[Provider] = field(default_factory=set)
    attempt: "Attempt | None" = None
    """The one that runs; the one that answers from the first content on."""
    hedge: "Attempt | None" = None
    """A second one that races against it."""
    hedged: bool = False
    """It has had its second offer, or must not have one."""
    plan: Plan | None = None
    """Who else was near in its first decision; kept until the first content."""
    build: str = ""
    """Build of the line it stands in; empty while it stands in none."""
    sealed: bool = False
    """Something was dispatched: from here on the router ends the hold, not the gateway."""
    promised: bool = False
    """End-to-end mode: its offer was made, and no other one follows."""
    claimed: bool = False
    """A gateway has taken the promised offer over; until then nobody listens."""
    committed: bool = False
    routed: bool = False
    """It has had its first offer."""
    queued_at: float = 0.0
    queue_s: float = 0.0
    timer: Timer | None = None
    hedge_timer: Timer | None = None
    queue_timer: Timer | None = None

    @property
    def unclaimed(self) -> bool:
        """Whether an offer waits for whoever claims it."""
        return self.promised and not self.claimed

    @property
    def racers(self) -> list["Attempt"]:
        """Attempts that may still answer: none, one, or two."""
        return [one for one in (self.attempt, self.hedge) if one is not None]


@dataclass(slots=True, eq=False)
class Attempt:
    """One try on one provider."""

    attempt_id: str
    stream: int
    number: int
    request: Request
    candidate: Candidate
    provider: Provider
    lane: ProviderLane
    """The provider's."""
    verdict: Verdict
    reservation: Reservation
    """The place that it holds, to be credited once."""
    price_id: str = ""
    """Row that the offer named; empty: the hold's own."""
    phase: Phase = Phase.OFFERED
    decided: object = None
    """Why it went where it went, in the words of `records`; None where nothing is recorded."""
    outcome: str = ""
    """Closed word for how it ended; `taxonomy` says what it means."""
    ended: bool = False
    """Its end was written down."""
    reached: Phase = Phase.OFFERED
    """How far it had come when it ended."""
    accepted_at: float = 0.0
    """When the provider took it; 0 until then."""
    content_at: float = 0.0
    """When its first content came."""
    ticket: Ticket | None = None
    """Leave to race, where it is a second offer."""
    hinted: bool = False
    """It was chosen for a prefix that may still be cached there."""
    granted: int = 0
    """Chunk frames that the provider may have sent in all."""
    begun: bool = False
    """A preamble has come."""
    relayed: int = 0
    tokens_out: int = 0
    """Completion tokens as the last relayed chunk claims."""
    body_left: int = 0
    final: bool = False
    opened: Opened = field(default_factory=Opened)
    opened_final: bool = False
    """The edge has said its last word."""
    terminal: Signed | None = None
    proven: bool = False
    """The terminal was passed on to the edge."""
    disowned: bool = False
    """The terminal is not to be believed: settle by what was opened alone."""
    started_at: float = 0.0
    started_unix_ns: int = 0
    seen_at: float = 0.0
    timer: Timer | None = None

    def arm(self, timers: Timers, seconds: float, action: Callable[["Attempt"], None]) -> None:
        """Set the one clock of this attempt; the one before is forgotten."""
        if self.timer is not None:
            self.timer.cancel()
        self.timer = timers.after(seconds, partial(action, self))

    @property
    def live(self) -> bool:
        """Whether its frames are still relayed."""
        return self.phase < Phase.PARKED

    @property
    def unheard(self) -> bool:
        """Whether only its gateway knows how much of a promised answer was passed on, if any."""
        return (
            self.request.promised
            and Phase.COMMITTED <= self.phase <= Phase.PARKED
            and not (self.opened.frames or self.opened_final)
        )


class Attempts:
    """Attempts by stream number and by id."""

    def __init__(self, initial_credit: int) -> None:
        self.initial_credit = initial_credit
        self.by_stream: dict[int, Attempt] = {}
        self._by_id: dict[str, Attempt] = {}
        self._by_provider: dict[Provider, dict[int, Attempt]] = {}
        self._counter = 0

    def __len__(self) -> int:
        return len(self.by_stream)

    def next_stream(self) -> int:
        """Return an unused attempt stream number."""
        self._counter += 1
        return ATTEMPT_BIT | self._counter

    def add(self, attempt: Attempt) -> None:
        """Take an attempt in."""
        attempt.granted = self.initial_credit
        self.by_stream[attempt.stream] = attempt
        self._by_id[attempt.attempt_id] = attempt
        self._by_provider.setdefault(attempt.provider, {})[attempt.stream] = attempt

    def remove(self, attempt: Attempt) -> None:
        """Forget an attempt."""
        if self.by_stream.pop(attempt.stream, None) is None:
            return
        self._by_id.pop(attempt.attempt_id, None)
        carried = self._by_provider[attempt.provider]
        del carried[attempt.stream]
        if not carried:
            del self._by_provider[attempt.provider]

    def by_id(self, attempt_id: str) -> Attempt | None:
        """Return an attempt by id."""
        return self._by_id.get(attempt_id)

    def of_provider(self, provider: Provider) -> list[Attempt]:
        """Return the attempts of one provider."""
        return list(self._by_provider.get(provider, {}).values())
