"""Automatic top-ups: a saved card is charged when money runs low, within a monthly cap."""

from collections.abc import Awaitable
from datetime import timedelta

import structlog
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import ConflictError, InvalidArgumentError, MeshError

from darkbloom_billing.payments.deposits import Deposits, month_start
from darkbloom_billing.payments.errors import CardRefusedError, PayoutRefusedError, Refusal
from darkbloom_billing.payments.model import (
    AutoTopUp,
    SavedCard,
    Session,
    SessionKind,
    SessionStatus,
)
from darkbloom_billing.payments.ports import Acquirer
from darkbloom_billing.payments.store.sessions import PostgresSessions

MAX_THRESHOLD_MICROS = 10_000_000_000
MAX_MONTH_MICROS = 100_000_000_000
_BATCH = 50
_RETRY_AFTER = timedelta(seconds=60)
_UNDECIDED_AFTER = timedelta(hours=12)
"""Stripe keeps its answers for a day: asked later, the same question would charge again."""
_NO_CARD, _UNDECIDED = "no_card", "undecided"
_log = structlog.get_logger()


class TopUps:
    """Settings of automatic top-ups, and the loop that makes them.

    Args:
        deposits: Plans and credits sessions.
        store: Sessions, cards, settings.
        acquirer: Stripe.
        clock: Time.
    """

    def __init__(
        self, deposits: Deposits, store: PostgresSessions, acquirer: Acquirer, clock: Clock
    ) -> None:
        self._deposits = deposits
        self._store = store
        self._acquirer = acquirer
        self._clock = clock

    async def get(self, account_id: str) -> tuple[AutoTopUp | None, SavedCard | None, int]:
        """Return the settings, the card, and what was topped up in this month."""
        settings = await self._store.top_up(account_id)
        card = await self._store.customer(account_id)
        month = await self._store.month_micros(account_id, month_start(self._clock.now()))
        return settings, card, month

    async def set(self, account_id: str, wanted: AutoTopUp) -> None:
        """Set it, or switch it off.

        Raises:
            InvalidArgumentError: An amount is out of range.
            PayoutRefusedError: There is no saved card.
        """
        known = await self._store.top_up(account_id)
        if not wanted.enabled:
            if known is not None:
                await self._store.disable_top_up(account_id, "", now=self._clock.now())
            return
        self._deposits.planned(SessionKind.AUTO, "settings", account_id, wanted.amount_micros)
        if not 0 < wanted.threshold_micros <= MAX_THRESHOLD_MICROS:
            raise InvalidArgumentError("is out of range", "threshold_micros")
        if not wanted.amount_micros <= wanted.monthly_cap_micros <= MAX_MONTH_MICROS:
            raise InvalidArgumentError("must be at least the amount", "monthly_cap_micros")
        card = await self._store.customer(account_id)
        if card is None or not card.payment_method:
            raise PayoutRefusedError(Refusal.NO_CARD)
        await self._store.set_top_up(account_id, wanted, now=self._clock.now())

    async def forget_card(self, account_id: str) -> None:
        """Forget the saved card, here first: whatever Stripe answers, it is not charged again."""
        card = await self._store.customer(account_id)
        if card is None or not card.payment_method:
            return
        await self._store.disable_top_up(account_id, _NO_CARD, now=self._clock.now())
        await self._store.save_card(account_id, None)
        await self._acquirer.forget_card(card.payment_method)

    async def run(self, period_s: float) -> None:
        """Top up for ever."""
        while True:
            try:
                await self.sweep()
            except MeshError as error:
                _log.warning("top_ups_postponed", reason=error.reason_name)
            await self._clock.sleep(period_s)

    async def sweep(self) -> None:
        """Ask again where an answer was lost, then charge for every account that runs low."""
        before = self._clock.now() - _RETRY_AFTER
        for session in await self._store.open_auto(before, _BATCH):
            await self._alone(self._charge(session))
        for account_id in await self._store.low(_BATCH, month=month_start(self._clock.now())):
            await self._alone(self._begin(account_id))

    async def _alone(self, work: Awaitable[None]) -> None:
        """Do the work of one account; whatever goes wrong stays with that account."""
        try:
            await work
        except MeshError as error:
            _log.warning("top_up_postponed", reason=error.reason_name)
        except Exception as error:  # noqa: BLE001 - one account must not stop the others
            _log.error("top_up_failed", exc_info=error)

    async def _begin(self, account_id: str) -> None:
        now = self._clock.now()
        settings = await self._store.top_up(account_id)
        if settings is None or not settings.enabled:
            return
        month = await self._store.month_micros(account_id, month_start(now))
        if month + settings.amount_micros > settings.monthly_cap_micros:
            return
        request = f"auto-{now.isoformat()}"
        new = self._deposits.planned(SessionKind.AUTO, request, account_id, settings.amount_micros)
        await self._deposits.require_fee(new)
        try:
            session = await self._store.add(new, now=now)
        except ConflictError:
            # Another replica was faster.
            return
        await self._charge(session)

    async def _charge(self, session: Session) -> None:
        account_id = session.new.account_id
        if self._clock.now() - session.created_at >= _UNDECIDED_AFTER:
            # If it was charged, its event credits it all the same.
            await self._give_up(session, _UNDECIDED)
            return
        card = await self._store.customer(account_id)
        if card is None or not card.payment_method:
            await self._give_up(session, _NO_CARD)
            return
        try:
            payment = await self._acquirer.charge_saved(
                session, card.customer_id, card.payment_method
            )
        except CardRefusedError as error:
            await self._give_up(session, error.word)
            return
        except MeshError as error:
            # It may have been charged: the same key is asked again, and an event may be faster.
            _log.warning("top_up_undecided", reason=error.reason_name)
            return
        if payment.status == "succeeded":
            await self._deposits.credit(session, payment)
        elif payment.status != "processing":
            await self._give_up(session, payment.status)

    async def _give_up(self, session: Session, reason: str) -> None:
        """End the session and switch off, so that a card is not tried again and again."""
        now = self._clock.now()
        await self._store.disable_top_up(session.new.account_id, reason, now=now)
        await self._store.move(session.new.session_id, SessionStatus.FAILED)
        _log.info("top_up_disabled", reason=reason)
