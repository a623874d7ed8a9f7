"""After a restore: Stripe remembers what the database has forgotten, and the books follow Stripe.

First the rows that handlers look for (sessions, withdrawals), then every event since the moment,
through the same table and the same handlers as a webhook. All of it may be repeated; what is booked
already stays. A payout that its account cannot carry any more is booked all the same, and the rest
is the account's debt. What cannot be booked is named, and its account frozen, for a person to
decide.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import structlog
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import MeshError, NotFoundError, StoreUnavailableError

from darkbloom_billing.admin.actions import record
from darkbloom_billing.admin.model import Action, Operator, Source
from darkbloom_billing.books import Books, FeePayer
from darkbloom_billing.books.core import Also
from darkbloom_billing.payments import events as reading
from darkbloom_billing.payments import withdrawals as machine
from darkbloom_billing.payments.amounts import without_line
from darkbloom_billing.payments.deposits import Deposits
from darkbloom_billing.payments.model import (
    CENT_MICROS,
    EventSource,
    Method,
    NewSession,
    Quote,
    SessionKind,
    Withdrawal,
)
from darkbloom_billing.payments.past import PastSession, PastTransfer, StripePast
from darkbloom_billing.payments.store.events import PostgresEvents
from darkbloom_billing.payments.store.payouts import PostgresPayouts
from darkbloom_billing.payments.store.sessions import PostgresSessions
from darkbloom_billing.payments.webhooks import Dispatcher
from darkbloom_billing.store.database import Connection

MARGIN = timedelta(hours=1)
"""Before the moment: what was under way at Stripe then."""
EVENTS_GONE = "stripe_events older than 30 days are gone: compare with Stripe by hand"
_KEPT = timedelta(days=30)
"""How long Stripe keeps events."""
_MOST = 1000
_BOOKED = "SELECT result FROM ledger.event WHERE idem_key = $1"
_RECOVERY = Operator(name="billing", source=Source.CLI)
_log = structlog.get_logger()


@dataclass(slots=True)
class Resynced:
    """What was found at Stripe, and what became of it."""

    events: int = 0
    events_new: int = 0
    sessions_adopted: int = 0
    withdrawals_found: int = 0
    """Known here, but not that Stripe had sent them."""
    withdrawals_adopted: int = 0
    """Not known here at all."""
    shortfalls: list[str] = field(default_factory=list)
    """Of those: withdrawal, account, and what became its debt in micro-USD. Booked, and to know."""
    unbooked: list[str] = field(default_factory=list)
    """Ids of sessions and transfers that a person has to look at."""
    waiting: list[str] = field(default_factory=list)
    """Events that could not act yet, with the reason."""
    acknowledged: list[str] = field(default_factory=list)
    """What a person has looked at, of both."""

    def acknowledge(self, ids: Collection[str]) -> None:
        """Set aside what a person has looked at, by the first word of each line."""
        for lines in (self.unbooked, self.waiting):
            seen = [line for line in lines if line.partition(" ")[0] in ids]
            self.acknowledged += seen
            lines[:] = [line for line in lines if line not in seen]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resync:
    """Asks Stripe, and books.

    Args:
        books: Move the money.
        sessions: Payment pages.
        payouts: Connected accounts and withdrawals.
        events: Where events wait.
        dispatcher: Lets them act.
        deposits: Money in; None: there is no key for it.
        past: Stripe for deposits; None: there is no key.
        connect_past: Stripe for payouts; None: there is no key.
        payer: Who bears Stripe's fee.
        clock: Time.
    """

    books: Books
    sessions: PostgresSessions
    payouts: PostgresPayouts
    events: PostgresEvents
    dispatcher: Dispatcher
    deposits: Deposits | None
    past: StripePast | None
    connect_past: StripePast | None
    payer: FeePayer
    clock: Clock

    async def run(self, moment: datetime) -> Resynced:
        """Bring everything since a moment in.

        Raises:
            StripeFailedError: Stripe does not answer; repeating is safe.
            StoreUnavailableError: The database does not answer; repeating is safe.
        """
        since, done, gone = moment - MARGIN, Resynced(), set[str]()
        if self.clock.now() - since > _KEPT:
            done.unbooked.append(EVENTS_GONE)
        if self.past is not None:
            for opened in (*await self.past.sessions(since), *await self.past.top_ups(since)):
                await self._session(opened, done, gone)
            await self._take(self.past, EventSource.PAYMENTS, since, done)
        if self.connect_past is not None:
            for sent in await self.connect_past.transfers(since):
                await self._transfer(sent, done)
            await self._take(self.connect_past, EventSource.TRANSFERS, since, done)
            for account in await self.payouts.connected():
                await self._take(self.connect_past, EventSource.ACCOUNTS, since, done, account)
        while await self.dispatcher.sweep():
            continue
        done.waiting = [
            f"{row['event_id']} {row['kind']} {row['problem']}"
            for row in await self.events.unfinished(_MOST)
            # What was stuck before the moment was somebody's to look at then.
            if not (row["state"] == "stuck" and row["received_at"] < since)
            and not _is_of(row, gone)
        ]
        return done

    async def _take(
        self,
        past: StripePast,
        source: EventSource,
        since: datetime,
        done: Resynced,
        stripe_account_id: str = "",
    ) -> None:
        kinds = reading.ACTING[source]
        for body in await past.events(since, kinds, stripe_account_id):
            if stripe_account_id:
                # Who asked as this account is not told again whose events they are.
                body.setdefault("account", stripe_account_id)
            event = reading.read(json.dumps(body).encode())
            if event is None or event.kind not in kinds:
                continue
            done.events += 1
            if await self.events.add(event, source, now=self.clock.now()):
                done.events_new += 1

    async def _session(self, opened: PastSession, done: Resynced, gone: set[str]) -> None:
        name = opened.external_id or opened.session_id
        known = await self.sessions.find(opened.session_id)
        try:
            if known is None:
                new = self._new(opened)
                if new is None:
                    done.unbooked.append(name)
                    return
                try:
                    await self.sessions.add(new, now=opened.created_at)
                except NotFoundError:
                    # The account is younger than the moment: nobody is there to credit.
                    gone |= {name, opened.session_id, opened.payment_intent}
                    if await self._owed(opened):
                        done.unbooked.append(name)
                    return
                done.sessions_adopted += 1
            if opened.external_id and (known is None or not known.external_id):
                await self.sessions.opened(opened.session_id, opened.external_id, "")
            if self.deposits is None:
                return
            if opened.external_id:
                await self.deposits.sync_checkout(opened.external_id)
            else:
                await self.deposits.sync_payment(opened.payment_intent, opened.session_id)
        except StoreUnavailableError:
            raise
        except MeshError as error:
            _log.warning("past_session_waits", session=name, reason=error.reason_name)
            done.unbooked.append(name)

    async def _owed(self, opened: PastSession) -> bool:
        """Say whether somebody paid and has not got it back."""
        if not opened.paid or self.past is None:
            return False
        return not await self.past.refunded(opened.payment_intent)

    def _new(self, opened: PastSession) -> NewSession | None:
        """Return the session as it must have been; None: its amount cannot be told."""
        amount: int | None = opened.total_micros
        if opened.kind is not SessionKind.SETUP and self.payer is FeePayer.LINE:
            amount = without_line(opened.total_micros)
        if not opened.session_id or amount is None:
            return None
        return NewSession(
            session_id=opened.session_id,
            account_id=opened.account_id,
            request_id=f"restored-{opened.session_id}",
            kind=opened.kind,
            amount_micros=amount,
            line_micros=opened.total_micros - amount,
        )

    async def _transfer(self, sent: PastTransfer, done: Resynced) -> None:
        if not sent.withdrawal_id:
            return
        row = await self.payouts.withdrawal(sent.withdrawal_id)
        if row is None and sent.moved.reversed_cents:
            if sent.moved.reversed_cents * CENT_MICROS != sent.amount_micros:
                done.unbooked.append(sent.moved.transfer_id)
                await self._freeze(sent)
            return
        try:
            if row is None:
                row = await self._adopted(sent, done)
                if row is None:
                    done.unbooked.append(sent.moved.transfer_id)
                    return
                done.withdrawals_adopted += 1
            elif row.transfer_id or machine.final(row):
                return
            else:
                done.withdrawals_found += 1
            moved = sent.moved
            await self.payouts.save(
                row,
                machine.transferred(
                    row, moved.transfer_id, moved.destination_payment, self.clock.now()
                ),
            )
        except StoreUnavailableError:
            # Nothing is known of the money then: no reason to freeze anybody.
            raise
        except MeshError as error:
            _log.error("past_transfer_unbooked", transfer=sent.moved.transfer_id)
            done.unbooked.append(f"{sent.moved.transfer_id} {error.reason_name}")
            await self._freeze(sent)

    async def _adopted(self, sent: PastTransfer, done: Resynced) -> Withdrawal | None:
        """Reserve what was sent, as a withdrawal of exactly that; None: nobody knows whose."""
        account = await self.payouts.by_stripe(sent.stripe_account_id)
        if account is None:
            return None
        row = Withdrawal(
            withdrawal_id=sent.withdrawal_id,
            account_id=account.account_id,
            request_id=f"restored-{sent.withdrawal_id}",
            stripe_account_id=sent.stripe_account_id,
            quote=Quote(
                amount_micros=sent.amount_micros, fee_micros=0, net_micros=sent.amount_micros
            ),
            method=Method.STANDARD,
            next_at=sent.created_at,
            created_at=sent.created_at,
            updated_at=sent.created_at,
        )
        booked = await self.books.withdraw_submit(
            row.withdrawal_id,
            row.account_id,
            row.quote.net_micros,
            left=True,
            also=self._adopting(row, sent),
        )
        if short := booked.result["shortfall"]:
            done.shortfalls.append(f"{row.withdrawal_id} {row.account_id} {short}")
        return row

    def _adopting(self, row: Withdrawal, sent: PastTransfer) -> Also:
        """Write the row of a withdrawal, and that it was adopted, with what it made of the debt."""

        async def also(connection: Connection) -> None:
            await self.payouts.inserting(row)(connection)
            told = json.loads(await connection.fetchval(_BOOKED, f"wd:{row.withdrawal_id}"))
            action = Action(
                operator=_RECOVERY,
                action="withdrawal.adopt",
                subject=row.account_id,
                request_id=row.withdrawal_id,
                before={},
                after={
                    "transfer": sent.moved.transfer_id,
                    "net_micros": told["net"],
                    "shortfall_micros": told["shortfall"],
                    "debt_micros": told["debt"],
                },
            )
            await record(connection, action, now=self.clock.now())

        return also

    async def _freeze(self, sent: PastTransfer) -> None:
        account = await self.payouts.by_stripe(sent.stripe_account_id)
        if account is not None:
            await self.books.freeze(
                f"restored-{sent.moved.transfer_id}", account.account_id, frozen=True
            )


def _is_of(row: Mapping[str, Any], gone: set[str]) -> bool:
    """Say whether an event is of a page whose account is gone; disputes are always looked at."""
    named = {row["object_id"], *row["facts"].values()} - {""}
    return bool(named & gone) and not row["kind"].startswith("charge.dispute.")


def problems(done: Resynced) -> Sequence[str]:
    """Return what a person has to look at."""
    return (*done.unbooked, *done.waiting)
