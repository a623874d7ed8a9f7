"""How earnings ripen, and how an account ends."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from darkbloom_billing.books import plans
from darkbloom_billing.books.base import Base, own_wallets
from darkbloom_billing.books.core import Also, Command
from darkbloom_billing.books.model import EXPENSE, Budget, Outcome, Wallet, revenue
from darkbloom_billing.books.rows import (
    able_debtors,
    due_earnings,
    forfeit_earnings,
    is_busy,
    mark_matured,
    unmatured,
)
from darkbloom_billing.store.database import Connection


class Endings(Base):
    """Maturation and erasure."""

    async def due(
        self, due: datetime, *, limit: int, without: Sequence[str] = ()
    ) -> dict[str, list[str]]:
        """Return the oldest requests and bonuses that may mature, by account.

        Args:
            due: Requests settled until then are old enough.
            limit: Most of each kind.
            without: Accounts that are left out.
        """

        async def work(connection: Connection) -> dict[str, list[str]]:
            now = self.clock.now()
            return await due_earnings(connection, due=due, now=now, limit=limit, without=without)

        return await self.database.run(work)

    async def debtors(self) -> list[str]:
        """Return accounts that owe and have something to pay with."""

        async def work(connection: Connection) -> list[str]:
            return await able_debtors(connection)

        return await self.database.run(work)

    async def repay(self, account_id: str) -> Outcome:
        """Pay an account's debt from its purchased and earned money; returns `repaid`."""
        command = self.simple(
            f"repay:{account_id}:{self._moment()}",
            "repay",
            {"account_id": account_id},
            own_wallets(account_id),
            lambda d: plans.pay_debt(d, account_id),
        )
        return await self.run(command, None)

    async def mature(self, account_id: str, sources: Sequence[str], *, due: datetime) -> Outcome:
        """Move earnings of one account that are due to its spendable money.

        Of the named requests and bonuses those count that are still unmatured, old enough, and,
        for requests, have their receipt and no dispute; which they were is looked up under the
        lock. Debts are paid first.

        Args:
            account_id: Whose.
            sources: Request ids and bonus ids.
            due: Requests settled until then are old enough.

        Returns:
            `matured`, `repaid`.
        """
        now = self.clock.now()

        async def facts(connection: Connection) -> Mapping[str, int]:
            return await unmatured(connection, account_id, sources, due=due, now=now)

        async def mark(connection: Connection, found: Mapping[str, int]) -> None:
            await mark_matured(connection, list(found), now)

        command = Command(
            key=f"mature:{account_id}:{min(sources)}:{self._moment()}",
            kind="mature",
            body={"account_id": account_id, "sources": sorted(sources)},
            accounts=lambda _: [Wallet.MATURING.of(account_id), *own_wallets(account_id)],
            facts=facts,
            plan=lambda d, found: plans.mature(d, account_id, sum(found.values())),
            effects=mark,
        )
        return await self.run(command, None)

    async def forfeit(
        self, erasure_id: str, account_id: str, *, also: Also | None = None
    ) -> Outcome:
        """Empty an account that is erased, and freeze it (key `erasure:<erasure_id>`).

        Returns:
            `forfeited`, `written_off`.

        Raises:
            OpenBusinessError: A hold, a withdrawal or a dispute is open.
        """
        now = self.clock.now()

        async def busy(connection: Connection) -> bool:
            return await is_busy(connection, account_id)

        async def close(connection: Connection, _facts: bool) -> None:
            await forfeit_earnings(connection, account_id, now)

        command = Command(
            key=f"erasure:{erasure_id}",
            kind="forfeit",
            body={"account_id": account_id},
            accounts=lambda _: [
                Budget.PROMO.path,
                EXPENSE,
                revenue(account_id),
                *own_wallets(account_id),
                *(w.of(account_id) for w in (Wallet.PROMO, Wallet.MATURING, Wallet.DISPUTED)),
            ],
            facts=busy,
            plan=lambda d, is_open: plans.forfeit(d, account_id, busy=is_open),
            effects=close,
        )
        return await self.run(command, also)

    def _moment(self) -> int:
        """Return now in microseconds: these commands have no id, what they may do is looked up."""
        return round(self.clock.now().timestamp() * 1e6)
