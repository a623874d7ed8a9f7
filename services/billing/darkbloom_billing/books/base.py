"""What every family of commands stands on."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import InvalidArgumentError

from darkbloom_billing.books.core import Also, Command, body_of, nothing
from darkbloom_billing.books.core import run as run_command
from darkbloom_billing.books.draft import Draft
from darkbloom_billing.books.model import Json, Outcome, Plan, Share, Wallet
from darkbloom_billing.store.database import Connection, Database

Effects: TypeAlias = Callable[[Connection, None], Awaitable[object]]

_LARGEST = 10**15


class Base:
    """Runs commands and asks small questions.

    Args:
        database: Where the ledger is.
        clock: Time of events.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self.database = database
        self.clock = clock

    def simple(
        self,
        key: str,
        kind: str,
        body: Mapping[str, Json],
        accounts: Iterable[str],
        plan: Callable[[Draft], Plan],
        *,
        effects: Effects | None = None,
    ) -> Command[None]:
        """Return a command whose plan needs nothing but balances."""
        paths = tuple(accounts)
        return Command(
            key=key,
            kind=kind,
            body=body,
            accounts=lambda _: paths,
            facts=nothing,
            plan=lambda d, _: plan(d),
            effects=effects,
        )

    async def run(self, command: Command[Any], also: Also | None) -> Outcome:
        """Run a command at the present time."""
        return await run_command(self.database, command, now=self.clock.now(), also=also)

    async def free(self, path: str) -> int:
        """Return what is free on an account, in micro-USD."""
        row = await self.row(
            "SELECT CASE normal WHEN 'C' THEN cr - dr - dr_pend ELSE dr - cr - cr_pend END AS free "
            "FROM ledger.account WHERE path = $1",
            path,
        )
        return int(row["free"])

    async def row(self, statement: str, *arguments: object) -> Any:
        """Return the first row of a repeatable statement."""

        async def work(connection: Connection) -> Any:
            return await connection.fetchrow(statement, *arguments)

        return await self.database.run(work)


def own_wallets(account_id: str) -> list[str]:
    """Return the paths between which debts are paid."""
    return [wallet.of(account_id) for wallet in (Wallet.CREDIT, Wallet.EARNED, Wallet.DEBT)]


def held_wallets(shares: Sequence[Share]) -> list[str]:
    """Return the paths between which the earnings of shares are held."""
    return [
        wallet.of(share.account_id)
        for share in shares
        for wallet in (Wallet.MATURING, Wallet.DISPUTED)
    ]


def require_amount(amount: int, *, zero: bool = False) -> None:
    """Refuse what is no amount of money.

    Raises:
        InvalidArgumentError: It is negative, 0 without leave, or above 10^15 micro-USD.
    """
    if not (0 if zero else 1) <= amount <= _LARGEST:
        raise InvalidArgumentError("amount is out of range", "amount_micros")


async def deposit_of(connection: Connection, payment_id: str) -> dict[str, Any]:
    """Return the body of a deposit's event.

    Raises:
        NotFoundError: There is no such deposit.
    """
    return await body_of(connection, f"stripe:{payment_id}", "deposit")
