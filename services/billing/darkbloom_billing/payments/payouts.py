"""Money out: withdrawals, and what Stripe tells about them later."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import structlog
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import ConflictError, InvalidArgumentError, MeshError

from darkbloom_billing.books import Books
from darkbloom_billing.errors import (
    AccountFrozenError,
    InsufficientFundsError,
    WithdrawalsStoppedError,
)
from darkbloom_billing.model import Cursor
from darkbloom_billing.payments import withdrawals as machine
from darkbloom_billing.payments.amounts import quote
from darkbloom_billing.payments.connections import Connections
from darkbloom_billing.payments.deposits import digest_of
from darkbloom_billing.payments.errors import PayoutRefusedError, Refusal, StripeFailedError
from darkbloom_billing.payments.meters import PaymentMeters
from darkbloom_billing.payments.model import (
    CENT_MICROS,
    MIN_WITHDRAW_MICROS,
    AccountStatus,
    Method,
    Moved,
    PaidOut,
    Withdrawal,
    WithdrawalStatus,
)
from darkbloom_billing.payments.ports import PayoutRail
from darkbloom_billing.payments.store.payouts import LostRaceError, PostgresPayouts

MAX_WITHDRAW_MICROS = 100_000_000_000
_BATCH = 200
_LATE = timedelta(hours=48)
_MAX_STEPS = 3
_GONE = frozenset({"failed", "canceled"})
_log = structlog.get_logger()


class Payouts:
    """Withdrawals from the first check to the bank.

    Args:
        books: Moves the money.
        store: Connected accounts and withdrawals.
        rail: Stripe Connect.
        clock: Time.
        meters: Counters.
        connections: The connected accounts.
    """

    def __init__(
        self,
        books: Books,
        store: PostgresPayouts,
        rail: PayoutRail,
        clock: Clock,
        meters: PaymentMeters,
        connections: Connections,
    ) -> None:
        self._books = books
        self._store = store
        self._rail = rail
        self._clock = clock
        self._meters = meters
        self._connections = connections

    async def withdraw(
        self, request_id: str, account_id: str, amount_micros: int, method: Method
    ) -> Withdrawal:
        """Reserve earned money and send it; the result says how far it got.

        Raises:
            InvalidArgumentError: The amount is out of range or not whole cents, or nothing is left
                after the fee.
            ConflictError: The request came before with other contents.
            PayoutRefusedError: Not possible for this account now; nothing was taken.
            StripeFailedError: Stripe did not answer before anything was taken.
        """
        name = withdrawal_id(account_id, request_id)
        known = await self._store.withdrawal(name)
        if known is not None:
            if (known.quote.amount_micros, known.method) != (amount_micros, method):
                raise ConflictError("the same request id came before with another withdrawal")
            return known

        row = await self._planned(name, request_id, account_id, amount_micros, method)
        try:
            await self._books.withdraw_submit(
                name,
                account_id,
                row.quote.net_micros,
                fee_micros=row.quote.fee_micros,
                also=self._store.inserting(row),
            )
        except InsufficientFundsError:
            wallets = await self._books.wallets(account_id)
            raise PayoutRefusedError(
                Refusal.INSUFFICIENT_WITHDRAWABLE, available_micros=wallets.earned_micros
            ) from None
        except AccountFrozenError:
            raise PayoutRefusedError(Refusal.ACCOUNT_FROZEN) from None
        except WithdrawalsStoppedError:
            raise PayoutRefusedError(Refusal.STOPPED) from None
        return await self.advance(row)

    async def page(
        self, account_id: str, *, limit: int, after: Cursor | None
    ) -> Sequence[Withdrawal]:
        """Return withdrawals, newest first."""
        return await self._store.page(account_id, limit=limit, after=after)

    async def advance(self, row: Withdrawal) -> Withdrawal:
        """Do what a withdrawal needs now, and return it as it is then."""
        for _ in range(_MAX_STEPS):
            step = machine.next_step(row, self._clock.now())
            try:
                if step is machine.Step.TRANSFER:
                    row = await self._transfer(row)
                elif step is machine.Step.PAYOUT:
                    row = await self._pay_out(row)
                elif step is machine.Step.GIVE_UP:
                    return await self._saved(row, machine.given_up(row, self._clock.now()))
                else:
                    return row
            except LostRaceError:
                return await self._again(row)
            waiting = row.status is not WithdrawalStatus.TRANSFERRED or row.payout_tries
            if waiting:
                return row
        return row

    async def run(self, period_s: float) -> None:
        """Move what waits, for ever."""
        while True:
            try:
                await self.sweep()
            except MeshError as error:
                _log.warning("withdrawals_postponed", reason=error.reason_name)
            await self._clock.sleep(period_s)

    async def sweep(self) -> int:
        """Move what is due, and return how many rows that were."""
        rows = await self._store.due(now=self._clock.now(), limit=_BATCH)
        for row in rows:
            try:
                moved = await self.advance(row)
                if moved.status is WithdrawalStatus.TRANSFERRED and moved == row:
                    await self._watch(row)
            except MeshError as error:
                _log.warning("withdrawal_postponed", reason=error.reason_name)
            except Exception as error:  # noqa: BLE001 - one withdrawal must not stop the others
                _log.error("withdrawal_failed", withdrawal=row.withdrawal_id, exc_info=error)
        late = await self._store.overdue(self._clock.now() - _LATE)
        self._meters.withdrawals_overdue(late)
        return len(rows)

    async def on_payout(self, stripe_account_id: str, payout_id: str) -> None:
        """Act on what became of a payout of a connected account."""
        if await self._store.by_stripe(stripe_account_id) is None:
            return
        payout = await self._rail.fetch_payout(stripe_account_id, payout_id)
        row = await self._store.of_payout(payout_id)
        if row is None and payout.withdrawal_id:
            row = await self._named(stripe_account_id, payout)
        if row is not None:
            await self._decide(row, payout)
        elif payout.automatic:
            await self._traced(stripe_account_id, payout)

    async def on_transfer(self, transfer_id: str) -> None:
        """Act on a reversed transfer: the money is back with the platform."""
        row = await self._store.of_transfer(transfer_id)
        if row is None or (machine.final(row) and row.status is not WithdrawalStatus.PAID):
            return
        await self._reversed(row, await self._rail.fetch_transfer(transfer_id))

    async def _reversed(self, row: Withdrawal, moved: Moved) -> None:
        back = moved.reversed_cents * CENT_MICROS
        now = self._clock.now()
        if 0 < back < row.quote.net_micros:
            row = replace(row, failure_reason="partly_reversed")
            await self._saved(row, machine.given_up(row, now))
        elif back:
            await self._return(row, machine.failed(row, "transfer_reversed", now))

    async def _planned(
        self, name: str, request_id: str, account_id: str, amount_micros: int, method: Method
    ) -> Withdrawal:
        if amount_micros % CENT_MICROS:
            raise InvalidArgumentError("must be whole cents", "amount_micros")
        if not MIN_WITHDRAW_MICROS <= amount_micros <= MAX_WITHDRAW_MICROS:
            raise InvalidArgumentError("must be between 1.00 and 100000 usd", "amount_micros")
        costs = self._rail.quote(quote(amount_micros, method))
        if costs.net_micros < CENT_MICROS:
            raise InvalidArgumentError("nothing is left after the fee", "amount_micros")
        known = await self._connections.linked(account_id)
        found = await self._connections.usable(known)
        if found.status is not AccountStatus.READY:
            raise PayoutRefusedError(Refusal.NOT_ONBOARDED)
        if method is Method.INSTANT and not found.instant_eligible:
            raise PayoutRefusedError(Refusal.INSTANT_UNAVAILABLE)
        now = self._clock.now()
        return Withdrawal(
            withdrawal_id=name,
            account_id=account_id,
            request_id=request_id,
            stripe_account_id=known.stripe_account_id,
            quote=costs,
            method=method,
            next_at=now,
            created_at=now,
            updated_at=now,
        )

    async def _transfer(self, row: Withdrawal) -> Withdrawal:
        begun = machine.begun(row, machine.Step.TRANSFER, self._clock.now())
        await self._must_save(row, begun)
        try:
            moved = await self._rail.submit(begun, machine.transfer_key(begun))
        except StripeFailedError as error:
            now = self._clock.now()
            decision = machine.transfer_failed(begun, error.fault, error.word, now)
            _log.warning("transfer_failed", fault=error.fault.value, word=error.word)
            self._meters.withdrawal(decision.row.status)
            if decision.verdict is machine.Verdict.RETURN:
                await self._books.withdraw_refused(
                    begun.withdrawal_id, also=self._store.saving(begun, decision.row)
                )
                return decision.row
            return await self._saved(begun, decision.row)
        done = machine.transferred(
            begun, moved.transfer_id, moved.destination_payment, self._clock.now()
        )
        self._meters.withdrawal(done.status)
        return await self._saved(begun, done)

    async def _pay_out(self, row: Withdrawal) -> Withdrawal:
        begun = machine.begun(row, machine.Step.PAYOUT, self._clock.now())
        await self._must_save(row, begun)
        try:
            # Stripe forgets its keys after a day: what an earlier call made is looked for first.
            payout = await self._made_before(begun) if row.payout_tries else None
            if payout is None and row.payout_tries >= machine.MOST_PAYOUT_TRIES:
                # Half a day without an answer, and Stripe knows of none: the schedule delivers.
                given_up = machine.reopened(begun, "no_answer", self._clock.now(), payout_id="")
                return await self._saved(begun, given_up)
            payout = payout or await self._rail.pay_out(begun, machine.payout_key(begun))
        except StripeFailedError as error:
            now = self._clock.now()
            return await self._saved(
                begun, machine.payout_failed(begun, error.fault, error.word, now)
            )
        return await self._saved(begun, machine.paying_out(begun, payout, self._clock.now()))

    async def _made_before(self, row: Withdrawal) -> PaidOut | None:
        """Return the instant payout that a call without an answer made, if it did."""
        found = await self._rail.payouts(row.stripe_account_id)
        mine = (each for each in found if each.withdrawal_id == row.withdrawal_id)
        return next(mine, None)

    async def _named(self, stripe_account_id: str, payout: PaidOut) -> Withdrawal | None:
        """Return the withdrawal that a payout says it is of, where its answer never came."""
        row = await self._store.withdrawal(payout.withdrawal_id)
        waits = (
            row is not None
            and row.stripe_account_id == stripe_account_id
            and machine.next_step(row, self._clock.now()) is machine.Step.PAYOUT
            and row.payout_tries
        )
        if row is None or not waits:
            return None
        return await self._saved(row, machine.paying_out(row, payout, self._clock.now()))

    async def _watch(self, row: Withdrawal) -> None:
        """Look at Stripe for what an event should have told."""
        # Before the look: one that Stripe cannot answer waits as long as any other.
        if not await self._store.save(row, machine.watched(row, self._clock.now())):
            return
        account = row.stripe_account_id
        moved = await self._rail.fetch_transfer(row.transfer_id)
        if moved.reversed_cents:
            # Its event may have come before we knew the transfer's name.
            await self._reversed(row, moved)
            return
        if row.payout_id:
            await self._decide(row, await self._rail.fetch_payout(account, row.payout_id))
        else:
            found = await self._rail.account(account)
            if found.manual_payouts:
                await self._rail.schedule_daily(account)
            for payout in await self._rail.payouts(account):
                if payout.automatic and payout.status == "paid":
                    await self._traced(account, payout)

    async def _traced(self, stripe_account_id: str, payout: PaidOut) -> None:
        """Act on a scheduled payout, by the exact payments that it carried to the bank."""
        payments = await self._rail.traced(stripe_account_id, payout.payout_id)
        for row in await self._store.of_payments(payments):
            if row.stripe_account_id == stripe_account_id:
                await self._decide(row, payout)

    async def _decide(self, row: Withdrawal, payout: PaidOut) -> None:
        now = self._clock.now()
        if payout.status == "paid" and row.status is WithdrawalStatus.TRANSFERRED:
            await self._paid(row, machine.paid(row, now))
        elif payout.status in _GONE and row.status in {
            WithdrawalStatus.TRANSFERRED,
            WithdrawalStatus.PAID,
        }:
            opened = machine.reopened(
                row, f"payout_{payout.status}", now, payout_id=payout.payout_id
            )
            if row.posted and opened.fee_waived and not row.fee_waived and row.quote.fee_micros:
                await self._books.fee_returned(
                    row.withdrawal_id, also=self._store.saving(row, opened)
                )
            else:
                await self._saved(row, opened)

    async def _paid(self, row: Withdrawal, done: Withdrawal) -> None:
        done = replace(done, posted=True)
        self._meters.withdrawal(done.status)
        if row.posted:
            await self._saved(row, done)
            return
        await self._books.withdraw_paid(
            row.withdrawal_id, keep_fee=not row.fee_waived, also=self._store.saving(row, done)
        )

    async def _return(self, row: Withdrawal, done: Withdrawal) -> None:
        """Give the whole amount back, each part once."""
        self._meters.withdrawal(done.status)
        if not row.posted:
            await self._books.withdraw_refused(
                row.withdrawal_id, also=self._store.saving(row, done)
            )
            return
        if row.quote.fee_micros and not row.fee_waived:
            await self._books.fee_returned(row.withdrawal_id)
        await self._books.withdraw_returned(row.withdrawal_id, also=self._store.saving(row, done))

    async def _must_save(self, old: Withdrawal, new: Withdrawal) -> None:
        if not await self._store.save(old, new):
            raise LostRaceError

    async def _saved(self, old: Withdrawal, new: Withdrawal) -> Withdrawal:
        """Write a row; where somebody was faster, what they wrote counts."""
        return new if await self._store.save(old, new) else await self._again(old)

    async def _again(self, row: Withdrawal) -> Withdrawal:
        return await self._store.withdrawal(row.withdrawal_id) or row


def withdrawal_id(account_id: str, request_id: str) -> str:
    """Return the id of a request's withdrawal: always the same, and nobody else's."""
    return f"wd_{digest_of(account_id, request_id)}"
