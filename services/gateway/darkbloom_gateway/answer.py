"""One answer, from its first content to its receipt."""

from typing import final

from darkbloom.router.v1 import gateway_lane_pb2, provider_link_pb2
from darkbloom.router.v1.gateway_lane_pb2 import SettleOpened
from darkbloom_edge.delta import Delta
from darkbloom_edge.terminal import Terminal
from google.protobuf.message import DecodeError

from darkbloom_gateway import convert, kinds
from darkbloom_gateway.attempt import Attempt
from darkbloom_gateway.errors import (
    ClientGoneError,
    ViolationError,
    ViolationFault,
    internal,
    provider_failed,
    timed_out,
)
from darkbloom_gateway.exchange import Exchange
from darkbloom_gateway.links import BROKEN_S
from darkbloom_gateway.mailbox import Mailbox
from darkbloom_gateway.model import KeyRecord, SignedBytes, Timing
from darkbloom_gateway.ports import ReceiptRecord
from darkbloom_gateway.prompt import Prompt
from darkbloom_gateway.proof import proven
from darkbloom_gateway.recount import Claim
from darkbloom_gateway.seek import Seeker
from darkbloom_gateway.stage import Stage


@final
class Answer:
    """Hands out what the winner says, opened and checked, in the order of its boxes.

    Use: `begin`, then `take`, `passed_on` and `more` until `final`, `conclude`; and in every case
    `abort`, which does nothing after a conclusion. What nobody will be given of is ended by
    `disown` before. Not for two tasks.
    """

    def __init__(self, stage: Stage, key: KeyRecord, prompt: Prompt) -> None:
        self._stage = stage
        self._prompt = prompt
        self._clock = stage.clock
        self._seeker = Seeker(stage, key, prompt)
        self._deltas: list[Delta] = []
        self._terminal = b""
        self._passed_on = 0
        self._heard_at = 0.0
        self._recorded = False
        self._sample = stage.recounts.sample()

    @property
    def mailbox(self) -> Mailbox:
        """Where the consumer's leaving is noted."""
        return self._seeker.mailbox

    @property
    def rate_headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """`x-ratelimit-*`, once known."""
        return self._seeker.rate_headers

    @property
    def held_micros(self) -> int | None:
        """What is held for it, in micro-USD; None until it is known."""
        return self._seeker.held_micros

    @property
    def timing(self) -> Timing:
        """Where time went."""
        return self._seeker.timing

    @property
    def request_id(self) -> str:
        """The id of money, lanes and receipts."""
        return self._seeker.request_id

    @property
    def job(self) -> str:
        """Bare id of the attempt that answers; empty before there is one."""
        winner = self._seeker.winner
        return winner.offer.attempt_id.partition("_")[2] if winner is not None else ""

    @property
    def winner(self) -> Attempt:
        """The attempt that answers; only after `begin`."""
        if self._seeker.winner is None:
            raise RuntimeError("the request has no winner yet")
        return self._seeker.winner

    @property
    def committed(self) -> bool:
        """Whether anything was passed on."""
        return self._passed_on > 0

    @property
    def final(self) -> bool:
        """Whether the last delta was opened."""
        return self.winner.final

    async def begin(self) -> None:
        """Return when the first content is there; raises as `Seeker.seek`."""
        await self._seeker.seek()
        self._deltas = self._seeker.deltas
        if self._sample is not None:
            for delta in self._deltas:
                self._sample.feed(delta)
        self._terminal = self._seeker.terminal or b""
        self._heard_at = self._clock.monotonic()

    def resume(self) -> None:
        """Begin to measure silence anew, after nobody has granted credits for a while."""
        self._heard_at = self._clock.monotonic()

    def take(self) -> list[Delta]:
        """Return what was opened since the last call."""
        deltas, self._deltas = self._deltas, []
        return deltas

    def passed_on(self) -> None:
        """Note that the consumer has taken everything so far; grants credits."""
        winner = self.winner
        fresh, self._passed_on = winner.frames - self._passed_on, winner.frames
        self._exchange.credit(winner, fresh)

    async def more(self, alarm_at: float) -> None:
        """Wait for chunks, at most until `alarm_at` (monotonic seconds), and open them.

        Raises:
            ApiError: the answer is broken.
            ClientGoneError: the consumer left.
        """
        silent_at = self._heard_at + self._stage.config.silence_s
        await self.mailbox.wait(min(alarm_at, silent_at))
        self._look()
        if not self._drain() and self._clock.monotonic() >= silent_at:
            self._seeker.withdraw(cancel=provider_link_pb2.CANCEL_REASON_TIMEOUT)
            raise timed_out()

    async def conclude(self) -> tuple[Terminal, bytes]:
        """Wait for the signed terminal, check it, countersign, and close.

        Returns:
            The terminal and the receipt's JSON.

        Raises:
            ApiError: it did not come, or it does not say what came.
            ClientGoneError: the consumer left.
        """
        give_up_at = self._clock.monotonic() + self._stage.config.terminal_s
        while not self._terminal:
            await self.mailbox.wait(give_up_at)
            self._look()
            if not self._drain() and self._clock.monotonic() >= give_up_at:
                self._seeker.withdraw(cancel=provider_link_pb2.CANCEL_REASON_TIMEOUT)
                raise provider_failed("the answer ended without completion")

        winner = self.winner
        hashes = self._prompt.weight_hashes(winner.offer.build)
        terminal, signed = proven(winner, self._terminal, hashes, self._report)

        self._exchange.close(winner)
        if not self._prompt.plan.free:
            # Should the replica be lost before it has heard this, another one is told.
            self._stage.links.closed(self._exchange.link, convert.settle_opened(winner, signed))
        receipt, record = self._stage.press.press(
            winner,
            self._prompt.plan,
            terminal,
            signed,
            self._clock.now(),
            sealed_to=self._seeker.sealed_to,
        )
        self._record(record, signed)
        if terminal.outcome != "completed":
            raise provider_failed("the provider stopped the answer")
        self._stage.meters.receipt("made")
        self._recount(winner)
        return terminal, receipt

    def abort(self) -> None:
        """End the request wherever it is; does nothing where it has ended.

        What was opened of an answer that broke is recorded too: the router says the same number to
        billing, and is not to be believed alone.
        """
        self._seeker.withdraw()
        self._seeker.settle_rates()
        winner = self._seeker.winner
        if winner is None or self._recorded or not winner.opened.completion_tokens:
            return
        if not self._prompt.plan.free:
            self._hand_in(convert.settle_opened(winner, None))
        plan, sealed_to = self._prompt.plan, self._seeker.sealed_to
        now = self._clock.now()
        self._record(self._stage.press.broken(winner, plan, now, sealed_to=sealed_to))

    def disown(self) -> None:
        """End the request where nothing of it was delivered or will be: nobody pays for it."""
        self._recorded = True
        self._seeker.withdraw(delivered=False)

    def _hand_in(self, last_word: SettleOpened) -> None:
        """See to it that what was opened is settled, even if the replica that knows it is lost."""
        links = self._stage.links
        if self.mailbox.lost:
            links.rescue(last_word)
        else:
            # The router waits for the terminal of a broken answer before it settles.
            links.closed(self._exchange.link, last_word, fresh_s=BROKEN_S)

    @property
    def _exchange(self) -> Exchange[Attempt]:
        if self._seeker.exchange is None:
            raise RuntimeError("the request is not on a lane")
        return self._seeker.exchange

    def _record(self, record: SignedBytes, terminal: SignedBytes | None = None) -> None:
        self._recorded = True
        plan, checked = self._prompt.plan, self.winner.checked
        if plan.free and terminal is None:
            # No money, so that nobody has to know how far it came.
            return
        self._stage.ledger.record(
            ReceiptRecord(
                self.winner.request_id,
                record,
                terminal,
                checked.signed,
                checked.identity_key,
                plan.account_id if plan.free else "",
            )
        )

    def _recount(self, winner: Attempt) -> None:
        """Let the answer be counted again, if it was drawn for that."""
        sample, self._sample = self._sample, None
        if sample is None or not sample.usable:
            return
        last = winner.last
        # The string that ended it was made and not delivered.
        texts = [*sample.texts(), last.stop_sequence or ""]
        offer = winner.offer
        claim = Claim(offer.build, offer.provider_id, last.completion_tokens, texts)
        self._stage.recounts.submit(claim)

    def _look(self) -> None:
        mailbox = self.mailbox
        if mailbox.gone:
            raise ClientGoneError
        if mailbox.lost and not mailbox.frames:
            raise provider_failed("the connection to the provider was lost")
        if mailbox.overflowed:
            raise internal()

    def _drain(self) -> bool:
        """Open what waits; whether anything was there. The token path: no await, no log."""
        winner, frames = self.winner, self.mailbox.frames
        stream = winner.offer.stream
        heard = False
        while frames:
            frame = frames.popleft()
            if frame.stream != stream:
                continue
            heard = True
            kind = frame.kind
            if kind in kinds.CONTENT:
                final = kind == kinds.CHUNK_FINAL
                try:
                    delta = winner.open(frame.payload, frame.tokens, final=final)
                except ViolationError as error:
                    self._report(error.fault)
                    raise provider_failed("the provider's answer was not authentic") from None
                self._deltas.append(delta)
                if self._sample is not None:
                    self._sample.feed(delta)
            elif kind == kinds.TERMINAL:
                self._terminal = self._terminal or frame.payload
            elif kind == kinds.ATTEMPT_FAILED:
                self._fail(frame.payload)
        if heard:
            self._heard_at = self._clock.monotonic()
        return heard

    def _fail(self, payload: bytes) -> None:
        # The last word on what was opened: without it the delivered tokens since the last credit
        # would not be paid.
        self._exchange.close(self.winner)
        try:
            message = gateway_lane_pb2.AttemptFailed.FromString(payload)
        except DecodeError:
            raise internal() from None
        raise convert.attempt_failure(message)

    def _report(self, fault: ViolationFault) -> None:
        self._stage.meters.attempt_failed(self._prompt.plan.build, f"violation_{fault.value}")
        self._exchange.report(self.winner, fault, self.winner.opened)
        self._exchange.ended_by_router = True
