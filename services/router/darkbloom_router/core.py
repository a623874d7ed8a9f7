"""The parts that decide, made in the order in which they need each other.

Which machine gets a request, what follows when it fails, who is paid. They know requests, machines
and money, and no stream: `streams` connects them with gateways and machines.
"""

import secrets
from dataclasses import dataclass
from functools import partial

from darkbloom_mesh.backoff import Backoff
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.credits import WINDOW
from darkbloom_mesh.telemetry import Metrics

from darkbloom_router import configured
from darkbloom_router.attempts import Attempts
from darkbloom_router.cancels import Cancels
from darkbloom_router.closing import Closing
from darkbloom_router.config import RouterConfig
from darkbloom_router.dispatch import Dispatcher
from darkbloom_router.dispatching import DispatchParts, make_dispatching
from darkbloom_router.ends import Ends
from darkbloom_router.fleet import Fleet
from darkbloom_router.health import Health
from darkbloom_router.hedging import HedgeLimits, Hedging
from darkbloom_router.losses import Losses
from darkbloom_router.meter import Meter
from darkbloom_router.offers import Offers
from darkbloom_router.own_prices import OwnPrices
from darkbloom_router.ports import Ledger
from darkbloom_router.provider import Provider
from darkbloom_router.queueing import Line, LineLimits, Trigger
from darkbloom_router.replicas.carried import Carriage
from darkbloom_router.replicas.lane import ProviderLane
from darkbloom_router.replicas.parts import Replicas
from darkbloom_router.replicas.publisher import Publisher
from darkbloom_router.requests import Requests
from darkbloom_router.settlement import SettlementDesk
from darkbloom_router.spans import Spans
from darkbloom_router.timers import Timers

GATHER_S = 0.1
"""Between deliveries of settlements, which nobody waits for."""
_LATE_SLACK_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What nearly every part is given."""

    clock: Clock
    timers: Timers
    meter: Meter
    spans: Spans


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What there is now: machines and their lanes, requests and their attempts."""

    fleet: Fleet
    attempts: Attempts
    lanes: dict[Provider, ProviderLane]
    prices: OwnPrices
    line: Line
    requests: Requests
    health: Health
    carriage: Carriage
    replicas: Replicas


@dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    """The parts that decide, wired to each other."""

    tools: Tools
    state: State
    desk: SettlementDesk
    ends: Ends
    closing: Closing
    losses: Losses
    offers: Offers
    hedging: Hedging
    dispatcher: Dispatcher


def make_tools(config: RouterConfig, metrics: Metrics, clock: Clock) -> Tools:
    """Return what measures and what waits."""
    return Tools(
        clock=clock,
        timers=Timers(clock),
        meter=Meter(metrics),
        spans=Spans(clock, enabled=config.otlp_endpoint is not None),
    )


def make_state(config: RouterConfig, tools: Tools) -> State:
    """Return a router without machines and requests."""
    fleet, attempts = configured.fleet(config), Attempts(WINDOW)
    limits = LineLimits(depth=config.queue_depth, wait_s=config.queue_wait_s)
    line = Line(tools.timers, tools.meter, limits, fleet.has_machines)
    health = Health(fleet, tools.meter.tripped)
    carriage = Carriage(fleet, attempts)
    replicas = Replicas(carriage, Publisher(carriage, tools.clock))
    # From now on the other replicas hear of what changes here, and of what is learnt here.
    fleet.on_change, health.tell = replicas.publisher.changed, replicas.taught
    return State(
        fleet=fleet,
        attempts=attempts,
        lanes={},
        prices=OwnPrices(),
        line=line,
        requests=Requests(tools.timers, line),
        health=health,
        carriage=carriage,
        replicas=replicas,
    )


def make_core(config: RouterConfig, tools: Tools, state: State, ledger: Ledger) -> Core:
    """Return the parts that decide."""
    timers, meter = tools.timers, tools.meter
    desk = SettlementDesk(
        ledger,
        tools.clock,
        Backoff(secrets.SystemRandom().random, first_s=0.2, cap_s=10.0),
        limit=config.settlement_limit,
        count=meter.settled,
        gather_s=GATHER_S,
    )
    ends = Ends(
        state.fleet,
        state.requests,
        state.lanes,
        meter,
        tools.spans,
        timers,
        state.health,
        Cancels(timers, meter),
    )
    closing = Closing(
        state.attempts,
        desk,
        timers,
        meter,
        lane_of=partial(_lane_of, state),
        gone=ends.gone,
        elsewhere=state.replicas.elsewhere,
        delay_s=config.break_settle_delay_s,
        lease_s=config.hold_lease_s + _LATE_SLACK_S,
    )
    offers, hedging, dispatcher = make_dispatching(_dispatch_parts(config, tools, state, ends))
    freed = partial(_freed, state.replicas, dispatcher)
    ends.wire(closing, retry=dispatcher.retry, freed=freed)
    state.carriage.wire(freed)
    losses = Losses(
        state.attempts,
        state.requests,
        ends,
        closing,
        state.lanes,
        orphan_s=config.break_settle_delay_s,
    )
    return Core(
        tools=tools,
        state=state,
        desk=desk,
        ends=ends,
        closing=closing,
        losses=losses,
        offers=offers,
        hedging=hedging,
        dispatcher=dispatcher,
    )


def new_id(prefix: str) -> str:
    """Draw an id, such as `att_…`."""
    return f"{prefix}_{secrets.token_hex(16)}"


def _dispatch_parts(config: RouterConfig, tools: Tools, state: State, ends: Ends) -> DispatchParts:
    return DispatchParts(
        fleet=state.fleet,
        attempts=state.attempts,
        requests=state.requests,
        ends=ends,
        line=state.line,
        lanes=state.lanes,
        timers=tools.timers,
        meter=tools.meter,
        spans=tools.spans,
        prices=state.prices,
        limits=configured.limits(config),
        hedges=HedgeLimits(enabled=config.hedging, after_s=config.hedge_after_s),
        new_id=new_id,
        pick=secrets.randbelow,
        unix_now=lambda: tools.clock.now().timestamp(),
    )


def _freed(replicas: Replicas, dispatcher: Dispatcher, provider: Provider) -> None:
    """Give a free place to whoever has waited for it, here or at another replica."""
    replicas.freed(provider)
    dispatcher.drain_lines(provider, Trigger.IDLE)


def _lane_of(state: State, provider: Provider) -> ProviderLane | None:
    """Return a provider's lane, or that of the stream which has taken its identity over."""
    holder = state.fleet.by_identity(provider.identity_key)
    return state.lanes.get(provider) or (state.lanes.get(holder) if holder else None)
