"""Once a day: what Stripe holds beside what the books say, and what explains the difference."""

import json
from datetime import datetime, timedelta

import structlog
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import MeshError

from darkbloom_billing.books import Books
from darkbloom_billing.payments.meters import PaymentMeters
from darkbloom_billing.payments.model import CENT_MICROS, Check
from darkbloom_billing.payments.ports import Acquirer
from darkbloom_billing.payments.store.events import PostgresEvents
from darkbloom_billing.payments.store.payouts import PostgresPayouts

_DAY = timedelta(days=1)
_LOOK_S = 600.0
_MAX_ITEMS = 200
_log = structlog.get_logger()


class AssetCheck:
    """Compares, names open items, and keeps the result for the audit.

    Args:
        books: What we believe.
        acquirer: What Stripe says.
        payouts: Withdrawals on their way.
        events: Events that have not acted.
        clock: Time.
        meters: Shows the difference.
    """

    def __init__(
        self,
        books: Books,
        acquirer: Acquirer,
        payouts: PostgresPayouts,
        events: PostgresEvents,
        clock: Clock,
        meters: PaymentMeters,
    ) -> None:
        self._books = books
        self._acquirer = acquirer
        self._payouts = payouts
        self._events = events
        self._clock = clock
        self._meters = meters

    async def run(self) -> None:
        """Check once a day, for ever."""
        while True:
            try:
                last = await self._payouts.last_check()
                if last is None or self._clock.now() - last >= _DAY:
                    await self.check()
            except MeshError as error:
                _log.warning("asset_check_postponed", reason=error.reason_name)
            await self._clock.sleep(_LOOK_S)

    async def check(self) -> Check:
        """Compare now and keep the result.

        A withdrawal leaves Stripe when it is transferred and the books when it is paid; a payment
        is at Stripe before its event has acted here. Both are open items with their amounts; an
        event that has not acted is named so that a person finds it. The rest is unexplained.

        Raises:
            StripeFailedError: Stripe does not answer.
        """
        now = self._clock.now()
        last = await self._payouts.last_check() or now - _DAY
        stripe = await self._acquirer.balance_cents() * CENT_MICROS
        book = (await self._books.stripe_position()).balance_micros
        items: list[dict[str, str | int]] = [
            {"kind": "on_its_way", "id": row.withdrawal_id, "micros": -row.quote.net_micros}
            for row in await self._payouts.on_their_way()
        ]
        items += await self._unknown(last)
        explained = sum(int(item["micros"]) for item in items)
        items += [
            {"kind": f"event_{each['state']}", "id": each["event_id"], "micros": 0}
            for each in await self._events.unfinished(_MAX_ITEMS)
        ]
        made = Check(
            checked_at=now,
            stripe_micros=stripe,
            book_micros=book,
            open_items=tuple(items[:_MAX_ITEMS]),
            unexplained_micros=stripe - book - explained,
        )
        await self._payouts.keep_check(
            now.date(), now, stripe, book, json.dumps(made.open_items), made.unexplained_micros
        )
        await self._books.note_stripe_balance(stripe - explained)
        self._meters.drift(made.unexplained_micros)
        if made.unexplained_micros:
            _log.error("stripe_balance_differs", micros=made.unexplained_micros, items=len(items))
        return made

    async def _unknown(self, since: datetime) -> list[dict[str, str | int]]:
        """Return payments that Stripe has booked and no event of ours has brought here yet."""
        moves = await self._acquirer.sources_since(since)
        charges = [move for move in moves if move[1].startswith("ch_")]
        known = await self._payouts.known_sources([source for _, source, _ in charges])
        return [
            {"kind": "payment", "id": source, "micros": net * CENT_MICROS}
            for _, source, net in charges
            if source not in known
        ]
