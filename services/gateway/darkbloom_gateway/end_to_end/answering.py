"""`POST /v1/offers/answer` and `/v1/offers/decline`: the second call, on any worker."""

import asyncio
import hashlib
from dataclasses import dataclass, replace
from typing import final

import structlog
from darkbloom_edge.boxes import KEY_BYTES, OVERHEAD_BYTES
from darkbloom_edge.errors import MalformedError
from darkbloom_edge.offers import parse_offer_id
from darkbloom_edge.records import (
    KEEP_ALIVE,
    MEDIA_TYPE,
    NEW_OFFER,
    OFFER_HEADER,
    RETRY_HEADER,
)

from darkbloom_gateway.auth import Authenticator
from darkbloom_gateway.end_to_end.planning import OfferContext, read_context, restore_plan
from darkbloom_gateway.end_to_end.relay import Relay, error_record
from darkbloom_gateway.end_to_end.relayed import RelayedAttempt
from darkbloom_gateway.end_to_end.slots import GRACE_S, Slots
from darkbloom_gateway.errors import (
    ApiError,
    ClientGoneError,
    LaneLostError,
    bad_request,
    body_too_slow,
    internal,
    offer_exceeded,
    offer_unreachable,
    provider_failed,
)
from darkbloom_gateway.facts import provider_headers
from darkbloom_gateway.gate import Gate
from darkbloom_gateway.mailbox import Mailbox
from darkbloom_gateway.model import KeyRecord, Offer, Plan, Timing
from darkbloom_gateway.offer_check import OfferCheck
from darkbloom_gateway.presence import Presence
from darkbloom_gateway.prompt import SealedBody
from darkbloom_gateway.self_route import Route
from darkbloom_gateway.stage import Stage
from darkbloom_gateway.verdicts import Checked, VerdictRefusedError
from darkbloom_gateway.wire import (
    Headers,
    Receive,
    Scope,
    Send,
    header,
    presented,
    read_body,
    send_error,
)
from darkbloom_gateway.writer import Writer

ANSWER_PATH = "/v1/offers/answer"
DECLINE_PATH = "/v1/offers/decline"
GONE_STATUS = 499
_GONE = 410
BODY_S, BODY_RATE, MAX_BODY_S = 2.0, 512 * 1024, 10.0
"""A sealed body has 2 s and a second for each 512 KiB, 10 s at most."""
_MIN_BODY = KEY_BYTES + OVERHEAD_BYTES
_RETRIED = 429
"""Another machine may help from this status on; below it the request itself is at fault."""
_OFFER = OFFER_HEADER.encode("ascii")
_RETRY = (RETRY_HEADER.encode("ascii"), NEW_OFFER.encode("ascii"))
_MEDIA_TYPE = MEDIA_TYPE.encode("ascii")
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Claimed:
    """An offer that is this worker's now."""

    offer: Offer
    context: OfferContext
    plan: Plan


@final
class Desk:
    """What both endpoints share.

    Args:
        stage: collaborators of the token path.
        authenticator: who asks.
        gate: counts what is in flight, and says no while draining.
        slots: counts open offers.
    """

    def __init__(
        self, stage: Stage, authenticator: Authenticator, gate: Gate, slots: Slots
    ) -> None:
        self.stage = stage
        self.gate = gate
        self.slots = slots
        self._authenticator = authenticator

    async def caller(self, scope: Scope) -> KeyRecord:
        """Return who asks.

        Raises:
            ApiError: 401, 403 or 503.
        """
        with self.stage.spans.step("gateway.auth"):
            return await self._authenticator.authenticate(presented(scope))

    def join(self, scope: Scope, mailbox: Mailbox) -> tuple[Relay, str]:
        """Return a relay at the router that keeps the offer, and the id of its attempt.

        Raises:
            ApiError: 400 without an offer's id, 503 where no lane leads there.
        """
        given = header(scope, _OFFER)
        try:
            tag, attempt_id = parse_offer_id((given or b"").decode("ascii"))
        except (MalformedError, UnicodeDecodeError):
            raise bad_request("name the offer", param="X-Darkbloom-Offer") from None
        link = self.stage.links.keeper(tag)
        if link is None:
            raise again(offer_unreachable())
        try:
            return Relay(self.stage, link, mailbox), attempt_id
        except LaneLostError:
            raise again(offer_unreachable()) from None

    async def claim(self, relay: Relay, attempt_id: str, key: KeyRecord, body_s: float) -> Claimed:
        """Take an offer over.

        Raises:
            ApiError: 410: it is over, or of somebody else; 400 or 413: limits were lowered since.
        """
        try:
            offer, context = await relay.claim(attempt_id, key.account_id, body_s)
        except ApiError as error:
            raise again(error) from None
        said = read_context(context)
        try:
            plan = restore_plan(said, key, self.stage.tiers, self.stage.clock.now())
        except ApiError as error:
            # It is used up, like one that nobody has claimed.
            await self.slots.free(key.account_id, said.slot)
            raise (again(error) if error.http_status == _GONE else error) from None
        relay.held = "" if plan.free else said.request_id
        return Claimed(offer, said, plan)

    def settle_rates(self, claimed: Claimed, prompt_tokens: int, completion_tokens: int) -> None:
        """Correct what the offer has claimed of the rates to what was used."""
        charge = claimed.plan.claim
        if charge is None:
            return
        _, claimed_in, claimed_out = charge.amounts
        amounts = (0, min(prompt_tokens, claimed_in) - claimed_in, completion_tokens - claimed_out)
        if any(amounts):
            self.stage.limiter.correct(replace(charge, amounts=amounts, forced=True))


@final
class Answers:
    """Passes one sealed request on, and its sealed answer back."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._stage = desk.stage

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        self._stage.meters.received("end_to_end")
        answering = _Answering(self._desk, scope, receive, send)
        status = GONE_STATUS
        try:
            with self._desk.gate.entered(), self._stage.spans.request(scope):
                status = await answering.run()
        except ClientGoneError:
            self._stage.meters.client_gone(answering.build, committed=False)
        except ApiError as error:
            status = error.http_status
            try:
                async with asyncio.timeout(self._stage.config.send_stall_s):
                    await send_error(send, error, path=scope["path"])
            except TimeoutError:
                status = GONE_STATUS
        if status:
            self._stage.meters.outcome(answering.build, status)


@final
class Declines:
    """Gives an offer back that the client does not want."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        desk, config = self._desk, self._desk.stage.config
        try:
            async with asyncio.timeout(config.body_idle_s + config.send_stall_s):
                try:
                    key = await desk.caller(scope)
                    await read_body(scope, receive, limit=0, idle_s=config.body_idle_s)
                    relay, attempt_id = desk.join(scope, Mailbox())
                    try:
                        claimed = await desk.claim(relay, attempt_id, key, BODY_S)
                    finally:
                        relay.abort()
                    desk.settle_rates(claimed, 0, 0)
                    await desk.slots.free(key.account_id, claimed.context.slot)
                    await send({"type": "http.response.start", "status": 204, "headers": []})
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
                except ApiError as error:
                    await send_error(send, error, path=scope["path"])
        except (ClientGoneError, TimeoutError):
            return


@final
class _Answering:
    """One use of an offer."""

    def __init__(self, desk: Desk, scope: Scope, receive: Receive, send: Send) -> None:
        self._desk = desk
        self._stage = desk.stage
        self._clock = desk.stage.clock
        self._scope = scope
        self._receive = receive
        self._writer = Writer(send, desk.stage.config.send_stall_s, media_type=_MEDIA_TYPE)
        self._mailbox = Mailbox()
        self._timing = Timing()
        self._started_at = desk.stage.clock.monotonic()
        self.build = "unknown"

    async def run(self) -> int:
        """Answer, and return the HTTP status for the meters; 0 where they were told already."""
        key = await self._desk.caller(self._scope)
        body_s = _body_time(self._scope, self._stage.config.max_body_bytes)
        relay, attempt_id = self._desk.join(self._scope, self._mailbox)
        claimed: Claimed | None = None
        try:
            claimed = await self._desk.claim(relay, attempt_id, key, body_s)
            self.build = claimed.plan.build
            try:
                # The offer says how much may come: who promises more gets no more time for it.
                body_s = min(body_s, _time_for(KEY_BYTES + claimed.context.body_bytes))
                await self._desk.slots.keep(key.account_id, claimed.context.slot, body_s + GRACE_S)
                sender_key, body = await self._read(claimed, body_s)
                checked = await self._check(claimed)
                attempt = RelayedAttempt(
                    claimed.offer,
                    checked,
                    claimed.plan,
                    request_id=claimed.context.request_id,
                    sender_key=sender_key,
                    body=body,
                )
                relay.dispatch(attempt, claimed.plan, body)
            finally:
                await self._desk.slots.free(key.account_id, claimed.context.slot)
            del body
            async with Presence(self._receive, self._mailbox):
                return await self._answer(relay, attempt)
        except ClientGoneError:
            relay.left()
            raise
        except ApiError as error:
            if claimed is not None and error.http_status >= _RETRIED:
                raise again(error, claimed.offer) from None
            raise
        finally:
            relay.abort()
            if claimed is not None:
                self._settle_rates(relay, claimed)

    async def _read(self, claimed: Claimed, body_s: float) -> tuple[bytes, SealedBody]:
        """Read `sender key ‖ ciphertext`, within the time that the router waits."""
        limit = KEY_BYTES + claimed.context.body_bytes
        said = header(self._scope, b"content-length")
        if said is not None and said.isdigit() and int(said) > limit:
            raise offer_exceeded()
        try:
            async with asyncio.timeout(body_s):
                # One byte more than allowed tells too much from just enough.
                body = await read_body(
                    self._scope,
                    self._receive,
                    limit=limit + 1,
                    idle_s=self._stage.config.body_idle_s,
                )
        except TimeoutError:
            raise body_too_slow() from None
        if len(body) > limit:
            raise offer_exceeded()
        if len(body) < _MIN_BODY:
            raise bad_request("the sealed body is shorter than a box")
        ciphertext = body[KEY_BYTES:]
        return body[:KEY_BYTES], SealedBody(ciphertext, hashlib.sha256(ciphertext).digest())

    async def _check(self, claimed: Claimed) -> Checked:
        """Judge the verdict once more: it may have been revoked since the offer was made."""
        check = OfferCheck(self._stage, claimed.plan)
        try:
            if claimed.plan.route is not Route.PUBLIC:
                await check.know_own(again=False)
            return await check.check(claimed.offer)
        except VerdictRefusedError:
            raise provider_failed("the provider is not trusted any more") from None

    async def _answer(self, relay: Relay, attempt: RelayedAttempt) -> int:
        dispatched_at = self._clock.monotonic()
        await relay.begin()
        first_at = self._clock.monotonic()
        self._timing.dispatch_us = int((first_at - dispatched_at) * 1e6)
        meters = self._stage.meters
        meters.first_content(self.build, first_at - self._started_at)
        self._stage.spans.began(first_at - self._started_at)
        try:
            await self._writer.start(self._headers(attempt))
            await self._pump(relay)
            last = await relay.conclude()
            await self._writer.write(last, more=False)
        except ClientGoneError:
            relay.left()
            meters.client_gone(self.build, committed=True)
            return GONE_STATUS
        except ApiError as error:
            return await self._break(relay, error)
        except Exception as error:  # noqa: BLE001 - headers are out; the stream says it
            _log.error("relay_failed", attempt_id=attempt.offer.attempt_id, exc_info=error)
            return await self._break(relay, internal())
        counts = attempt.opened
        meters.phase("total", self._clock.monotonic() - self._started_at)
        meters.tokens(
            self.build,
            prompt=counts.prompt_tokens,
            cached=counts.cached_tokens,
            completion=counts.completion_tokens,
            reasoning=0,
        )
        return 200

    async def _pump(self, relay: Relay) -> None:
        """Pass chunks on: one send per drained mailbox."""
        clock, keepalive_s = self._clock, self._stage.config.keepalive_s
        await self._writer.write(relay.take())
        relay.passed_on()
        written_at = clock.monotonic()
        while not relay.final:
            await relay.more(written_at + keepalive_s)
            records = relay.take()
            if not records and clock.monotonic() >= written_at + keepalive_s:
                records = KEEP_ALIVE
            if records:
                await self._writer.write(records)
                written_at = clock.monotonic()
            relay.passed_on()

    async def _break(self, relay: Relay, error: ApiError) -> int:
        """End a started stream with what is still unsent, and one error."""
        try:
            await self._writer.write(relay.take() + error_record(error), more=False)
        except ClientGoneError:
            return GONE_STATUS
        self._stage.spans.broke()
        self._stage.meters.outcome(self.build, error.http_status, broken=True)
        return 0

    def _headers(self, attempt: RelayedAttempt) -> Headers:
        return provider_headers(attempt, self._timing)

    def _settle_rates(self, relay: Relay, claimed: Claimed) -> None:
        counts = relay.counts
        self._desk.settle_rates(
            claimed,
            claimed.plan.prompt_estimate if counts.frames else 0,
            counts.completion_tokens,
        )


def again(error: ApiError, offer: Offer | None = None) -> ApiError:
    """Say in an error that another offer may help, and whom this one was of."""
    headers = [*error.headers, _RETRY]
    if offer is not None:
        headers.append((b"x-provider-id", offer.provider_id.encode("ascii", "replace")))
    error.headers = tuple(headers)
    return error


def _body_time(scope: Scope, max_body_bytes: int) -> float:
    """Return how many seconds a body may take, by what is said of its size."""
    said = header(scope, b"content-length")
    return _time_for(int(said) if said is not None and said.isdigit() else max_body_bytes)


def _time_for(size: int) -> float:
    return min(MAX_BODY_S, BODY_S + size / BODY_RATE)
