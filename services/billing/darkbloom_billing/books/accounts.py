"""Accounts: their wallets, who is who's relative, who is frozen."""

from darkbloom_mesh.errors import NotFoundError

from darkbloom_billing.books.base import Base
from darkbloom_billing.books.core import Also
from darkbloom_billing.books.model import Outcome, Wallet, Wallets
from darkbloom_billing.store.database import Connection


class Accounts(Base):
    """Commands and questions about one account."""

    async def open_account(self, account_id: str, name: str, *, also: Also | None = None) -> None:
        """Create an account with all its wallets; one that is there stays as it is.

        `also` runs each time: it must be repeatable by itself.
        """

        async def work(connection: Connection) -> None:
            async with connection.transaction():
                await connection.execute(
                    "SELECT billing.create_account($1, $2, $3)",
                    account_id,
                    name,
                    self.clock.now(),
                )
                if also is not None:
                    await also(connection)

        await self.database.run(work)

    async def wallets(self, account_id: str) -> Wallets:
        """Return the money of an account.

        Raises:
            NotFoundError: No such account.
        """
        row = await self.row("SELECT * FROM billing.wallets($1)", account_id)
        if row is None:
            raise NotFoundError("no such account")
        return Wallets(
            **{f"{name}_micros": row[name] for name in row.keys() if name != "frozen"},  # noqa: SIM118 - a record iterates over its values
            frozen=row["frozen"],
        )

    async def related(self, payer: str, payee: str) -> bool:
        """Say whether two accounts are one person's: the same, or sharing device, card or bank."""
        row = await self.row("SELECT billing.related($1, $2) AS related", payer, payee)
        return bool(row["related"])

    async def add_fingerprint(self, account_id: str, kind: str, fingerprint: bytes) -> None:
        """Note the SHA-256 of a `device`, `card` or `bank` of an account."""
        await self.row(
            "INSERT INTO billing.fingerprint (account_id, kind, hash) VALUES ($1, $2, $3) "
            "ON CONFLICT DO NOTHING",
            account_id,
            kind,
            fingerprint,
        )

    async def freeze(
        self, request_id: str, account_id: str, *, frozen: bool, also: Also | None = None
    ) -> Outcome:
        """Stop an account from spending and withdrawing, or let it again; debt freezes anyway."""
        now = self.clock.now()

        async def mark(connection: Connection, _facts: None) -> None:
            await connection.execute(
                "UPDATE billing.account SET frozen_at = $2 WHERE account_id = $1",
                account_id,
                now if frozen else None,
            )

        command = self.simple(
            f"freeze:{request_id}",
            "freeze",
            {"account_id": account_id, "frozen": frozen},
            [Wallet.DEBT.of(account_id)],
            lambda d: d.done(),
            effects=mark,
        )
        return await self.run(command, also)
