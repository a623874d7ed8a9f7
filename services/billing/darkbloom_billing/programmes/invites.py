"""Redeeming invites: check, count and pay in one transaction."""

from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import NotFoundError

from darkbloom_billing.books import Books, Budget
from darkbloom_billing.errors import BudgetExhaustedError
from darkbloom_billing.programmes import invite_store
from darkbloom_billing.programmes.codes import invite_code
from darkbloom_billing.programmes.errors import ProgrammeRefusedError, Refusal
from darkbloom_billing.programmes.invite_store import PostgresInvites
from darkbloom_billing.programmes.model import Redeemed
from darkbloom_billing.store.database import Connection


class Invites:
    """An account uses an invite once; an invite pays as often as it may and never once more."""

    def __init__(self, books: Books, store: PostgresInvites, clock: Clock) -> None:
        self._books = books
        self._store = store
        self._clock = clock

    async def redeem(self, account_id: str, text: str) -> Redeemed:
        """Pay an invite to an account.

        Raises:
            NotFoundError: No such code, or no such account.
            ProgrammeRefusedError: It cannot be used, or not by this account, or the budget is
                used up.
        """
        code = invite_code(text)
        found = await self._store.get(code)
        if found is None:
            raise NotFoundError("no such invite")
        # A repeat would be answered from the books as if it paid again.
        if await self._store.redeemed(code, account_id):
            raise ProgrammeRefusedError(Refusal.INVITE_REDEEMED)
        refusal = invite_store.unusable(found, now=self._clock.now())
        if refusal is not None:
            raise ProgrammeRefusedError(refusal)

        amount = found.new.amount_micros
        taken = False

        async def take(connection: Connection) -> None:
            nonlocal taken
            await invite_store.take(connection, code, account_id, now=self._clock.now())
            taken = True

        try:
            await self._books.grant(
                f"invite:{code}:{account_id}", account_id, amount, budget=Budget.INVITE, also=take
            )
        except BudgetExhaustedError:
            raise ProgrammeRefusedError(Refusal.BUDGET_SHORT) from None
        if not taken:
            # Another redemption of this account was under way; it has paid, this one has not.
            raise ProgrammeRefusedError(Refusal.INVITE_REDEEMED)
        wallets = await self._books.wallets(account_id)
        return Redeemed(credited_micros=amount, balance_micros=wallets.balance_micros)
