"""Referrals: codes, and the job that pays rewards hour by hour.

A reward costs no lock on the path of a request: the job reads what an hour has settled, and pays
one transfer per referrer, which the books let mature. Every step is idempotent, so a job that dies
anywhere is simply run again.
"""

from datetime import datetime, timedelta
from functools import partial
from itertools import groupby

import structlog
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import MeshError

from darkbloom_billing.books import Books, Budget
from darkbloom_billing.programmes import referral_store
from darkbloom_billing.programmes.codes import referral_code
from darkbloom_billing.programmes.model import Caps, ReferralView, Spend
from darkbloom_billing.programmes.referral_store import PostgresReferrals
from darkbloom_billing.programmes.rewards import HOUR, hour_of, month_of, reward

LATE = timedelta(minutes=10)
"""An hour is closed this long after its end: settlements in flight have committed by then."""
_HOURS_AT_ONCE = 48
_log = structlog.get_logger()


class Referrals:
    """Rules of the programme; money moves through the books only."""

    def __init__(
        self,
        books: Books,
        store: PostgresReferrals,
        clock: Clock,
        *,
        caps: Caps,
    ) -> None:
        self._books = books
        self._store = store
        self._clock = clock
        self.caps = caps

    async def register(self, account_id: str, text: str) -> str:
        """Give an account its code, or return the one that it has."""
        return await self._store.register(account_id, referral_code(text), now=self._clock.now())

    async def apply(self, account_id: str, text: str) -> str:
        """Name the referrer of an account for ever; return the code."""
        code = referral_code(text)
        await self._store.apply(account_id, code, now=self._clock.now())
        return code

    async def view(self, account_id: str) -> ReferralView:
        """Return an account's side of the programme."""
        return await self._store.view(account_id)

    async def run(self, period_s: float) -> None:
        """Pay for ever."""
        while True:
            try:
                await self.pay()
            except MeshError as error:
                _log.warning("referrals_not_paid", reason=error.reason_name)
            await self._clock.sleep(period_s)

    async def pay(self) -> int:
        """Pay every closed hour that is not paid, at most two days of them; return how many.

        Raises:
            ConflictError: Another replica is at it; what it leaves is for the next round.
        """
        now = self._clock.now()
        hour = await self._store.next_hour(hour_of(now))
        done = 0
        while hour + HOUR + LATE <= now and done < _HOURS_AT_ONCE:
            await self._pay_hour(hour, now)
            hour += HOUR
            done += 1
            await self._store.advance(hour)
        return done

    async def _pay_hour(self, hour: datetime, now: datetime) -> None:
        spends = await self._store.spends(hour, hour + HOUR)
        for referrer_id, theirs in groupby(spends, key=_referrer):
            await self._pay_referrer(referrer_id, hour, list(theirs), now)

    async def _pay_referrer(
        self, referrer_id: str, hour: datetime, spends: list[Spend], now: datetime
    ) -> None:
        paid = await self._store.paid(month_of(hour), referrer_id)
        left = await self._books.budget(Budget.REFERRAL)
        found = reward(spends, self.caps, paid, budget_micros=left)
        if found is None:
            return
        if not found.paid_micros:
            await self._store.write(referrer_id, hour, found, paid=paid, now=now)
            return
        bonus_id = f"{referrer_id}:{hour:%Y%m%dT%H}"
        write = partial(
            referral_store.write_payout,
            referrer_id=referrer_id,
            hour=hour,
            reward=found,
            bonus_id=bonus_id,
            paid=paid,
            now=now,
        )
        await self._books.referral(bonus_id, referrer_id, found.paid_micros, also=write)


def _referrer(spend: Spend) -> str:
    return spend.referrer_id
