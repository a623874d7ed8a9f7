"""One answer of end-to-end mode: claimed, passed on as it comes, settled by what is not sealed."""

from typing import final

import orjson
from darkbloom.common.v1.frame_pb2 import Frame
from darkbloom.router.v1 import gateway_lane_pb2, provider_link_pb2
from darkbloom_edge.receipt import terminal_sha256
from darkbloom_edge.records import RecordKind, write_record
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError

from darkbloom_gateway import convert, kinds
from darkbloom_gateway.end_to_end.relayed import RelayedAttempt
from darkbloom_gateway.errors import (
    ApiError,
    ClientGoneError,
    ViolationError,
    ViolationFault,
    first_content_late,
    internal,
    offer_expired,
    overloaded,
    provider_failed,
    timed_out,
)
from darkbloom_gateway.exchange import Exchange
from darkbloom_gateway.link import RouterLink
from darkbloom_gateway.links import BROKEN_S
from darkbloom_gateway.mailbox import Mailbox
from darkbloom_gateway.model import Offer, OpenedCounts, Plan, SignedBytes
from darkbloom_gateway.ports import ReceiptRecord
from darkbloom_gateway.prompt import SealedBody
from darkbloom_gateway.proof import proven
from darkbloom_gateway.receipts import Relayed, assembled
from darkbloom_gateway.stage import Stage

CLAIM_S = 2.0
"""Longest wait for the router's answer to a claim."""
_RECORDS = {
    kinds.PREAMBLE: RecordKind.PREAMBLE,
    kinds.CHUNK: RecordKind.CONTENT,
    kinds.CHUNK_FINAL: RecordKind.FINAL,
}


@final
class Relay:
    """Carries one answer; for one use and one task.

    Use: `claim`, `dispatch`, `begin`, then `take`, `passed_on` and `more` until `final`,
    `conclude`; and in every case `abort`, which does nothing after a conclusion.

    Who gives the hold back: the router, which has it since the offer was made; this side only where
    the lane was lost before any content, because then nothing was delivered.
    """

    def __init__(self, stage: Stage, link: RouterLink, mailbox: Mailbox) -> None:
        """Join the lane.

        Raises:
            LaneLostError: there is no lane now.
        """
        self._stage = stage
        self._clock = stage.clock
        self._mailbox = mailbox
        self._exchange = Exchange[RelayedAttempt](link, mailbox, late=True)
        self._attempt: RelayedAttempt | None = None
        self._plan: Plan | None = None
        self._records: list[bytes] = []
        self._terminal = b""
        self._passed_on = 0
        self._heard_at = 0.0
        self._committed = False
        self._recorded = False
        self.held = ""
        """Request id of the hold, once the claim was heard; empty where nobody pays."""

    @property
    def attempt(self) -> RelayedAttempt:
        """The attempt; only after `dispatch`."""
        if self._attempt is None:
            raise RuntimeError("nothing was dispatched")
        return self._attempt

    @property
    def counts(self) -> OpenedCounts:
        """What was passed on; nothing before `dispatch`."""
        return self._attempt.opened if self._attempt is not None else OpenedCounts()

    @property
    def final(self) -> bool:
        """Whether the last chunk has come."""
        return self.attempt.final

    async def claim(self, attempt_id: str, account_id: str, body_s: float) -> tuple[Offer, bytes]:
        """Take the offer over.

        Args:
            attempt_id: of the offer.
            account_id: whose it must be.
            body_s: how long the sealed body may take.

        Returns:
            The offer, and what the worker that made it has said of it.

        Raises:
            ApiError: 410: there is no such offer any more.
        """
        message = gateway_lane_pb2.Claim(attempt_id=attempt_id, account_id=account_id)
        message.body_time.CopyFrom(Duration(nanos=int(body_s % 1 * 1e9), seconds=int(body_s)))
        self._exchange.claim(message)
        give_up_at = self._clock.monotonic() + CLAIM_S
        while True:
            self._look()
            while self._mailbox.frames:
                frame = self._mailbox.frames.popleft()
                if frame.kind == kinds.REFUSED:
                    self._refused(frame)
                elif frame.kind == kinds.OFFER:
                    try:
                        made = gateway_lane_pb2.Offer.FromString(frame.payload)
                    except DecodeError:
                        raise internal() from None
                    return convert.offer(made), made.context
            if self._clock.monotonic() >= give_up_at:
                raise offer_expired()
            await self._mailbox.wait(give_up_at)

    def dispatch(self, attempt: RelayedAttempt, plan: Plan, body: SealedBody) -> None:
        """Pass the sealed request on.

        Raises:
            ApiError: 503: too many bodies wait; or the router has given the offer up.
        """
        self._look()
        for frame in self._mailbox.frames:
            if frame.kind == kinds.REFUSED:
                self._refused(frame)
        if not self._exchange.dispatch(attempt, body):
            raise overloaded()
        self._attempt, self._plan = attempt, plan

    async def begin(self) -> None:
        """Return when the first content is there.

        Raises:
            ApiError: this attempt has failed; what the consumer is told.
            ClientGoneError: the consumer left.
        """
        give_up_at = self._clock.monotonic() + self._stage.config.first_content_s
        while not self._committed:
            self._look()
            self._drain()
            if self._committed:
                break
            if self._clock.monotonic() >= give_up_at:
                self._withdraw_late()
                raise first_content_late()
            await self._mailbox.wait(give_up_at)
        self._heard_at = self._clock.monotonic()

    def take(self) -> bytes:
        """Return the records since the last call."""
        records, self._records = self._records, []
        return b"".join(records)

    def passed_on(self) -> None:
        """Note that the consumer has taken everything so far; grants credits."""
        attempt = self.attempt
        fresh, self._passed_on = attempt.frames - self._passed_on, attempt.frames
        self._exchange.credit(attempt, fresh)

    async def more(self, alarm_at: float) -> None:
        """Wait for chunks, at most until `alarm_at` (monotonic seconds).

        Raises:
            ApiError: the answer is broken.
            ClientGoneError: the consumer left.
        """
        silent_at = self._heard_at + self._stage.config.silence_s
        await self._mailbox.wait(min(alarm_at, silent_at))
        self._look()
        if not self._drain() and self._clock.monotonic() >= silent_at:
            self._withdraw_late()
            raise timed_out()

    async def conclude(self) -> bytes:
        """Wait for the signed terminal, check it, countersign, close; return the last record.

        Raises:
            ApiError: it did not come, or it does not say what passed.
            ClientGoneError: the consumer left.
        """
        give_up_at = self._clock.monotonic() + self._stage.config.terminal_s
        while not self._terminal:
            await self._mailbox.wait(give_up_at)
            self._look()
            if not self._drain() and self._clock.monotonic() >= give_up_at:
                self._withdraw_late()
                raise provider_failed("the answer ended without completion")

        attempt, stage = self.attempt, self._stage
        catalog = stage.shelf.catalog
        build = catalog.builds.get(attempt.offer.build) if catalog is not None else None
        hashes = build.accepted_weight_hashes if build is not None else frozenset[str]()
        terminal, signed = proven(attempt, self._terminal, hashes, self._report)

        self._exchange.close(attempt)
        if not self._free:
            stage.links.closed(self._exchange.link, convert.settle_opened(attempt, signed))
        seen = Relayed(
            sealed_sha256=attempt.sealed_sha256,
            relayed_sha256=attempt.relayed_sha256,
            outcome=terminal.outcome,
            terminal_sha256=terminal_sha256(signed.document),
        )
        record = self._record(seen, signed)
        if terminal.outcome != "completed":
            raise provider_failed("the provider stopped the answer")
        stage.meters.receipt("made")
        return write_record(RecordKind.END, assembled(attempt, signed, record))

    def left(self) -> None:
        """Note that the consumer has hung up, or does not read any more: the terminal decides."""
        if self._attempt is not None:
            self._attempt.left()

    def abort(self) -> None:
        """End the request wherever it is; does nothing where it has ended."""
        attempt = self._attempt
        self._exchange.withdraw(
            provider_link_pb2.CANCEL_REASON_CLIENT_GONE,
            gateway_lane_pb2.ABANDON_REASON_CLIENT_GONE,
        )
        if self._recorded:
            return
        if attempt is None or not attempt.opened.completion_tokens:
            if self._mailbox.lost and self.held:
                self._stage.ledger.give_back(self.held, "NOT_DISPATCHED")
            return
        if not self._free:
            # Without a terminal only the consumer has counted the prompt.
            last_word = convert.settle_opened(attempt, None)
            opened = last_word.opened
            opened.prompt_tokens = min(opened.prompt_tokens, attempt.estimate)
            if self._mailbox.lost:
                self._stage.links.rescue(last_word)
            else:
                self._stage.links.closed(self._exchange.link, last_word, fresh_s=BROKEN_S)
        self._record(
            Relayed(
                sealed_sha256=attempt.sealed_sha256,
                relayed_sha256=attempt.relayed_sha256,
                outcome="broken",
            ),
            None,
        )

    @property
    def _free(self) -> bool:
        return self._plan is None or self._plan.free

    def _record(self, seen: Relayed, terminal: SignedBytes | None) -> SignedBytes:
        self._recorded = True
        attempt, plan = self.attempt, self._plan
        if plan is None:
            raise RuntimeError("nothing was dispatched")
        record = self._stage.press.relayed(attempt, plan, seen, self._clock.now())
        if not plan.free or terminal is not None:
            self._stage.ledger.record(
                ReceiptRecord(
                    attempt.request_id,
                    record,
                    terminal,
                    attempt.checked.signed,
                    attempt.checked.identity_key,
                    plan.account_id if plan.free else "",
                )
            )
        return record

    def _look(self) -> None:
        mailbox = self._mailbox
        if mailbox.gone:
            raise ClientGoneError
        if mailbox.lost and not mailbox.frames:
            raise provider_failed("the connection to the provider was lost")
        if mailbox.overflowed:
            raise internal()

    def _drain(self) -> bool:
        """Take in what waits; whether anything was there. The token path: no await, no log."""
        frames, stream = self._mailbox.frames, self.attempt.offer.stream
        heard = False
        while frames:
            frame = frames.popleft()
            kind = frame.kind
            if kind == kinds.REFUSED:
                self._refused(frame)
            if frame.stream != stream:
                continue
            heard = True
            if kind in _RECORDS:
                self._pass(frame)
            elif kind == kinds.TERMINAL:
                self._terminal = self._terminal or frame.payload
            elif kind == kinds.ATTEMPT_FAILED:
                self._fail(frame.payload)
        if heard:
            self._heard_at = self._clock.monotonic()
        return heard

    def _pass(self, frame: Frame) -> None:
        attempt, kind = self.attempt, frame.kind
        try:
            attempt.take(frame.payload, frame.tokens, final=kind == kinds.CHUNK_FINAL)
        except ViolationError as error:
            self._report(error.fault)
            raise provider_failed("the provider's answer was not authentic") from None
        self._committed = self._committed or kind in kinds.CONTENT
        self._records.append(write_record(_RECORDS[kind], frame.payload, frame.tokens))

    def _refused(self, frame: Frame) -> None:
        self._exchange.ended_by_router = True
        self._exchange.keep_only(())
        try:
            message = gateway_lane_pb2.Refused.FromString(frame.payload)
        except DecodeError:
            raise internal() from None
        raise convert.refusal(message)

    def _fail(self, payload: bytes) -> None:
        # The last word: without it what was delivered since the last credit would not be paid.
        self._exchange.close(self.attempt)
        try:
            message = gateway_lane_pb2.AttemptFailed.FromString(payload)
        except DecodeError:
            raise internal() from None
        raise convert.attempt_failure(message)

    def _report(self, fault: ViolationFault) -> None:
        attempt = self.attempt
        self._stage.meters.attempt_failed(attempt.offer.build, f"violation_{fault.value}")
        # Before anything was written to the consumer there is nothing that he could pay for.
        counts = attempt.opened if self._passed_on else OpenedCounts()
        self._exchange.report(attempt, fault, counts)
        self._exchange.ended_by_router = True

    def _withdraw_late(self) -> None:
        self._exchange.withdraw(
            provider_link_pb2.CANCEL_REASON_TIMEOUT,
            gateway_lane_pb2.ABANDON_REASON_CLIENT_GONE,
        )


def error_record(error: ApiError) -> bytes:
    """Write the record that ends a broken stream."""
    said = {"message": error.message, "type": error.kind, "code": error.code}
    return write_record(RecordKind.ERROR, orjson.dumps({"error": said}))
