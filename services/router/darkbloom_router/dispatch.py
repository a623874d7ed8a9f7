"""From OPEN to the first content: gates, a place, an offer, and another one when it fails.

Every method is synchronous and runs on the one loop, driven by frames and timers; a request has no
task. Choosing and debiting is one step without a wait in between, so no place is given twice.
Invariants: at most one live attempt per request; a place is credited exactly once; after the first
content a request never moves; a retry never waits in line, but for machines on their way back.
"""

from collections.abc import Callable, Iterable
from functools import partial

from darkbloom.router.v1.gateway_lane_pb2 import AbandonReason, Open
from darkbloom.router.v1.provider_link_pb2 import CancelReason
from darkbloom_mesh.errors import InvalidArgumentError

from darkbloom_router import convert, failures, refusals
from darkbloom_router.attempts import (
    PREFIX_SHIFT,
    Attempt,
    GatewayLink,
    Phase,
    Request,
)
from darkbloom_router.claims import Claims
from darkbloom_router.conditions import View
from darkbloom_router.decisions import Decisions
from darkbloom_router.ends import TIMED_OUT, Ends
from darkbloom_router.entry import DispatchLimits, excluded, reserve_s, time_left, unservable
from darkbloom_router.failures import Ladder
from darkbloom_router.fleet import Fleet
from darkbloom_router.last_words import LastWords
from darkbloom_router.meter import Meter
from darkbloom_router.model import Gate
from darkbloom_router.offers import Offers
from darkbloom_router.placement import Choice
from darkbloom_router.plans import Plan, feasible_only
from darkbloom_router.provider import Provider
from darkbloom_router.queueing import Line, Passes, Trigger
from darkbloom_router.refusals import Refusal
from darkbloom_router.replicas.lane import ProviderLane
from darkbloom_router.requests import Requests
from darkbloom_router.returning import Returning
from darkbloom_router.settlement import Cause
from darkbloom_router.spans import Spans
from darkbloom_router.timers import Timers
from darkbloom_router.warm.targets import Signal


def _unnoticed(*_what: object) -> None:
    """Nobody wants to know."""


class Dispatcher:
    """Finds providers for requests.

    Args:
        fleet: Who is there.
        requests: Where requests are.
        ends: How attempts end.
        line: Who waits.
        lanes: Lanes of the connected providers.
        timers: Deadlines.
        meter: Counters.
        spans: Traces.
        limits: Bounds.
        offers: Makes attempts of choices.
        decisions: Chooses, and checks itself.
        last_words: Refuses.
        claims: Hands promised offers over.
        unix_now: Wall clock, for deadlines that others name.
    """

    def __init__(
        self,
        fleet: Fleet,
        requests: Requests,
        ends: Ends,
        line: Line,
        lanes: dict[Provider, ProviderLane],
        timers: Timers,
        meter: Meter,
        spans: Spans,
        *,
        limits: DispatchLimits,
        offers: Offers,
        decisions: Decisions,
        last_words: LastWords,
        claims: Claims,
        unix_now: Callable[[], float],
    ) -> None:
        self.draining = False
        self.returning = Returning(timers.now)
        self.line = line
        self._fleet = fleet
        self._requests = requests
        self._ends = ends
        self._lanes = lanes
        self._timers = timers
        self._meter = meter
        self._spans = spans
        self._limits = limits
        self._offers = offers
        self._decisions = decisions
        self.last_words = last_words
        self.claims = claims
        self._unix_now = unix_now
        self._passes = Passes(timers, self._serve_line, line.depth, line.hold_s)
        line.longer = lambda build: ends.service_times.depth(build, fleet.index(build).active)
        line.displaced = partial(last_words.refuse, refusal=refusals.QUEUE_FULL)
        self._free: Callable[[Request, Cause], None] = _unwired
        self._sign: Callable[[str, Signal], None] = _unnoticed
        self._waits: Callable[[str], None] = _unnoticed

    def wire(
        self,
        free: Callable[[Request, Cause], None],
        *,
        sign: Callable[[str, Signal], None] = _unnoticed,
        waits: Callable[[str], None] = _unnoticed,
    ) -> None:
        """Connect what lies outside.

        Args:
            free: Gives money back.
            sign: Hears what shows that a build has too few machines.
            waits: Hears of each build that somebody begins to wait for.
        """
        self._free, self._sign, self._waits = free, sign, waits
        self.last_words.free, self.last_words.sign = free, sign

    def sign(self, build: str, signal: Signal) -> None:
        """Pass on what shows that a build has too few machines."""
        self._sign(build, signal)

    @property
    def live(self) -> int:
        """How many requests have not had their last frame."""
        return len(self._requests)

    def open(self, gateway: GatewayLink, stream: int, message: Open) -> None:
        """Find a provider for a request, or say why there is none."""
        if stream >> PREFIX_SHIFT != gateway.prefix or stream in gateway.requests:
            self._meter.ignored("gateway", "foreign_stream")
            return
        try:
            demand = convert.demand(message)
        except InvalidArgumentError:
            self.last_words.unreadable(gateway, stream)
            return
        refusal = self._unwelcome(gateway, message)
        if refusal is not None:
            self.last_words.turn_away(gateway, stream, message, refusal)
            return

        now = self._timers.now()
        request = Request(
            request_id=message.request_id,
            stream=stream,
            gateway=gateway,
            demand=demand,
            deadline=now + time_left(self._limits, message, demand.prompt_tokens, self._unix_now()),
            ladder=Ladder(self._limits.max_attempts, hard_ttft=self._fleet.rules.ttft_ceiling),
            message=message,
            opened_at=now,
            opened_unix_ns=self._spans.now_ns(),
            traceparent=message.traceparent,
            reserve_s=reserve_s(message),
            excluded=excluded(message, self._fleet),
        )
        self._requests.add(request)
        request.timer = self._timers.at(request.deadline, partial(self._deadline, request))

        refusal = unservable(demand, self._fleet.catalog.builds, self._limits)
        if refusal is not None:
            self.last_words.refuse(request, refusal)
        elif self.line.length(demand.build) and not demand.free:
            # Who came first is served first.
            self._queue(request)
            self._passes.run(demand.build, Trigger.KICK)
        else:
            self._place(request, first=True)

    def abandon(self, request: Request, reason: AbandonReason.ValueType) -> None:
        """Forget a request that the gateway gave up; nothing more is said about it."""
        held = reason != AbandonReason.ABANDON_REASON_HOLD_REFUSED
        self._ends.stop_all(request, CancelReason.CANCEL_REASON_CLIENT_GONE)
        self._requests.finish(request)
        if held and request.ladder.attempts:
            self._free(request, Cause.CLIENT_GONE)

    def give_up(self, attempt: Attempt, refusal: Refusal) -> None:
        """End a request that makes no sense; the provider is not to blame."""
        self._ends.stop_all(attempt.request, TIMED_OUT)
        self.last_words.refuse(attempt.request, refusal)

    def retry(self, request: Request) -> None:
        """Offer another provider after a failed attempt, or refuse; nobody waits twice.

        Where the consumer himself has sealed, only he can seal again.
        """
        if request.ladder.ended or request.promised:
            verdict = request.ladder.verdict or request.ladder.undecided
            self.last_words.refuse(request, verdict or refusals.NO_PROVIDER)
        else:
            self._place(request, first=False)

    def drain_lines(self, provider: Provider, trigger: Trigger = Trigger.UNKNOWN) -> None:
        """Serve those who wait for builds of a provider that has changed."""
        for build in list(provider.candidates):
            self._passes.run(build, trigger, provider.account_id)

    def left(self, builds: Iterable[str]) -> None:
        """Refuse who waits for builds that nobody could serve any more: a provider is gone."""
        for build in builds:
            for request in self.line.waiting(build):
                gates = self._decisions.tally(build, self._view(request))
                if not (refusals.worth_waiting(gates) or self.returning.wait_s(build)):
                    self.line.leave(request, "unservable")
                    self.last_words.refuse_for(request, gates)

    def drain_line(self, build: str) -> None:
        """Serve those who wait for a build."""
        self._passes.run(build, Trigger.KICK)

    def _serve_line(self, build: str, owner: str) -> None:
        """Offer places to those who wait, in order; who cannot be served keeps his place."""
        self._fleet.advance(self._timers.now())
        roomiest = self._fleet.index(build).roomiest
        room = partial(roomiest, level=self._fleet.rules.min_trust.value)
        for request in self.line.servable(build, owner, room):
            choice = self._scan(request, request.demand.build)
            if choice.candidate is None:
                self.line.failed(request)
                continue
            self.line.leave(request, "served")
            self._spans.record("router.queue_wait", request.traceparent, request.opened_unix_ns)
            self._give(request, choice)

    def still_trusted(self, attempt: Attempt) -> bool:
        """Check once more, just before a body is sent."""
        provider = attempt.provider
        return (
            provider in self._lanes
            and provider.status == "online"
            and provider.verdict is not None
            and attempt.verdict.expires_at > self._timers.now()
            and attempt.verdict.verdict_id not in self._fleet.revoked
        )

    def uncommit(self, attempt: Attempt) -> None:
        """Take a commit back: the edge has handed out nothing, so the request may still move."""
        request = attempt.request
        request.committed = False
        attempt.phase = Phase.ACCEPTED
        request.timer = self._timers.at(request.deadline, partial(self._deadline, request))

    def _unwelcome(self, gateway: GatewayLink, message: Open) -> Refusal | None:
        if self.draining:
            return refusals.DRAINING
        if len(gateway.requests) >= self._limits.requests_per_lane:
            return refusals.SATURATED
        earlier = self._requests.get(message.request_id)
        if earlier is not None and not self._superseded(earlier, gateway):
            return refusals.INTERNAL
        # A gateway that lost its lane and came back: the hold lives on in the new request.
        self._requests.adopt(message.request_id)
        return None

    def _superseded(self, earlier: Request, gateway: GatewayLink) -> bool:
        """Let go of a request that its gateway opens again on a newer lane.

        The gateway knows before us that the old lane is dead. What was opened there is paid for
        under this id, so then the id cannot be used again.
        """
        attempt = earlier.attempt
        if earlier.gateway is gateway or (attempt is not None and attempt.opened.frames):
            return False
        self._ends.stop_all(earlier, CancelReason.CANCEL_REASON_CLIENT_GONE)
        self._requests.finish(earlier)
        return True

    def _view(self, request: Request) -> View:
        return View(
            request.demand,
            self._fleet.rules,
            self._timers.now(),
            request.excluded,
            request.deadline,
        )

    def _scan(self, request: Request, build: str) -> Choice:
        view, started_ns = self._view(request), self._spans.now_ns()
        choice = self._decisions.choose(build, view)
        if request.ladder.needs_evidence:
            choice = feasible_only(choice, view)
        self._spans.record(
            "router.select",
            request.traceparent,
            started_ns,
            candidates=choice.priced,
            outcome=choice.path.value,
        )
        return choice

    def _place(self, request: Request, *, first: bool) -> None:
        demand = request.demand
        if not first and (planned := self._planned(request)) is not None:
            self._give(request, planned)
            return
        choice = self._scan(request, demand.build)
        if choice.candidate is None and demand.fallback_build:
            other = self._scan(request, demand.fallback_build)
            choice = other if other.candidate is not None else choice
        if choice.candidate is not None:
            self._give(request, choice)
            return

        gates = dict(choice.tally)
        if not first:
            self._exhausted(request, gates)
            return
        if not demand.free and self._may_wait(request, gates):
            self._queue(request, gates)
        elif not self._awaits_return(request, gates):
            self.last_words.refuse_for(request, gates)

    def _awaits_return(self, request: Request, gates: dict[Gate, int]) -> bool:
        """Stand in line for machines that have lost their replica; False where there are none."""
        demand = request.demand
        wait_s = self.returning.wait_s(demand.build)
        if not wait_s or demand.free or request.ladder.verdict is not None:
            return False
        self._queue(request, gates, wait_s)
        return True

    def _planned(self, request: Request) -> Choice | None:
        """Return a runner-up of the first decision who passes now, other versions first."""
        plan, ladder = request.plan, request.ladder
        if plan is None or ladder.needs_evidence:
            return None
        view, avoided = self._view(request), request.demand.avoid_version
        if avoided:
            other = plan.take(view, lambda row: row.provider.version != avoided)
            if other is not None:
                return other
        return plan.take(view, lambda _row: True)

    def _exhausted(self, request: Request, gates: dict[Gate, int]) -> None:
        """Refuse a request whose attempts have failed and whom nobody else can take."""
        ladder = request.ladder
        if self._awaits_return(request, gates):
            return
        if ladder.verdict is not None:
            self.last_words.refuse(request, ladder.verdict, gates)
        elif ladder.undecided is None or refusals.worth_waiting(gates):
            # Nobody failed: it has moved about in a fleet that is full.
            self.last_words.refuse_for(request, gates)
        else:
            self.last_words.refuse(request, ladder.undecided, gates)

    def _give(self, request: Request, choice: Choice) -> None:
        """Offer a choice; who came close in the first one is kept in mind."""
        if request.plan is None:
            request.plan = Plan(choice)
        candidate = choice.candidate
        if candidate is not None and not candidate.slot_state.warm:
            self._sign(candidate.build.build, Signal.COLD_DISPATCH)
        self._offers.make(request, choice)

    def _may_wait(self, request: Request, gates: dict[Gate, int]) -> bool:
        """Return whether a place may come free in time, as far as anybody knows."""
        if not self._limits.queue_before_shed or not refusals.worth_waiting(gates):
            return False
        if self._decisions.never_fits(request.demand):
            return False
        build = request.demand.build
        running = self._fleet.index(build).active
        wait_s = self._ends.service_times.wait_s(build, self.line.length(build), running)
        return wait_s is None or wait_s <= request.deadline - self._timers.now()

    def _queue(
        self,
        request: Request,
        gates: dict[Gate, int] | None = None,
        wait_s: float = float("inf"),
    ) -> None:
        if not self.line.join(request, partial(self._waited_out, request), wait_s):
            self.last_words.refuse(request, refusals.QUEUE_FULL, gates)
        else:
            self._waits(request.demand.build)

    def _waited_out(self, request: Request) -> None:
        self.line.leave(request, "timeout")
        gates = self._decisions.tally(request.demand.build, self._view(request))
        self.last_words.refuse_for(request, gates)

    def _deadline(self, request: Request) -> None:
        if request.committed:
            return
        if request.attempt is None:
            self.last_words.refuse(request, refusals.QUEUE_DEADLINE)
            return
        # The request's clock, not the machine's: it may have had no time of its own.
        request.ladder.note(failures.OUT_OF_TIME)
        build = request.attempt.candidate.build.build
        self._meter.failed(build, failures.OUT_OF_TIME.word)
        self._ends.stop_all(request, TIMED_OUT)
        self.last_words.refuse(request, request.ladder.verdict or refusals.FIRST_CHUNK_TIMEOUT)


def _unwired(_request: object, _cause: object) -> None:
    raise RuntimeError("dispatcher is not wired")
