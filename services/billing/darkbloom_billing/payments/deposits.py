"""Money in: sessions are opened by us, and what became of them is always read from Stripe.

An event only says where to look. Whatever order events come in, and however often, each handler
reads the present state at Stripe and books what is not booked yet; the keys of the books make the
second time harmless.
"""

import hashlib
from dataclasses import replace
from datetime import datetime, timedelta

import structlog
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import InvalidArgumentError, MeshError, NotFoundError

from darkbloom_billing.books import Books, FeePayer
from darkbloom_billing.errors import BudgetExhaustedError
from darkbloom_billing.payments.amounts import expected_fee, fee_line
from darkbloom_billing.payments.errors import (
    DepositsStoppedError,
    NotYetError,
    UnmatchedError,
)
from darkbloom_billing.payments.model import (
    CENT_MICROS,
    MIN_DEPOSIT_MICROS,
    Card,
    Checkout,
    NewSession,
    Payment,
    Session,
    SessionKind,
    SessionStatus,
)
from darkbloom_billing.payments.ports import Acquirer
from darkbloom_billing.payments.store.sessions import PostgresSessions

MAX_DEPOSIT_MICROS = 10_000_000_000
"""Ten thousand dollars at a time."""
_LOOK_S = 3600.0
_PAGE_LIFE = timedelta(hours=25)
"""A page of Checkout lives for a day."""
_LOOK_BACK = timedelta(days=14)
_BATCH = 200
_PAID, _SUCCEEDED = "paid", "succeeded"
_log = structlog.get_logger()


class Deposits:
    """Opens sessions and credits what was paid.

    Args:
        books: Moves the money.
        store: Sessions and customers.
        acquirer: Stripe.
        clock: Time.
        payer: Who bears Stripe's fee: the consumer's own line, or the fees budget.
    """

    def __init__(
        self,
        books: Books,
        store: PostgresSessions,
        acquirer: Acquirer,
        clock: Clock,
        *,
        payer: FeePayer,
    ) -> None:
        self._books = books
        self._store = store
        self._acquirer = acquirer
        self._clock = clock
        self._payer = payer

    async def create(
        self,
        request_id: str,
        account_id: str,
        amount_micros: int,
        *,
        email: str = "",
        save_card: bool = False,
        host: str = "",
    ) -> Session:
        """Open a Checkout session for a deposit.

        Raises:
            InvalidArgumentError: Too little, too much, or not whole cents.
            DepositsStoppedError: The fees budget is empty.
            NotFoundError: No such account.
            ConflictError: The request came before with another amount.
            StripeFailedError: Repeating with the same request is safe.
        """
        new = self.planned(SessionKind.DEPOSIT, request_id, account_id, amount_micros)
        await self.require_fee(new)
        session = await self._store.add(new, now=self._clock.now())
        if session.external_id:
            return session
        customer = await self._customer(account_id, email) if save_card else ""
        return await self._open(session, customer, email, save_card=save_card, host=host)

    async def create_setup(self, request_id: str, account_id: str, email: str) -> Session:
        """Open a Checkout session that only saves a card; raises as `create`."""
        new = NewSession(
            session_id=session_id(account_id, request_id),
            account_id=account_id,
            request_id=request_id,
            kind=SessionKind.SETUP,
            amount_micros=0,
            line_micros=0,
        )
        session = await self._store.add(new, now=self._clock.now())
        if session.external_id:
            return session
        customer = await self._customer(account_id, email)
        return await self._open(session, customer, email, save_card=True, host="")

    async def get(self, account_id: str, name: str) -> Session:
        """Return a session of an account, by our id or Stripe's.

        Raises:
            NotFoundError: There is none, or it is another account's.
        """
        session = await self._store.find(name)
        if session is None or session.new.account_id != account_id:
            raise NotFoundError("no such session")
        return session

    def planned(
        self, kind: SessionKind, request_id: str, account_id: str, amount_micros: int
    ) -> NewSession:
        """Return the session of an amount.

        Raises:
            InvalidArgumentError: Too little, too much, or not whole cents.
        """
        if amount_micros % CENT_MICROS:
            raise InvalidArgumentError("must be whole cents", "amount_micros")
        if not MIN_DEPOSIT_MICROS <= amount_micros <= MAX_DEPOSIT_MICROS:
            raise InvalidArgumentError("must be between 0.50 and 10000 usd", "amount_micros")
        return NewSession(
            session_id=session_id(account_id, request_id),
            account_id=account_id,
            request_id=request_id,
            kind=kind,
            amount_micros=amount_micros,
            line_micros=fee_line(amount_micros) if self._payer is FeePayer.LINE else 0,
        )

    async def require_fee(self, new: NewSession) -> None:
        """Refuse a deposit whose fee nobody would pay.

        Raises:
            DepositsStoppedError: The fees budget is empty.
        """
        if self._payer is FeePayer.BUDGET:
            try:
                await self._books.check_deposit(expected_fee(new.amount_micros))
            except BudgetExhaustedError:
                raise DepositsStoppedError("deposits are stopped for now") from None

    async def sync_checkout(self, external_id: str) -> None:
        """Bring a session up to what Stripe says of its page.

        Raises:
            UnmatchedError: It is not the session that we opened.
            NotYetError: Paid, but Stripe has not booked it.
            StripeFailedError: Stripe does not answer.
        """
        page = await self._acquirer.checkout(external_id)
        session = await self._matching(page)
        if page.mode == SessionKind.SETUP.value:
            if page.setup_intent and page.status == "complete":
                card = await self._acquirer.set_up_card(page.setup_intent)
                await self._keep_card(session.new.account_id, card, save=True)
                await self._store.set_up(session.new.session_id, now=self._clock.now())
            return
        if page.status == "expired":
            await self._store.move(session.new.session_id, SessionStatus.EXPIRED)
        elif page.payment_status == _PAID:
            await self.credit(session, await self._acquirer.payment(page.payment_intent))
        elif page.status == "complete":
            payment = await self._acquirer.payment(page.payment_intent)
            waits = payment.status == "processing"
            status = SessionStatus.PROCESSING if waits else SessionStatus.FAILED
            await self._store.move(session.new.session_id, status)

    async def run(self) -> None:
        """Look for payments of which no event told, for ever."""
        while True:
            try:
                await self.sweep()
            except MeshError as error:
                _log.warning("lost_deposits_postponed", reason=error.reason_name)
            await self._clock.sleep(_LOOK_S)

    async def sweep(self) -> None:
        """Ask Stripe about pages whose day has passed: each was paid, or has expired."""
        now = self._clock.now()
        for session in await self._store.left_open(now - _PAGE_LIFE, now - _LOOK_BACK, _BATCH):
            try:
                await self.sync_checkout(session.external_id)
            except MeshError as error:
                _log.warning("lost_deposit_waits", reason=error.reason_name)

    async def sync_payment(self, payment_intent: str, name: str) -> None:
        """Bring an automatic top-up up to what Stripe says of its payment.

        Checkout's own payments are left to `sync_checkout`, which knows the page.
        """
        session = await self._store.find(name) if name else None
        if session is None or session.new.kind is not SessionKind.AUTO:
            return
        payment = await self._acquirer.payment(payment_intent)
        if payment.session_id != session.new.session_id:
            raise UnmatchedError("payment names another session")
        if payment.status == _SUCCEEDED:
            await self.credit(session, payment)

    async def credit(self, session: Session, payment: Payment) -> None:
        """Book a payment, Stripe's fee and the card; what is booked already stays.

        Raises:
            UnmatchedError: Amount, currency or session differ from what we asked for.
            NotYetError: Stripe's fee is not known yet.
        """
        new = session.new
        asked = (session.total_cents, "usd", new.session_id)
        if (payment.amount_cents, payment.currency, payment.session_id) != asked:
            raise UnmatchedError("payment differs from the session")
        if payment.status != _SUCCEEDED:
            raise UnmatchedError("payment has not succeeded")
        now = self._clock.now()
        await self._books.deposit(
            new.session_id,
            new.account_id,
            new.amount_micros,
            fee_line_micros=new.line_micros,
            also=self._store.completing(new.session_id, payment, now=now),
        )
        if payment.card is not None:
            await self._keep_card(new.account_id, payment.card, save=False)
        if not payment.fee_transaction:
            raise NotYetError("stripe has not booked the payment")
        if payment.fee_cents > 0:
            await self._books.stripe_fee(
                payment.fee_transaction,
                payment.fee_cents * CENT_MICROS,
                payer=FeePayer.LINE if new.line_micros else FeePayer.BUDGET,
            )

    async def _matching(self, page: Checkout) -> Session:
        """Return the session of a page, which must be the one that we opened.

        A session whose opening was never answered is known by our id, which Stripe got from us.
        """
        session = await self._store.find(page.external_id)
        if session is None:
            session = await self._store.find(page.session_id)
            if session is None or session.external_id:
                raise UnmatchedError("unknown session")
        same = (page.session_id, page.account_id) == (
            session.new.session_id,
            session.new.account_id,
        )
        setup = session.new.kind is SessionKind.SETUP
        paid = (page.amount_cents, page.currency) == (session.total_cents, "usd")
        if not same or not (setup or paid):
            raise UnmatchedError("page differs from the session")
        if not session.external_id:
            await self._store.opened(session.new.session_id, page.external_id, page.url)
        return session

    async def _open(
        self, session: Session, customer: str, email: str, *, save_card: bool, host: str
    ) -> Session:
        page = await self._acquirer.open_checkout(
            session, customer_id=customer, email=email, save_card=save_card, host=host
        )
        await self._store.opened(session.new.session_id, page.external_id, page.url)
        return replace(session, external_id=page.external_id, url=page.url)

    async def _customer(self, account_id: str, email: str) -> str:
        known = await self._store.customer(account_id)
        if known is not None:
            return known.customer_id
        made = await self._acquirer.create_customer(account_id, email)
        await self._store.add_customer(account_id, made, now=self._clock.now())
        found = await self._store.customer(account_id)
        return found.customer_id if found is not None else made

    async def _keep_card(self, account_id: str, card: Card, *, save: bool) -> None:
        """Note whose card it is, and keep it for later where its holder asked for that."""
        if card.fingerprint:
            await self._books.add_fingerprint(account_id, "card", fingerprint(card.fingerprint))
        if save:
            await self._store.save_card(account_id, card)


def session_id(account_id: str, request_id: str) -> str:
    """Return the id of a request's session: always the same, and nobody else's."""
    return f"dep_{digest_of(account_id, request_id)}"


def digest_of(account_id: str, request_id: str) -> str:
    """Return 32 hex digits that stand for one request of one account."""
    joined = f"{account_id}\n{request_id}"
    return hashlib.sha256(joined.encode()).hexdigest()[:32]


def fingerprint(value: str) -> bytes:
    """Return what is kept of a card's or bank's fingerprint."""
    return hashlib.sha256(f"stripe\n{value}".encode()).digest()


def month_start(now: datetime) -> datetime:
    """Return the first moment of a time's month, in UTC."""
    return now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
