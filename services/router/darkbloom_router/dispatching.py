"""What finds providers, wired: offers, second offers, and who decides about both.

Used alike by the router, its simulation and its tests.
"""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

from darkbloom_router.attempts import Attempts
from darkbloom_router.claims import Claims
from darkbloom_router.decisions import Decisions
from darkbloom_router.dispatch import Dispatcher
from darkbloom_router.ends import Ends
from darkbloom_router.entry import DispatchLimits
from darkbloom_router.fleet import Fleet
from darkbloom_router.hedging import HedgeLimits, Hedging
from darkbloom_router.last_words import LastWords
from darkbloom_router.meter import Meter
from darkbloom_router.offers import Offers
from darkbloom_router.own_prices import OwnPrices
from darkbloom_router.provider import Provider
from darkbloom_router.queueing import Line
from darkbloom_router.replicas.lane import ProviderLane
from darkbloom_router.requests import Requests
from darkbloom_router.spans import Spans
from darkbloom_router.timers import Timers


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchParts:
    """What dispatch works with."""

    fleet: Fleet
    attempts: Attempts
    requests: Requests
    ends: Ends
    line: Line
    lanes: dict[Provider, ProviderLane]
    timers: Timers
    meter: Meter
    spans: Spans
    prices: OwnPrices
    limits: DispatchLimits
    hedges: HedgeLimits
    new_id: Callable[[str], str]
    pick: Callable[[int], int]
    """Returns an index below its argument, at random."""
    unix_now: Callable[[], float]
    timer: Callable[[], float] = perf_counter
    """Measures decisions, in seconds."""


def make_dispatching(parts: DispatchParts) -> tuple[Offers, Hedging, Dispatcher]:
    """Wire dispatch; the dispatcher still wants to know who frees money."""
    fleet, ends, line, lanes = parts.fleet, parts.ends, parts.line, parts.lanes
    timers, meter, spans = parts.timers, parts.meter, parts.spans
    offers = Offers(
        fleet,
        parts.attempts,
        ends,
        lanes,
        timers,
        spans,
        prices=parts.prices,
        new_id=parts.new_id,
    )
    decisions = Decisions(fleet, ends.hints, meter, parts.pick, timer=parts.timer)
    hedging = Hedging(
        fleet, decisions, offers, timers, meter, depth=line.depth, limits=parts.hedges
    )
    last_words = LastWords(parts.requests, line, decisions, offers.route_time, timers, meter)
    dispatcher = Dispatcher(
        fleet,
        parts.requests,
        ends,
        line,
        lanes,
        timers,
        meter,
        spans,
        limits=parts.limits,
        offers=offers,
        decisions=decisions,
        last_words=last_words,
        claims=Claims(
            parts.attempts,
            offers,
            last_words,
            meter,
            max_requests=parts.limits.requests_per_lane,
        ),
        unix_now=parts.unix_now,
    )
    offers.wire(last_words.refuse)
    hedging.wire(dispatcher.sign)
    return offers, hedging, dispatcher
