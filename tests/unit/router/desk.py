"""A router without sockets: real fleet, ladder, races and money, lanes that only remember.

A test is gateway and provider at once: it hands frames in and reads what was sent.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from darkbloom.common.v1.frame_pb2 import Frame, FrameKind
from darkbloom.router.v1 import gateway_lane_pb2 as gw
from darkbloom.router.v1 import provider_link_pb2 as pl
from darkbloom_mesh.telemetry import Metrics
from darkbloom_mesh.testing import FakeClock
from darkbloom_router.attempts import Attempt, Attempts, GatewayLink
from darkbloom_router.cancels import Cancels
from darkbloom_router.closing import Closing
from darkbloom_router.dispatching import DispatchParts, make_dispatching
from darkbloom_router.downlink import Downlink, Patience
from darkbloom_router.ends import Ends
from darkbloom_router.entry import DispatchLimits
from darkbloom_router.fleet import Fleet
from darkbloom_router.health import Health
from darkbloom_router.hedging import HedgeLimits
from darkbloom_router.losses import Losses
from darkbloom_router.meter import Meter
from darkbloom_router.model import Catalog, Rules
from darkbloom_router.own_prices import OwnPrices
from darkbloom_router.provider import Provider
from darkbloom_router.queueing import Line, LineLimits
from darkbloom_router.requests import Requests
from darkbloom_router.settlement import End, Free, Order, Settle
from darkbloom_router.spans import Spans
from darkbloom_router.timers import Timers
from darkbloom_router.trust import Trust
from darkbloom_router.uplink import Uplink
from google.protobuf.duration_pb2 import Duration
from opentelemetry.trace import Tracer

from tests.unit.router.fleets import BUILD, CATALOG, FACTS, capacity, provider, verdict

K = FrameKind
PREFIX = 7


class MemoryLane:
    """Remembers what was sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, int, Any]] = []

    def send_control(self, kind: int, stream: int, message: Any) -> None:
        self.sent.append((kind, stream, message))

    send_ordered = send_control

    def send_frame(self, frame: Frame) -> bool:
        self.sent.append((frame.kind, frame.stream, frame.payload))
        return True

    send_body_part = send_frame

    def drop_stream(self, stream: int) -> None:
        """Nothing waits here."""

    def close(self, reason: str) -> None:
        """Nothing runs here."""

    def of(self, kind: int) -> list[tuple[int, Any]]:
        """Return stream and message of every frame of a kind."""
        return [(stream, message) for found, stream, message in self.sent if found == kind]


@dataclass
class MemoryBilling:
    """Takes orders, and plays billing: a hold ends once."""

    orders: list[Order] = field(default_factory=list)
    ended: dict[str, End] = field(default_factory=dict)
    moved: list[Order] = field(default_factory=list)
    """Orders that ended a hold."""
    rejects: bool = False
    """No terminal is believed."""

    def submit(self, order: Order, done: Callable[[End], None]) -> bool:
        self.orders.append(order)
        if self.rejects and isinstance(order, Settle) and order.terminal is not None:
            done(End.REJECTED)
            return True
        if order.request_id in self.ended:
            done(End.REPLAYED)
            return True
        end = End.SETTLED if isinstance(order, Settle) else End.RELEASED
        self.ended[order.request_id] = end
        self.moved.append(order)
        done(end)
        return True

    async def flush(self) -> None:
        """Nothing waits."""


class Desk:
    """One router, one gateway lane, and as many providers as a test names."""

    def __init__(
        self,
        *names: str,
        rules: Rules | None = None,
        limits: DispatchLimits | None = None,
        hedge_after_s: float = 1.0,
        catalog: Catalog = CATALOG,
        tracer: Tracer | None = None,
        **changes: Any,
    ) -> None:
        self.clock = FakeClock()
        self.timers = Timers(self.clock)
        self.metrics = Metrics(version="0")
        meter, spans = (
            Meter(self.metrics),
            Spans(self.clock, enabled=tracer is not None, tracer=tracer),
        )
        meter.catalog = catalog.builds
        self.fleet = Fleet(rules or Rules())
        self.fleet.set_catalog(catalog)
        self.attempts = Attempts(32)
        self.lanes: dict[Provider, Any] = {}
        self.line = Line(self.timers, meter, LineLimits(), self.fleet.has_machines)
        self.requests = Requests(self.timers, self.line)
        self.billing = MemoryBilling()
        self.cancels = Cancels(self.timers, meter)
        ends = self.ends = Ends(
            self.fleet,
            self.requests,
            self.lanes,
            meter,
            spans,
            self.timers,
            Health(self.fleet),
            self.cancels,
        )
        closing = self.closing = Closing(
            self.attempts,
            self.billing,  # type: ignore[arg-type] - the part of it that is used
            self.timers,
            meter,
            lane_of=self.lanes.get,
            gone=ends.gone,
            elsewhere=lambda _provider, _signed: None,
            delay_s=30.0,
            lease_s=960.0,
        )
        ids = count(1)
        self.offers_made, self.hedging, self.dispatcher = make_dispatching(
            DispatchParts(
                fleet=self.fleet,
                attempts=self.attempts,
                requests=self.requests,
                ends=ends,
                line=self.line,
                lanes=self.lanes,
                timers=self.timers,
                meter=meter,
                spans=spans,
                prices=OwnPrices(),
                limits=limits or DispatchLimits(),
                hedges=HedgeLimits(enabled=hedge_after_s > 0, after_s=hedge_after_s),
                new_id=lambda prefix: f"{prefix}_{next(ids):032x}",
                pick=lambda _below: 0,
                unix_now=lambda: self.clock.now().timestamp(),
            )
        )
        ends.wire(closing, retry=self.dispatcher.retry, freed=self.dispatcher.drain_lines)
        self.dispatcher.wire(closing.free)
        self.losses = Losses(self.attempts, self.requests, ends, closing, self.lanes, orphan_s=30.0)
        trust = self.trust = Trust(
            self.fleet,
            ends,
            self.losses,
            self.lanes,
            meter,
            timers=self.timers,
            report=lambda _provider, _attempt, _kind: None,
            freed=self.dispatcher.drain_lines,
            caught=lambda _provider, _reason: None,
            cut=lambda _provider: None,
        )
        patience = Patience()
        self.downlink = Downlink(
            self.attempts,
            ends,
            closing,
            trust,
            self.timers,
            meter,
            patience,
            relay=lambda _provider, _frame: False,
        )
        self.uplink = Uplink(
            self.attempts,
            self.dispatcher,
            ends,
            trust,
            self.timers,
            meter,
            patience,
            closing,
            self.hedging,
            max_body_bytes=1 << 20,
        )
        self.lane = MemoryLane()
        self.gateway = GatewayLink(self.lane, prefix=PREFIX)  # type: ignore[arg-type] - see above
        self.providers = {name: self.join(name, **changes) for name in names}
        self._streams = count(1)

    def join(self, name: str, **changes: Any) -> Provider:
        """Connect a provider that passes every gate and reports its rates."""
        now = self.timers.now()
        made = provider(
            name,
            verdict=verdict(expires_at=now + 900),
            passed_at=now,
            **changes,
        )
        made.beat_at = made.capacity_at = now
        self.lanes[made] = MemoryLane()
        self.fleet.join(made, [FACTS])
        self.beat(made)
        return made

    def beat(self, made: Provider, sequence: int = 1) -> None:
        """Let a provider report fresh rates."""
        made.capacity, made.capacity_at = capacity(sequence), self.timers.now()
        made.beat_at = made.passed_at = self.timers.now()
        for candidate in made.candidates.values():
            candidate.measured_at = self.timers.now()
        self.fleet.refresh(made)

    async def pass_time(self, seconds: float) -> None:
        """Let time pass, with heartbeats in it."""
        await self.clock.advance(seconds)
        for sequence, made in enumerate(list(self.lanes), start=2):
            self.beat(made, sequence)
        self.timers.fire()

    def open(self, request_id: str = "", deadline_s: float = 20.0, **changes: Any) -> int:
        """Open a request; returns its stream."""
        stream = PREFIX << 40 | next(self._streams)
        values: dict[str, Any] = {
            "request_id": request_id or f"req_{stream:032x}",
            "build": BUILD,
            "prompt_tokens_estimate": 100,
            "prompt_bound": 200,
            "output_bound": 200,
            "account_id": "consumer",
            "owner_policy": gw.OWNER_POLICY_PUBLIC,
            "trust_floor": "hardware",
            **changes,
        }
        message = gw.Open(**values)
        at = self.clock.now().timestamp() + deadline_s
        message.deadline_time.FromNanoseconds(int(at * 1e9))
        self._up(K.FRAME_KIND_OPEN, stream, message)
        return stream

    def offers(self, stream: int) -> list[gw.Offer]:
        """Return every offer of a request so far."""
        return [message for at, message in self.lane.of(K.FRAME_KIND_OFFER) if at == stream]

    def refusal(self, stream: int) -> gw.Refused | None:
        """Return the last word about a request."""
        found = [message for at, message in self.lane.of(K.FRAME_KIND_REFUSED) if at == stream]
        return found[-1] if found else None

    def attempt(self, offer: gw.Offer) -> Attempt:
        """Return what an offer stands for."""
        return self.attempts.by_stream[offer.attempt_stream]

    def seal(self, offer: gw.Offer, gateway: GatewayLink | None = None) -> Attempt:
        """Take an offer."""
        attempt = self.attempt(offer)
        message = gw.Sealed(
            sender_key=b"s" * 32,
            body_bytes=4,
            body_sha256=b"h" * 32,
            verdict_id=attempt.verdict.verdict_id,
            prompt_bound=200,
            output_bound=200,
        )
        self._up(K.FRAME_KIND_SEALED, offer.attempt_stream, message, gateway)
        return attempt

    def dispatched(self, **changes: Any) -> tuple[int, Attempt]:
        """Open a request and take its first offer."""
        stream = self.open(**changes)
        return stream, self.seal(self.offers(stream)[-1])

    def chunk(self, attempt: Attempt, tokens: int = 1, kind: int = K.FRAME_KIND_CHUNK) -> None:
        """Let a provider send content."""
        self.down(attempt, kind, b"sealed", tokens)

    def error(self, attempt: Attempt, code: int = 0, reason: int = 0, status: int = 500) -> None:
        """Let a provider fail."""
        message = pl.AttemptError(
            status_code=status,
            failure_code=pl.FailureCode.ValueType(code),
            reason=pl.FailureReason.ValueType(reason),
        )
        self.down(attempt, K.FRAME_KIND_ERROR, message.SerializeToString())

    def terminal(self, attempt: Attempt) -> None:
        """Let a provider end an answer."""
        message = pl.Terminal()
        message.terminal.document = b'{"attempt_id":"%s"}' % attempt.attempt_id.encode()
        message.terminal.signature = b"sig"
        self.down(attempt, K.FRAME_KIND_TERMINAL, message.SerializeToString())

    def down(self, attempt: Attempt, kind: int, payload: bytes, tokens: int = 0) -> None:
        """Hand in a frame from an attempt's provider."""
        frame = Frame(kind=kind, stream=attempt.stream, payload=payload, tokens=tokens)
        self.downlink.take(attempt.provider, frame, self.timers.now())

    def leave(self, attempt: Attempt, prompt: int) -> None:
        """Let the consumer leave an answer; the gateway says so much for the prompt."""
        opened = pl.Opened(frames=2, prompt_tokens=prompt, completion_tokens=5)
        message = pl.Cancel(reason=pl.CANCEL_REASON_CLIENT_GONE, opened=opened)
        self._up(K.FRAME_KIND_CANCEL, attempt.stream, message)

    def rescue(self, attempt: Attempt, prompt: int = 100) -> None:
        """Let a gateway that has lost its lane say its last word on another one."""
        opened = pl.Opened(frames=2, prompt_tokens=prompt, completion_tokens=5)
        message = gw.SettleOpened(
            request_id=attempt.request.request_id, attempt_id=attempt.attempt_id, opened=opened
        )
        payload = message.SerializeToString()
        self.uplink.rescue(Frame(kind=K.FRAME_KIND_SETTLE_OPENED, payload=payload))

    def close(self, attempt: Attempt, frames: int = 2, tokens: int = 1) -> None:
        """Let the gateway say that everything was opened."""
        opened = pl.Opened(frames=frames, prompt_tokens=100, completion_tokens=tokens)
        self._up(K.FRAME_KIND_CLOSE, attempt.stream, gw.Close(opened=opened))

    def hang_up(self, attempt: Attempt, frames: int = 0) -> None:
        """Let the gateway cancel one attempt."""
        opened = pl.Opened(frames=frames, prompt_tokens=100 if frames else 0)
        reason = pl.CANCEL_REASON_CLIENT_GONE
        self._up(K.FRAME_KIND_CANCEL, attempt.stream, pl.Cancel(reason=reason, opened=opened))

    def violation(self, attempt: Attempt) -> None:
        """Let the gateway find a box that does not open."""
        message = gw.Violation(kind=gw.VIOLATION_KIND_UNOPENABLE)
        self._up(K.FRAME_KIND_VIOLATION, attempt.stream, message)

    def promise(self, seconds: float = 2.0, **changes: Any) -> gw.Offer:
        """Ask for an offer of end-to-end mode."""
        changes.setdefault("reserve_for", Duration(nanos=int(seconds * 1e9) % 10**9))
        changes["reserve_for"].seconds = int(seconds)
        return self.offers(self.open(**changes))[-1]

    def claim(
        self, offer: gw.Offer, account_id: str = "consumer", gateway: GatewayLink | None = None
    ) -> int:
        """Claim an offer on a new stream, of another lane perhaps; returns the stream."""
        at = gateway or self.gateway
        stream = at.prefix << 40 | next(self._streams)
        message = gw.Claim(attempt_id=offer.attempt_id, account_id=account_id)
        message.body_time.FromSeconds(5)
        self._up(K.FRAME_KIND_CLAIM, stream, message, at)
        return stream

    def abandon(self, stream: int) -> None:
        """Let the gateway give a request up."""
        message = gw.Abandon(reason=gw.ABANDON_REASON_CLIENT_GONE)
        self._up(K.FRAME_KIND_ABANDON, stream, message)

    def attempt_is_over(self, offer: gw.Offer) -> bool:
        """Whether nothing is left of an attempt."""
        return offer.attempt_stream not in self.attempts.by_stream

    def worker(self, prefix: int) -> tuple[GatewayLink, MemoryLane]:
        """Connect another gateway worker."""
        lane = MemoryLane()
        return GatewayLink(lane, prefix=prefix), lane  # type: ignore[arg-type] - see above

    def decline(self, offer: gw.Offer, reason: int = gw.DECLINE_REASON_PRICE) -> None:
        """Let the gateway refuse an offer."""
        message = gw.Decline(reason=gw.DeclineReason.ValueType(reason))
        self._up(K.FRAME_KIND_DECLINE, offer.attempt_stream, message)

    def cancelled(self, attempt: Attempt) -> list[pl.Cancel]:
        """Return what an attempt's provider was told."""
        lane = self.lanes[attempt.provider]
        return [one for at, one in lane.of(K.FRAME_KIND_CANCEL) if at == attempt.stream]

    def sample(self, name: str, **labels: str) -> float:
        """Return a counter."""
        return self.metrics.registry.get_sample_value(f"darkbloom_{name}", labels) or 0.0

    def _up(self, kind: int, stream: int, message: Any, gateway: GatewayLink | None = None) -> None:
        frame = Frame(kind=kind, stream=stream, payload=message.SerializeToString())
        self.uplink.take(gateway or self.gateway, frame)


def settled(billing: MemoryBilling) -> list[Settle]:
    """Return the settlements that moved money."""
    return [order for order in billing.moved if isinstance(order, Settle)]


def released(billing: MemoryBilling) -> list[Free]:
    """Return the holds that were given back."""
    return [order for order in billing.moved if isinstance(order, Free)]
