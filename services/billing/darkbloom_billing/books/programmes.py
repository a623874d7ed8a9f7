"""Programmes: grants, rewards, referrals, each out of a funded budget."""

from datetime import timedelta

from darkbloom_billing.books import plans
from darkbloom_billing.books.base import Base, Effects, own_wallets, require_amount
from darkbloom_billing.books.core import Also
from darkbloom_billing.books.model import Budget, Outcome, Wallet
from darkbloom_billing.store.database import Connection

_REFERRAL_MATURES = timedelta(days=30)


class Programmes(Base):
    """A budget that is empty ends its programme."""

    async def grant(
        self,
        grant_id: str,
        account_id: str,
        amount_micros: int,
        *,
        budget: Budget = Budget.PROMO,
        also: Also | None = None,
    ) -> Outcome:
        """Give promotional money (key `grant:<grant_id>`): spendable, never withdrawable.

        Returns:
            `credited`, `repaid`, `budget`.

        Raises:
            BudgetExhaustedError: The budget has less.
        """
        return await self._programme("grant", grant_id, budget, account_id, amount_micros, also)

    async def reward(
        self,
        reward_id: str,
        account_id: str,
        amount_micros: int,
        *,
        budget: Budget,
        also: Also | None = None,
    ) -> Outcome:
        """Give earned money (key `reward:<reward_id>`): withdrawable at once; else as `grant`."""
        return await self._programme("reward", reward_id, budget, account_id, amount_micros, also)

    async def referral(
        self,
        referral_id: str,
        account_id: str,
        amount_micros: int,
        *,
        budget: Budget = Budget.REFERRAL,
        also: Also | None = None,
    ) -> Outcome:
        """Give a reward that matures in 30 days (key `referral:<referral_id>`); else as `grant`."""
        now = self.clock.now()

        async def remember(connection: Connection, _facts: None) -> None:
            await connection.execute(
                "INSERT INTO billing.bonus (bonus_id, account_id, amount_micros, created_at, "
                "matures_at) VALUES ($1, $2, $3, $4, $5)",
                referral_id,
                account_id,
                amount_micros,
                now,
                now + _REFERRAL_MATURES,
            )

        return await self._programme(
            "referral", referral_id, budget, account_id, amount_micros, also, effects=remember
        )

    async def _programme(
        self,
        code: str,
        subject: str,
        budget: Budget,
        account_id: str,
        amount: int,
        also: Also | None,
        *,
        effects: Effects | None = None,
    ) -> Outcome:
        require_amount(amount)
        wallets = [w.of(account_id) for w in (Wallet.PROMO, Wallet.MATURING)]
        command = self.simple(
            f"{code}:{subject}",
            code,
            {"account_id": account_id, "amount": amount, "budget": budget.value},
            [budget.path, *wallets, *own_wallets(account_id)],
            lambda d: plans.pay_from(d, code, budget, account_id, amount),
            effects=effects,
        )
        return await self.run(command, also)
