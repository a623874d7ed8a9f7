"""From OPEN to the first content: find a provider, seal to it, and fail over in silence."""

from datetime import timedelta
from typing import final

import structlog
from darkbloom.common.v1.frame_pb2 import Frame
from darkbloom.router.v1 import gateway_lane_pb2, provider_link_pb2
from darkbloom_edge.delta import Delta
from darkbloom_edge.ids import new_id
from google.protobuf.message import DecodeError

from darkbloom_gateway import convert, kinds
from darkbloom_gateway.attempt import Attempt
from darkbloom_gateway.cache_scope import cache_scope
from darkbloom_gateway.errors import (
    ApiError,
    ClientGoneError,
    LaneLostError,
    ViolationError,
    first_content_late,
    internal,
    overloaded,
    provider_failed,
    unavailable,
)
from darkbloom_gateway.exchange import Exchange
from darkbloom_gateway.mailbox import Mailbox
from darkbloom_gateway.model import KeyRecord, Offer, OpenedCounts, Timing
from darkbloom_gateway.offer_check import OfferCheck
from darkbloom_gateway.prompt import Prompt
from darkbloom_gateway.reservation import RateClaim, Reservation
from darkbloom_gateway.self_route import Route
from darkbloom_gateway.stage import Stage
from darkbloom_gateway.verdicts import Checked, VerdictRefusedError

_log = structlog.get_logger()
_SERVER_ERROR = 500
MAX_ROUNDS = 3
"""How often one request may be opened on a lane."""
MAX_SEALED = 64
"""To how many providers one request may be sealed."""
NOT_AFTER_S = 600
"""Life of a sealed request."""
ROUTER_GRACE_S = 2.0
"""How long after the deadline the router's own word is awaited."""
VIOLATION_S = 5.0
"""How long the router's reaction to a violation is awaited."""


@final
class Seeker:
    """Looks for the provider that answers; nothing of this is visible to the consumer.

    Who gives the hold back: this side until SEALED was sent, the router from then on. A lane that
    is lost before content costs one more round under the same request id and hold, which the router
    leaves alone for a while; when nobody comes back, this side gives it back, because nothing was
    handed out. An offer whose verdict is refused costs one more round under a new id and hold,
    because the router ends the hold of a request that it had made an offer for.

    Attributes:
        mailbox: where frames and the consumer's leaving arrive.
        exchange: the opening on the lane, once there is one.
        winner: the attempt that answers, once there is one.
        deltas: opened, not yet handed out.
        sealed_to: how many providers may have read the request.
        terminal: the payload of the TERMINAL frame, if it has come already.
    """

    def __init__(self, stage: Stage, key: KeyRecord, prompt: Prompt) -> None:
        self._stage = stage
        self._clock = stage.clock
        self._prompt = prompt
        self._plan = prompt.plan
        self._started_at = stage.clock.monotonic()
        self._deadline_at = self._started_at + stage.config.first_content_s
        self._offers = OfferCheck(stage, prompt.plan)
        self._claim = RateClaim(stage, key, prompt.plan.claim)
        self._reservation: Reservation | None = None
        self.sealed_to = 0
        self._sealed_at = 0.0
        self._blamed_stream = 0
        self._blamed_at = 0.0
        self.mailbox = Mailbox()
        self.exchange: Exchange[Attempt] | None = None
        self.winner: Attempt | None = None
        self.deltas: list[Delta] = []
        self.terminal: bytes | None = None
        self.timing = Timing()

    @property
    def request_id(self) -> str:
        """The id under which money is held, empty before that."""
        return self._reservation.request_id if self._reservation is not None else ""

    @property
    def rate_headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """`x-ratelimit-*`, once known."""
        return self._claim.headers

    @property
    def held_micros(self) -> int | None:
        """What is held for it, in micro-USD; None until it is known."""
        return self._reservation.micros if self._reservation is not None else None

    def settle_rates(self) -> None:
        """Correct the claim on the rates to what was used; the first call counts."""
        winner = self.winner
        if winner is None:
            self._claim.settle(0, 0)
        else:
            self._claim.settle(self._plan.prompt_estimate, winner.opened.completion_tokens)

    async def seek(self) -> None:
        """Return when the first content is there.

        Raises:
            ApiError: nobody serves this; what the consumer is told.
            ClientGoneError: the consumer left.
        """
        if self._plan.route is not Route.PUBLIC:
            await self._offers.know_own(again=False)
        if not self._prompt.complete:
            await self._fetch()
        wait_s = self._stage.config.lane_wait_s
        for _ in range(MAX_ROUNDS):
            if not await self._stage.links.until_accepting(wait_s):
                break
            try:
                await self._round()
            except LaneLostError:
                self._retreat()
                continue
            except VerdictRefusedError:
                self.withdraw(abandon=gateway_lane_pb2.ABANDON_REASON_VERDICT_REFUSED)
                self._reservation = None
                self._retreat()
                continue
            self._prompt.forget()
            return
        raise unavailable("no router can take this request now")

    def withdraw(
        self,
        *,
        cancel: provider_link_pb2.CancelReason.ValueType = (
            provider_link_pb2.CANCEL_REASON_CLIENT_GONE
        ),
        abandon: gateway_lane_pb2.AbandonReason.ValueType = (
            gateway_lane_pb2.ABANDON_REASON_CLIENT_GONE
        ),
        delivered: bool = True,
    ) -> None:
        """End the request wherever it is; does nothing where it has ended.

        Args:
            cancel: why what runs is cancelled.
            abandon: why nobody is wanted any more.
            delivered: whether what was opened is to be paid.
        """
        dispatched = False
        refused = False
        if self.exchange is not None:
            self.exchange.withdraw(cancel, abandon, delivered=delivered)
            dispatched = self.exchange.dispatched
            refused = self.exchange.ended_by_router
        if self._reservation is not None and not dispatched:
            self._reservation.release("REFUSED" if refused else "NOT_DISPATCHED")

    async def _round(self) -> None:
        """Open the request once; rate, hold and provider are waited for side by side."""
        self.mailbox.reset()
        reservation = self._reserve()
        exchange = self.exchange = Exchange[Attempt](self._stage.links.choose(), self.mailbox)
        opened_at = self._clock.monotonic()
        exchange.open(
            self._plan,
            reservation.request_id,
            trust_floor=self._stage.config.trust_floor,
            deadline=self._clock.now() + timedelta(seconds=self._deadline_at - opened_at),
        )
        try:
            await self._claim.allowed()
        except ApiError:
            self.withdraw(abandon=gateway_lane_pb2.ABANDON_REASON_LIMITED)
            raise
        try:
            with self._stage.spans.step("billing.reserve"):
                await reservation.held()
        except ApiError:
            self.withdraw(abandon=gateway_lane_pb2.ABANDON_REASON_HOLD_REFUSED)
            raise
        self.timing.reserve_us += _micros(self._clock.monotonic() - opened_at)
        await self._until_content(exchange, reservation)

    def _reserve(self) -> Reservation:
        if self._reservation is None:
            request_id = new_id("req", self._stage.entropy(16))
            self._reservation = Reservation(self._stage, self._plan, request_id)
        return self._reservation

    async def _fetch(self) -> None:
        """Fetch what the prompt names, for those only who may ask and can pay for the answer.

        The hold is one for the largest files that could come, so it needs no more money later.
        """
        reservation = self._reserve()
        await self._claim.allowed()
        await reservation.held()
        began_at = self._clock.monotonic()
        await self.mailbox.during(self._prompt.fetch())
        self._look()
        self.timing.media_fetch_us = _micros(self._clock.monotonic() - began_at)

    def _retreat(self) -> None:
        """Leave this round without a trace of it."""
        if self.exchange is not None:
            self.exchange.withdraw(
                provider_link_pb2.CANCEL_REASON_TIMEOUT,
                gateway_lane_pb2.ABANDON_REASON_CLIENT_GONE,
            )
        self.exchange = None
        self.winner = None
        self.deltas.clear()
        self.terminal = None
        self._blamed_stream = 0

    async def _until_content(self, exchange: Exchange[Attempt], reservation: Reservation) -> None:
        mailbox = self.mailbox
        while True:
            self._look()
            while mailbox.frames:
                await self._advance(mailbox.frames.popleft(), exchange, reservation)
            if self.winner is not None and (
                self.winner.final or any(delta.has_content for delta in self.deltas)
            ):
                return
            give_up_at = self._deadline_at + ROUTER_GRACE_S
            if self._blamed_stream and not exchange.live:
                give_up_at = min(give_up_at, self._blamed_at + VIOLATION_S)
            if self._clock.monotonic() >= give_up_at:
                self.withdraw(cancel=provider_link_pb2.CANCEL_REASON_TIMEOUT)
                raise provider_failed() if self._blamed_stream else first_content_late()
            await mailbox.wait(give_up_at)

    def _look(self) -> None:
        if self.mailbox.gone:
            raise ClientGoneError
        if self.mailbox.lost:
            raise LaneLostError
        if self.mailbox.overflowed:
            raise internal()

    async def _advance(
        self, frame: Frame, exchange: Exchange[Attempt], reservation: Reservation
    ) -> None:
        kind = frame.kind
        try:
            if kind == kinds.OFFER:
                offer = convert.offer(gateway_lane_pb2.Offer.FromString(frame.payload))
                await self._take_offer(offer, exchange, reservation)
            elif kind == kinds.REFUSED:
                self._take_refusal(gateway_lane_pb2.Refused.FromString(frame.payload), exchange)
            elif kind == kinds.COMMITTED:
                self._win(frame.stream, exchange)
                message = gateway_lane_pb2.Committed.FromString(frame.payload)
                self.timing.queue_us = message.queue_ms * 1000
                self.timing.provider_us = message.provider_ms * 1000
            elif kind == kinds.ATTEMPT_FAILED:
                self._take_failure(frame, exchange)
            elif kind == kinds.TERMINAL:
                if self.winner is not None and frame.stream == self.winner.offer.stream:
                    self.terminal = frame.payload
            elif kind in kinds.CONTENT or kind == kinds.PREAMBLE:
                self._take_chunk(frame, exchange)
        except DecodeError:
            raise internal() from None

    async def _take_offer(
        self, offer: Offer, exchange: Exchange[Attempt], reservation: Reservation
    ) -> None:
        """Check the verdict, cover the price, seal and send; nothing leaves before all are done."""
        if self.winner is not None:
            return
        if offer.hedge:
            await self._take_hedge(offer, exchange, reservation)
            return
        if self.sealed_to >= MAX_SEALED:
            # Each one may read the prompt; a router that goes on and on is not looking for one.
            self.withdraw(cancel=provider_link_pb2.CANCEL_REASON_TIMEOUT)
            raise provider_failed()
        exchange.keep_only(())
        self.timing.route_us = _micros(self._clock.monotonic() - self._started_at)
        checked = await self._offers.check(offer)
        try:
            covered = await self._covered(offer, checked, reservation)
        except ApiError:
            self.withdraw(abandon=gateway_lane_pb2.ABANDON_REASON_HOLD_REFUSED)
            raise
        if not covered:
            exchange.decline(offer.stream, gateway_lane_pb2.DECLINE_REASON_PRICE)
        elif not await self._seal(offer, checked, exchange, reservation):
            raise overloaded()

    async def _take_hedge(
        self, offer: Offer, exchange: Exchange[Attempt], reservation: Reservation
    ) -> None:
        """Let a second provider race; whatever is wrong with it, the first one still runs."""
        reason = gateway_lane_pb2.DECLINE_REASON_VERDICT
        try:
            if self.sealed_to < MAX_SEALED:
                checked = await self._offers.check(offer)
                if not await self._covered(offer, checked, reservation):
                    reason = gateway_lane_pb2.DECLINE_REASON_PRICE
                elif any(frame.kind == kinds.COMMITTED for frame in self.mailbox.frames):
                    # The race is over: nobody else needs to see the prompt.
                    return
                elif await self._seal(offer, checked, exchange, reservation):
                    return
        except (ApiError, VerdictRefusedError):
            pass
        exchange.decline(offer.stream, reason)

    async def _covered(self, offer: Offer, checked: Checked, reservation: Reservation) -> bool:
        """Return whether the money reaches; one's own machine costs nothing."""
        if checked.identity_key in self._offers.own:
            return True
        return await reservation.cover(offer.price, alone=not offer.hedge)

    async def _seal(
        self, offer: Offer, checked: Checked, exchange: Exchange[Attempt], reservation: Reservation
    ) -> bool:
        """Seal and send; False where too many bodies wait, and then nothing was sent."""
        attempt = self._attempt(offer, checked, reservation.request_id)
        sealing_at = self._clock.monotonic()
        not_after_ms = int(self._clock.now().timestamp() * 1000) + NOT_AFTER_S * 1000
        with self._stage.spans.step("router.encrypt"):
            body = await self._prompt.seal(attempt, not_after_ms=not_after_ms)
        self._sealed_at = self._clock.monotonic()
        self.timing.encrypt_us += _micros(self._sealed_at - sealing_at)
        # Consumer or lane may have gone while this waited.
        self._look()
        if not exchange.dispatch(attempt, body):
            return False
        self.sealed_to += 1
        return True

    def _attempt(self, offer: Offer, checked: Checked, request_id: str) -> Attempt:
        try:
            return Attempt(
                offer,
                checked,
                request_id=request_id,
                prompt_bound=self._plan.prompt_bound,
                output_bound=self._plan.output_bound,
                sealed_to=self.sealed_to + 1,
                randomness=self._stage.entropy(64),
                cache_scope=cache_scope(
                    self._stage.hint_secret,
                    account_id=self._plan.account_id,
                    build=offer.build,
                    identity_key=checked.identity_key,
                    now_ms=int(self._clock.now().timestamp() * 1000),
                )
                # Two images are the same tokens to a cache that compares tokens.
                if not self._plan.vision
                else b"",
            )
        except ViolationError:
            raise internal() from None

    def _take_refusal(self, message: gateway_lane_pb2.Refused, exchange: Exchange[Attempt]) -> None:
        exchange.ended_by_router = True
        exchange.keep_only(())
        if message.reason == gateway_lane_pb2.REFUSAL_REASON_DRAINING:
            exchange.refuse_new()
            raise LaneLostError
        raise self._unserved(convert.refusal(message))

    def _take_failure(self, frame: Frame, exchange: Exchange[Attempt]) -> None:
        """The router had committed, and nobody else will answer."""
        if frame.stream not in exchange.live and frame.stream != self._blamed_stream:
            return
        exchange.ended_by_router = True
        exchange.keep_only(())
        message = gateway_lane_pb2.AttemptFailed.FromString(frame.payload)
        raise self._unserved(convert.attempt_failure(message))

    def _unserved(self, error: ApiError) -> ApiError:
        """Leave the line that joins the consumer's request id with the routers' records."""
        if error.http_status >= _SERVER_ERROR:
            order = self._reservation.request_id if self._reservation is not None else ""
            build = self._plan.build
            _log.info("request_unserved", order_id=order, status=error.http_status, build=build)
        return error

    def _take_chunk(self, frame: Frame, exchange: Exchange[Attempt]) -> None:
        attempt = exchange.live.get(frame.stream)
        if attempt is None:
            return
        if frame.kind in kinds.CONTENT:
            self._win(frame.stream, exchange)
        final = frame.kind == kinds.CHUNK_FINAL
        try:
            delta = attempt.open(
                frame.payload, frame.tokens, final=final, preamble=frame.kind == kinds.PREAMBLE
            )
        except ViolationError as error:
            self._blame(attempt, error, exchange)
            return
        if attempt is self.winner:
            self.deltas.append(delta)

    def _win(self, stream: int, exchange: Exchange[Attempt]) -> None:
        if self.winner is not None or stream not in exchange.live:
            return
        self.winner = exchange.live[stream]
        exchange.keep_only((stream,))
        self.timing.dispatch_us = _micros(self._clock.monotonic() - self._sealed_at)

    def _blame(self, attempt: Attempt, error: ViolationError, exchange: Exchange[Attempt]) -> None:
        """Report a provider; nothing was handed out yet, so another one may still answer."""
        self._stage.meters.attempt_failed(self._plan.build, f"violation_{error.fault.value}")
        exchange.report(attempt, error.fault, OpenedCounts())
        self._blamed_stream = attempt.offer.stream
        self._blamed_at = self._clock.monotonic()
        if attempt is self.winner:
            self.winner = None
            self.deltas.clear()
            self.terminal = None


def _micros(seconds: float) -> int:
    return int(seconds * 1_000_000)
