"""`Grant`: promotional money for tools, from the budget that two operators have funded.

A development mesh has no operators, so there two named stand-ins propose and approve what is asked
for: through the same door, visible in the same audit.
"""

from darkbloom_mesh.clock import Clock

from darkbloom_billing.admin.budgets import CAPITAL, Budgets
from darkbloom_billing.admin.desk import write_note
from darkbloom_billing.admin.model import Operator, Source
from darkbloom_billing.books import Books, Budget
from darkbloom_billing.store.database import Connection

_FIRST = Operator(name="development-one", source=Source.DEVELOPMENT)
_SECOND = Operator(name="development-two", source=Source.DEVELOPMENT)


class Grants:
    """Pays grants, once per request id."""

    def __init__(self, books: Books, budgets: Budgets, clock: Clock, *, development: bool) -> None:
        self._books = books
        self._budgets = budgets
        self._clock = clock
        self._development = development

    async def grant(self, request_id: str, account_id: str, amount_micros: int, note: str) -> int:
        """Put promotional money on an account; return what can be spent then, in micro-USD.

        Raises:
            NotFoundError: No such account.
            ConflictError: The request id came before with other contents.
            BudgetExhaustedError: Operators have not funded so much.
        """
        await self._books.wallets(account_id)
        if self._development:
            await self._fund(request_id, amount_micros)

        async def also(connection: Connection) -> None:
            now = self._clock.now()
            await write_note(connection, f"grant:{request_id}", account_id, note, now=now)

        await self._books.grant(request_id, account_id, amount_micros, also=also)
        return (await self._books.wallets(account_id)).balance_micros

    async def _fund(self, request_id: str, amount_micros: int) -> None:
        for budget in (CAPITAL, Budget.PROMO.value):
            proposed = await self._budgets.propose(
                _FIRST, f"grant:{budget}:{request_id}", budget, amount_micros
            )
            await self._budgets.approve(_SECOND, proposed.funding_id)
