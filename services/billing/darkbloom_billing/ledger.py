"""The money of requests: hold, extend, renew, settle, release, sweep."""

from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import structlog
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import InvalidArgumentError, MeshError

from darkbloom_billing import settlement as judging
from darkbloom_billing.batch import MAX_ROWS, NaturalBatch
from darkbloom_billing.keyring import KeyRing
from darkbloom_billing.meters import Meters
from darkbloom_billing.model import (
    End,
    EndKind,
    EndOutcome,
    EndStatus,
    HoldFacts,
    HoldOrder,
    HoldOutcome,
    HoldRefusal,
    PriceRow,
    Rejection,
    Settlement,
)
from darkbloom_billing.ports import LedgerStore
from darkbloom_billing.prices import Prices
from darkbloom_billing.pricing import is_wholesale, worst_case

_log = structlog.get_logger()


class Ledger:
    """Every hold ends exactly once, and each call here may be repeated without effect.

    Args:
        store: The double-entry books.
        prices: Price rows in force.
        verdict_keys: Attestation's keys.
        clock: Time.
        meters: Counters of outcomes.
        lease_s: Lease of a new hold and longest renewal, in seconds.
        development: Whether a development verdict may move money.
    """

    def __init__(
        self,
        store: LedgerStore,
        prices: Prices,
        verdict_keys: KeyRing,
        clock: Clock,
        meters: Meters,
        *,
        lease_s: float,
        development: bool,
    ) -> None:
        self._store = store
        self._prices = prices
        self._verdict_keys = verdict_keys
        self._clock = clock
        self._meters = meters
        self._lease = timedelta(seconds=lease_s)
        self._development = development
        self.holds: NaturalBatch[tuple[HoldOrder, PriceRow], HoldOutcome] = NaturalBatch(
            self._place, observe=meters.batch("hold")
        )
        self.ends: NaturalBatch[End, EndOutcome | None] = NaturalBatch(
            self._resolve, observe=meters.batch("resolve")
        )
        self.questions: NaturalBatch[tuple[str, bytes], HoldFacts | None] = NaturalBatch(
            store.holds, observe=meters.batch("facts")
        )

    def batches(self) -> Iterable[tuple[str, Coroutine[Any, Any, None]]]:
        """Return the work of the batches by name, to be run as long as the ledger serves."""
        yield "holds", self.holds.run()
        yield "ends", self.ends.run()
        yield "questions", self.questions.run()

    async def hold(self, orders: Sequence[HoldOrder]) -> list[HoldOutcome]:
        """Reserve the worst case of each order at the platform's price in force."""
        now = self._clock.now()
        book = self._prices.book
        outcomes = await self.holds.submit(
            [(order, book.for_payer(order.account_id, order.build, now)) for order in orders]
        )
        for outcome in outcomes:
            self._meters.hold(outcome)
        return outcomes

    async def extend(
        self, request_id: str, extension: int, price: PriceRow, *, replaces: bool = False
    ) -> HoldOutcome:
        """Raise a hold to the worst case of a dearer row of ours; a cheaper one costs nothing.

        One that `replaces` the extensions before it gives back what they held beyond its own worst
        case; what the hold began with stays.

        A service account pays the platform's price whatever is offered: its hold stays as it is.

        Raises:
            InvalidArgumentError: The row is not one of billing's for the build of the hold: a
                price that only the caller names could empty an account.
        """
        now = self._clock.now()
        (facts,) = await self.questions.submit([(request_id, b"")])
        if facts is None:
            return HoldOutcome(request_id=request_id, refusal=HoldRefusal.NOT_FOUND)
        price = (
            facts.prices[0] if is_wholesale(facts.prices[0]) else self._issued(facts, price, now)
        )
        total = worst_case(price, prompt_bound=facts.prompt_bound, output_bound=facts.output_bound)
        outcome = await self._store.extend_hold(
            request_id, extension, price, total=total, replaces=replaces, now=now
        )
        self._meters.hold(outcome)
        return outcome

    def _issued(self, facts: HoldFacts, price: PriceRow, now: datetime) -> PriceRow:
        """Return our own row behind what a caller names.

        Raises:
            InvalidArgumentError: There is no such row of this build, or it says something else.
        """
        known = self._prices.book.offered(
            price.price_id, facts.build, since=facts.held_at, until=now
        )
        row = {row.price_id: row for row in facts.prices}.get(price.price_id, known)
        # The fallback is listed once, without a build; whose row it is does not travel.
        if row is None or row != replace(price, build=facts.build, account_id=row.account_id):
            raise InvalidArgumentError("price is not a row of this build", "price")
        return row

    async def renew(self, request_ids: Sequence[str], lease_s: float) -> tuple[datetime, list[str]]:
        """Push leases out; return the new expiry and the ids that are no longer held."""
        until = self._clock.now() + min(timedelta(seconds=lease_s), self._lease)
        held = await self._store.renew(request_ids, until=until)
        return until, [request_id for request_id in request_ids if request_id not in held]

    async def settle(self, settlements: Sequence[Settlement]) -> list[EndOutcome]:
        """Judge settlements and end the holds of those that count.

        Raises:
            KeysUnavailableError: A verdict names a key that nobody can look up now.
        """
        keys = await self._verdict_keys.knowing([s.verdict.key_id for s in settlements])
        outcomes: dict[int, EndOutcome] = {}
        opened: dict[int, judging.Evidence] = {}
        for index, settlement in enumerate(settlements):
            try:
                opened[index] = judging.open_evidence(settlement, keys)
            except judging.RejectedError as error:
                outcomes[index] = _rejected(settlement, error.rejection)

        ends: dict[int, End] = {}
        facts = await self.questions.submit(
            [(e.settlement.request_id, e.identity_key) for e in opened.values()]
        )
        for (index, evidence), hold in zip(opened.items(), facts, strict=True):
            judged = self._judge(evidence, hold)
            if isinstance(judged, End):
                ends[index] = judged
            else:
                outcomes[index] = judged

        resolved = await self.ends.submit(list(ends.values()))
        for (index, end), outcome in zip(ends.items(), resolved, strict=True):
            outcomes[index] = _known(end, outcome)
        ordered = [outcomes[index] for index in range(len(settlements))]
        for outcome in ordered:
            self._report(outcome)
        return ordered

    async def release(self, releases: Sequence[tuple[str, str]]) -> list[EndOutcome]:
        """End holds without a charge, given as (request id, reason word)."""
        ends = [judging.release(request_id, reason=reason) for request_id, reason in releases]
        resolved = await self.ends.submit(ends)
        outcomes = [_known(end, outcome) for end, outcome in zip(ends, resolved, strict=True)]
        for outcome in outcomes:
            self._meters.release(outcome)
        return outcomes

    async def sweep(self) -> int:
        """Release every hold whose lease has expired; return how many there were."""
        swept = 0
        while expired := await self._store.expired(now=self._clock.now(), limit=MAX_ROWS):
            ends = [judging.release(request_id, EndKind.SWEEP, "swept") for request_id in expired]
            ended = [outcome for outcome in await self.ends.submit(ends) if outcome is not None]
            for outcome in ended:
                self._meters.sweep(outcome)
            swept += sum(outcome.status is EndStatus.RELEASED for outcome in ended)
            if not any(outcome.status is EndStatus.RELEASED for outcome in ended):
                break
        return swept

    async def run_sweeper(self, period_s: float) -> None:
        """Sweep for ever; a store that is away is tried again next time."""
        while True:
            try:
                self._meters.overdue(await self._store.overdue(now=self._clock.now()))
                swept = await self.sweep()
            except MeshError as error:
                _log.warning("sweep_failed", reason=error.reason_name)
            except Exception as error:  # noqa: BLE001 - one hold must not stop the others
                _log.error("sweep_failed", exc_info=error)
            else:
                if swept:
                    _log.info("holds_swept", holds=swept)
            await self._clock.sleep(period_s)

    def _judge(self, evidence: judging.Evidence, hold: HoldFacts | None) -> End | EndOutcome:
        settlement = evidence.settlement
        if hold is None:
            return EndOutcome(request_id=settlement.request_id, status=EndStatus.UNKNOWN)
        if hold.resolved:
            return judging.replay(settlement)
        try:
            return judging.judge(
                evidence,
                hold,
                book=self._prices.book,
                development=self._development,
                now=self._clock.now(),
            )
        except judging.RejectedError as error:
            return _rejected(settlement, error.rejection)

    def _report(self, outcome: EndOutcome) -> None:
        self._meters.settlement(outcome)
        if outcome.rejection is not None:
            _log.warning(
                "settlement_rejected",
                money_request_id=outcome.request_id,
                rejection=outcome.rejection.value,
            )

    async def _place(self, rows: Sequence[tuple[HoldOrder, PriceRow]]) -> list[HoldOutcome]:
        now = self._clock.now()
        return await self._store.hold_many(rows, now=now, lease_until=now + self._lease)

    async def _resolve(self, ends: Sequence[End]) -> list[EndOutcome | None]:
        return await self._store.resolve_many(ends, now=self._clock.now())


def _rejected(settlement: Settlement, rejection: Rejection) -> EndOutcome:
    return EndOutcome(
        request_id=settlement.request_id, status=EndStatus.REJECTED, rejection=rejection
    )


def _known(end: End, outcome: EndOutcome | None) -> EndOutcome:
    """Only a sweep can find a renewed lease; other ends always get an answer."""
    if outcome is None:
        return EndOutcome(request_id=end.request_id, status=EndStatus.UNKNOWN)
    return outcome
