"""The search for one offer: claim, hold, OPEN, and the offer that is signed for the client."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import final

import orjson
from darkbloom.common.v1.frame_pb2 import Frame
from darkbloom.router.v1 import gateway_lane_pb2, provider_link_pb2
from darkbloom_edge.documents import rfc3339
from darkbloom_edge.ids import new_id
from darkbloom_edge.offers import (
    MAX_RESERVE_MS,
    OfferDocument,
    OfferedPrice,
    OfferRequest,
    offer_id,
    verdict_sha256,
)
from darkbloom_edge.signatures import to_base64
from darkbloom_edge.verdict import TrustLevel, trust_level_rank
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError

from darkbloom_gateway import convert, kinds
from darkbloom_gateway.attempt import Attempt
from darkbloom_gateway.cache_scope import cache_scope
from darkbloom_gateway.end_to_end.planning import write_context
from darkbloom_gateway.end_to_end.slots import RENEW_S
from darkbloom_gateway.errors import (
    ApiError,
    ClientGoneError,
    LaneLostError,
    first_content_late,
    internal,
    unavailable,
)
from darkbloom_gateway.exchange import Exchange
from darkbloom_gateway.mailbox import Mailbox
from darkbloom_gateway.model import KeyRecord, Offer, Plan, Price, SignedBytes
from darkbloom_gateway.offer_check import OfferCheck
from darkbloom_gateway.reservation import RateClaim, Reservation
from darkbloom_gateway.self_route import Route
from darkbloom_gateway.stage import Stage
from darkbloom_gateway.verdicts import Checked, VerdictRefusedError
from darkbloom_gateway.wire import Headers

MAX_ROUNDS = 3
KEPT_S = MAX_RESERVE_MS / 1000 - 0.2
"""An offer that took us longer may be gone at the router, with its hold."""
_TIMEOUT = provider_link_pb2.CANCEL_REASON_TIMEOUT
_CLIENT_GONE = gateway_lane_pb2.ABANDON_REASON_CLIENT_GONE


class _LapsedError(Exception):
    """An offer took us longer than the router keeps it."""


@final
class Search:
    """Looks for one offer; for one use.

    Who gives the hold back: this side until the offer is handed over, the router from then on. As
    the router may end it as soon as it has made an offer, money is held before anybody is asked,
    and a request that was asked for on a lost lane is not asked for again under the same id.

    Args:
        stage: collaborators.
        key: who asks.
        asked: what for.
        plan: what was made of it.
        slot: under which the offer counts as open.
        renew: keeps the slot.

    Attributes:
        mailbox: where frames and the consumer's leaving arrive.
    """

    def __init__(
        self,
        stage: Stage,
        key: KeyRecord,
        asked: OfferRequest,
        plan: Plan,
        slot: str,
        renew: Callable[[], Awaitable[None]],
    ) -> None:
        self._stage = stage
        self._asked = asked
        self._plan = plan
        self._clock = stage.clock
        self._deadline_at = stage.clock.monotonic() + stage.config.first_content_s
        self._check = OfferCheck(stage, plan)
        self._claim = RateClaim(stage, key, plan.claim)
        self._reservation: Reservation | None = None
        self._exchange: Exchange[Attempt] | None = None
        self._slot = slot
        self._renew = renew
        self._renew_at = stage.clock.monotonic() + RENEW_S
        self._handed_over = False
        self.mailbox = Mailbox()

    @property
    def headers(self) -> Headers:
        """`x-ratelimit-*`, once known."""
        return self._claim.headers

    async def run(self) -> bytes:
        """Return the answer's JSON.

        Raises:
            ApiError: nobody can be offered.
            ClientGoneError: the consumer left.
        """
        try:
            return await self._rounds()
        except ApiError as error:
            error.headers = tuple({**dict(self._claim.headers), **dict(error.headers)}.items())
            raise
        finally:
            if not self._handed_over:
                self._withdraw(_CLIENT_GONE)
                self._claim.settle(0, 0)

    async def _rounds(self) -> bytes:
        if self._plan.route is not Route.PUBLIC:
            await self._check.know_own(again=False)
        for _ in range(MAX_ROUNDS):
            if not await self._stage.links.until_accepting(self._stage.config.lane_wait_s):
                break
            try:
                return await self._round()
            except LaneLostError:
                self._leave()
            except _LapsedError:
                self._start_over(_CLIENT_GONE)
            except VerdictRefusedError:
                self._start_over(gateway_lane_pb2.ABANDON_REASON_VERDICT_REFUSED)
        raise unavailable("no router can take this request now")

    async def _round(self) -> bytes:
        stage = self._stage
        await self._keep_slot()
        if self._reservation is None:
            request_id = new_id("req", stage.entropy(16))
            self._reservation = Reservation(stage, self._plan, request_id)
        reservation = self._reservation
        await self._claim.allowed()
        with stage.spans.step("billing.reserve"):
            await reservation.held()
        self.mailbox.reset()
        self._look()
        link = stage.links.choose()
        exchange = self._exchange = Exchange[Attempt](link, self.mailbox)
        exchange.ask(self._open(reservation.request_id))
        offer, checked = await self._until_offer(exchange, reservation)
        answer = self._answer(offer, checked, reservation, link.tag)
        exchange.hand_over()
        self._handed_over = True
        return answer

    def _open(self, request_id: str) -> gateway_lane_pb2.Open:
        plan, asked = self._plan, self._asked
        left_s = self._deadline_at - self._clock.monotonic()
        message = convert.open_message(
            plan,
            request_id,
            trust_floor=_stricter(self._stage.config.trust_floor, asked.trust_floor),
            deadline=self._clock.now() + timedelta(seconds=left_s),
            traceparent=self._stage.spans.traceparent(),
        )
        message.reserve_for.CopyFrom(Duration(seconds=MAX_RESERVE_MS // 1000))
        message.excluded_providers.extend(asked.exclude)
        message.offer_context = write_context(plan, asked, request_id, self._slot)
        return message

    async def _until_offer(
        self, exchange: Exchange[Attempt], reservation: Reservation
    ) -> tuple[Offer, Checked]:
        mailbox = self.mailbox
        while True:
            self._look()
            while mailbox.frames:
                found = await self._advance(mailbox.frames.popleft(), exchange, reservation)
                if found is not None:
                    return found
            if self._clock.monotonic() >= self._deadline_at:
                raise first_content_late()
            await self._keep_slot()
            await mailbox.wait(min(self._deadline_at, self._renew_at))

    async def _advance(
        self, frame: Frame, exchange: Exchange[Attempt], reservation: Reservation
    ) -> tuple[Offer, Checked] | None:
        try:
            if frame.kind == kinds.REFUSED:
                exchange.ended_by_router = True
                message = gateway_lane_pb2.Refused.FromString(frame.payload)
                if message.reason == gateway_lane_pb2.REFUSAL_REASON_DRAINING:
                    exchange.refuse_new()
                    raise LaneLostError
                raise convert.refusal(message)
            if frame.kind != kinds.OFFER:
                return None
            offer = convert.offer(gateway_lane_pb2.Offer.FromString(frame.payload))
        except DecodeError:
            raise internal() from None
        lapses_at = self._clock.monotonic() + KEPT_S
        checked = await self._check.check(offer)
        self._in_time(lapses_at)
        floor = self._asked.trust_floor
        if floor is not None and _below(checked.verdict.trust_level, floor):
            # Good enough for others, so the router goes on to the next one.
            exchange.decline(offer.stream, gateway_lane_pb2.DECLINE_REASON_VERDICT)
            return None
        own = checked.identity_key in self._check.own
        covered = own or await reservation.cover(offer.price, alone=True)
        self._in_time(lapses_at)
        if not covered:
            exchange.decline(offer.stream, gateway_lane_pb2.DECLINE_REASON_PRICE)
            return None
        self._look()
        return offer, checked

    def _answer(self, offer: Offer, checked: Checked, reservation: Reservation, tag: str) -> bytes:
        plan, press, now = self._plan, self._stage.press, self._clock.now()
        own = checked.identity_key in self._check.own
        price = None if own else reservation.price
        promise = press.promise(
            OfferDocument(
                offer_id=offer_id(tag, offer.attempt_id),
                nonce=self._asked.nonce,
                request_id=reservation.request_id,
                attempt_id=offer.attempt_id,
                provider_id=checked.verdict.provider_id,
                build=offer.build,
                requested_model=plan.requested_model,
                verdict_sha256=verdict_sha256(offer.verdict.document),
                prompt_bound=plan.prompt_bound,
                output_bound=plan.output_bound,
                body_bytes=self._asked.body_bytes,
                price=_offered(price),
                hold_micro_usd=reservation.micros or 0,
                issued_at=rfc3339(now),
                reserve_ms=MAX_RESERVE_MS,
            )
        )
        scope = cache_scope(
            self._stage.hint_secret,
            account_id=plan.account_id,
            build=offer.build,
            identity_key=checked.identity_key,
            now_ms=int(now.timestamp() * 1000),
        )
        return orjson.dumps(
            {
                "offer": _written(promise),
                "verdict": _written(offer.verdict),
                "cache_scope": to_base64(scope),
                "evidence_url": "/v1/providers/attestation?provider_id="
                + checked.verdict.provider_id,
            }
        )

    def _look(self) -> None:
        if self.mailbox.gone:
            raise ClientGoneError
        if self.mailbox.lost:
            raise LaneLostError
        if self.mailbox.overflowed:
            raise internal()

    def _in_time(self, lapses_at: float) -> None:
        """Give an offer up that the router no longer keeps: nobody would answer us about it."""
        if self._clock.monotonic() >= lapses_at:
            raise _LapsedError

    async def _keep_slot(self) -> None:
        now = self._clock.monotonic()
        if now >= self._renew_at:
            self._renew_at = now + RENEW_S
            await self._renew()

    def _leave(self) -> None:
        """Leave a lane that is lost or, having said so before it took anything in, leaving."""
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        exchange.withdraw(_TIMEOUT, _CLIENT_GONE)
        if not exchange.ended_by_router and self._reservation is not None:
            self._reservation.release("NOT_DISPATCHED")
            self._reservation = None

    def _start_over(self, reason: gateway_lane_pb2.AbandonReason.ValueType) -> None:
        """Go on under another id: the router may end the hold of this one at any time."""
        self._withdraw(reason)
        self._reservation = self._exchange = None

    def _withdraw(self, reason: gateway_lane_pb2.AbandonReason.ValueType) -> None:
        refused = False
        if self._exchange is not None:
            self._exchange.withdraw(_TIMEOUT, reason)
            refused = self._exchange.ended_by_router
        if self._reservation is not None:
            self._reservation.release("REFUSED" if refused else "NOT_DISPATCHED")


def _stricter(ours: TrustLevel, theirs: TrustLevel | None) -> TrustLevel:
    return theirs if theirs is not None and _below(ours, theirs) else ours


def _below(level: TrustLevel, floor: TrustLevel) -> bool:
    return trust_level_rank(level) < trust_level_rank(floor)


def _offered(price: Price | None) -> OfferedPrice | None:
    if price is None:
        return None
    return OfferedPrice(
        price_id=price.price_id,
        input_micros=price.input_micros,
        output_micros=price.output_micros,
        cache_read_micros=price.cache_read_micros,
        minimum_charge_micros=price.minimum_charge_micros,
    )


def _written(signed: SignedBytes) -> Mapping[str, str]:
    return {
        "document": to_base64(signed.document),
        "signature": to_base64(signed.signature),
        "key_id": signed.key_id,
    }
