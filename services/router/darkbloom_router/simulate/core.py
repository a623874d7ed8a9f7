"""The router itself, without its network: the same parts as `app` wires, over virtual time."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter, thread_time

from darkbloom.common.v1.frame_pb2 import Frame
from darkbloom_mesh.backoff import Backoff
from darkbloom_mesh.credits import WINDOW
from darkbloom_mesh.telemetry import Metrics

from darkbloom_router.attempts import Attempts
from darkbloom_router.cancels import Cancels
from darkbloom_router.closing import Closing
from darkbloom_router.dispatch import Dispatcher
from darkbloom_router.dispatching import DispatchParts, make_dispatching
from darkbloom_router.downlink import Downlink, Patience
from darkbloom_router.ends import Ends
from darkbloom_router.entry import DispatchLimits
from darkbloom_router.faults.memory import FaultMemory
from darkbloom_router.fleet import Fleet
from darkbloom_router.health import Health
from darkbloom_router.hedging import HedgeLimits
from darkbloom_router.losses import Losses
from darkbloom_router.meter import Meter
from darkbloom_router.model import Rules, Signed
from darkbloom_router.own_prices import OwnPrices
from darkbloom_router.provider import Provider
from darkbloom_router.queueing import Line, LineLimits, Trigger
from darkbloom_router.replicas.lane import ProviderLane
from darkbloom_router.replicas.publisher import FLUSH_S
from darkbloom_router.requests import Requests
from darkbloom_router.settlement import Done, End, Free, Order, Settle, SettlementDesk
from darkbloom_router.simulate.chance import stream
from darkbloom_router.simulate.lanes import Carried
from darkbloom_router.simulate.scenario import Scenario
from darkbloom_router.simulate.virtual_time import VirtualClock, VirtualTimers
from darkbloom_router.spans import Spans
from darkbloom_router.trust import Trust
from darkbloom_router.uplink import Uplink
from darkbloom_router.warm.keeper import WarmKeeper
from darkbloom_router.warm.pool import WarmPool

_BILLING_S = 0.02
_DELAY_S, _LEASE_S = 30.0, 900.0
_MAX_BODY = 1 << 24


class Stopwatch:
    """Measures decisions twice: in processor time of this thread, and on the wall.

    The wall shows what else the machine under the simulation does; a decision never waits.
    """

    def __init__(self) -> None:
        self.wall_s: list[float] = []
        self._since: float | None = None

    def __call__(self) -> float:
        """Return processor seconds; every second call ends a decision."""
        now, since = perf_counter(), self._since
        if since is None:
            self._since = now
        else:
            self._since = None
            self.wall_s.append(now - since)
        return thread_time()


class TimedMeter(Meter):
    """Counts as ever, and keeps for the report what it needs."""

    def __init__(self) -> None:
        super().__init__(Metrics(version="simulated"))
        self.decision_s: list[float] = []
        """Processor time of each decision, pauses of the collector in it included."""
        self.audits: Counter[str] = Counter()
        self.races: Counter[str] = Counter()
        """Second offers won, and those that the governor refused, by its word."""
        self.loads: Counter[str] = Counter()
        """Load commands by what became of them."""
        self.waits: Counter[str] = Counter()
        """Waits in line by how they ended."""

    def decided(self, build: str, outcome: str, seconds: float) -> None:
        """Count one decision."""
        super().decided(build, outcome, seconds)
        if outcome in ("selected", "none"):
            self.decision_s.append(seconds)

    def audited(self, outcome: str) -> None:
        """Count a decision that was compared with the whole chain over everybody."""
        super().audited(outcome)
        self.audits[outcome] += 1

    def hedge_won(self, build: str) -> None:
        """Count a second offer that had the first content."""
        super().hedge_won(build)
        self.races["won"] += 1

    def hedge_suppressed(self, verdict: str) -> None:
        """Count a second offer that was not made."""
        super().hedge_suppressed(verdict)
        self.races[verdict] += 1

    def loaded(self, build: str, outcome: str) -> None:
        """Count a load command."""
        super().loaded(build, outcome)
        self.loads[outcome] += 1

    def waited(self, build: str, outcome: str) -> None:
        """Count the end of a wait in line, and who was not let into one."""
        super().waited(build, outcome)
        self.waits[outcome] += 1


class Told:
    """Counts what `replicas.publisher` would tell one other replica."""

    def __init__(self, carried: Carried, timers: VirtualTimers) -> None:
        self._carried = carried
        self._timers = timers
        self._rounds: dict[str, int] = {}

    def __call__(self, provider: Provider) -> None:
        """Take a change."""
        now = int(self._timers.now() / FLUSH_S)
        if self._rounds.get(provider.serial) != now:
            self._rounds[provider.serial] = now
            self._carried.told += 1


class PromptDesk(SettlementDesk):
    """Billing that always answers, a little later."""

    def __init__(self, timers: VirtualTimers, clock: VirtualClock) -> None:
        super().__init__(_Books(), clock, Backoff(lambda: 0.5), limit=1, count=_ignore)
        self._timers = timers

    def submit(self, order: Order, done: Done) -> bool:
        """Take an order."""
        end = End.SETTLED if isinstance(order, Settle) else End.RELEASED
        self._timers.after(_BILLING_S, partial(done, end))
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    """The parts of the router that a simulation talks to."""

    clock: VirtualClock
    timers: VirtualTimers
    fleet: Fleet
    attempts: Attempts
    requests: Requests
    line: Line
    lanes: dict[Provider, ProviderLane]
    meter: TimedMeter
    stopwatch: Stopwatch
    carried: Carried
    dispatcher: Dispatcher
    uplink: Uplink
    downlink: Downlink
    losses: Losses
    health: Health
    warm: WarmKeeper


def make_core(scenario: Scenario) -> Core:
    """Wire a router."""
    clock = VirtualClock()
    timers, meter, stopwatch = VirtualTimers(clock), TimedMeter(), Stopwatch()
    rules = Rules(selection=scenario.selection)
    if scenario.full_scan:
        rules = Rules(selection=scenario.selection, sample=0)
    fleet, carried = Fleet(rules, FaultMemory()), Carried()
    fleet.on_change = Told(carried, timers)
    attempts, lanes = Attempts(WINDOW), dict[Provider, ProviderLane]()
    spans, patience = Spans(clock, enabled=False), Patience()
    line = Line(timers, meter, LineLimits(), fleet.has_machines)
    requests = Requests(timers, line)
    health = Health(fleet, meter.tripped)
    ends = Ends(fleet, requests, lanes, meter, spans, timers, health, Cancels(timers, meter))
    closing = Closing(
        attempts,
        PromptDesk(timers, clock),
        timers,
        meter,
        lane_of=lanes.get,
        gone=ends.gone,
        elsewhere=_nowhere,
        delay_s=_DELAY_S,
        lease_s=_LEASE_S,
    )
    _, hedging, dispatcher = make_dispatching(
        DispatchParts(
            fleet=fleet,
            attempts=attempts,
            requests=requests,
            ends=ends,
            line=line,
            lanes=lanes,
            timers=timers,
            meter=meter,
            spans=spans,
            prices=OwnPrices(),
            limits=DispatchLimits(),
            hedges=HedgeLimits(),
            new_id=_counter(),
            pick=stream(scenario.seed, "choices").randrange,
            unix_now=lambda: clock.now().timestamp(),
            timer=stopwatch,
        )
    )
    ends.wire(
        closing, retry=dispatcher.retry, freed=partial(dispatcher.drain_lines, trigger=Trigger.IDLE)
    )
    warm = WarmKeeper(
        WarmPool(fleet, line.depth),
        lanes,
        timers,
        meter,
        waiting=line.depths,
        is_leader=lambda: scenario.warm_pool,
    )
    dispatcher.wire(closing.free, sign=warm.pool.note, waits=warm.kick)
    losses = Losses(attempts, requests, ends, closing, lanes, orphan_s=_DELAY_S)
    trust = Trust(
        fleet,
        ends,
        losses,
        lanes,
        meter,
        timers=timers,
        report=_ignore_report,
        freed=partial(dispatcher.drain_lines, trigger=Trigger.CHALLENGE),
        caught=_nowhere,
        cut=_nobody,
    )
    return Core(
        clock=clock,
        timers=timers,
        fleet=fleet,
        attempts=attempts,
        requests=requests,
        line=line,
        lanes=lanes,
        meter=meter,
        stopwatch=stopwatch,
        carried=carried,
        dispatcher=dispatcher,
        uplink=Uplink(
            attempts,
            dispatcher,
            ends,
            trust,
            timers,
            meter,
            patience,
            closing,
            hedging,
            max_body_bytes=_MAX_BODY,
        ),
        downlink=Downlink(
            attempts, ends, closing, trust, timers, meter, patience, relay=_not_carried
        ),
        losses=losses,
        health=health,
        warm=warm,
    )


class _Books:
    """A ledger that nobody calls: the desk above answers for it."""

    async def settle(self, orders: Sequence[Settle]) -> Sequence[End]:
        return [End.SETTLED for _ in orders]

    async def release(self, orders: Sequence[Free]) -> Sequence[End]:
        return [End.RELEASED for _ in orders]

    async def renew(self, request_ids: Sequence[str], lease_s: float) -> Sequence[str]:
        return [] if lease_s else request_ids


def _counter() -> Callable[[str], str]:
    made = 0

    def new_id(prefix: str) -> str:
        nonlocal made
        made += 1
        return f"{prefix}_{made}"

    return new_id


def _ignore(_result: str) -> None:
    """Nobody counts settlements here."""


def _ignore_report(_provider: str, _attempt: str, _kind: str) -> None:
    """Nobody investigates here."""


def _nowhere(_provider: Provider, _what: str | Signed) -> None:
    """There is no other replica."""


def _nobody(_provider: Provider) -> None:
    """There is nothing of others to cut."""


def _not_carried(_provider: Provider, _frame: Frame) -> bool:
    return False
