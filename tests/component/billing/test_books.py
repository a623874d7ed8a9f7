"""The rare commands over the real ledger: each flow, its replay, and what it refuses."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest
from darkbloom_billing.audit import audit
from darkbloom_billing.books import Books, FeePayer
from darkbloom_billing.model import End, EndKind, HoldOrder
from darkbloom_billing.store.database import Connection, Database
from darkbloom_billing.store.ledger import PostgresLedger
from darkbloom_mesh.errors import ConflictError, NotFoundError
from darkbloom_mesh.testing import FakeClock

from tests.component.billing.histories import PRICE
from tests.component.billing.world import START, open_database, request_id


@dataclass
class Shop:
    """Books, and the hot path beside them."""

    books: Books
    ledger: PostgresLedger
    database: Database
    clock: FakeClock

    async def people(self, *names: str) -> None:
        for name in names:
            await self.books.open_account(name, name)

    async def sold(self, payer: str, payee: str, charge: int) -> str:
        """A request that was held, settled and countersigned."""
        name, now = request_id(), self.clock.now()
        order = HoldOrder(
            request_id=name,
            account_id=payer,
            key_id="",
            build="b",
            prompt_bound=charge,
            output_bound=0,
            requested_model="m",
        )
        (held,) = await self.ledger.hold_many(
            [(order, PRICE)], now=now, lease_until=now + timedelta(minutes=15)
        )
        assert held.refusal is None
        end = End(
            request_id=name,
            kind=EndKind.SETTLE,
            charge_micros=charge,
            payee=payee,
            body_hash=b"",
            body={
                "attempt_id": "att",
                "prompt_tokens": 1,
                "cached_tokens": 0,
                "completion_tokens": 1,
                "outcome": "completed",
                "terminal_sha256": "",
                "identity_key": "00",
                "payee": payee,
            },
        )
        (ended,) = await self.ledger.resolve_many([end], now=now)
        assert ended is not None
        assert ended.charge_micros == charge
        await self.receipt(name)
        return name

    async def receipt(self, name: str) -> None:
        async def work(connection: Connection) -> None:
            await connection.execute(
                "INSERT INTO billing.receipt VALUES ($1, $2, '', '', '', $3)",
                name,
                b"{}",
                self.clock.now(),
            )

        await self.database.run(work)

    async def sound(self) -> None:
        now = self.clock.now()
        report = await audit(self.database, now=now, receipts_due=now - timedelta(days=1))
        assert report.violations == ()


@asynccontextmanager
async def shop(url: str) -> AsyncIterator[Shop]:
    database = await open_database(url)
    clock = FakeClock(START)
    try:
        yield Shop(Books(database, clock), PostgresLedger(database), database, clock)
    finally:
        await database.close()


async def test_a_deposit_is_booked_once_with_its_side_rows(url: str) -> None:
    async with shop(url) as s:
        await s.people("acct_a")
        seen = []

        async def also(connection: Connection) -> None:
            seen.append(await connection.fetchval("SELECT 1"))

        first = await s.books.deposit(
            "cs_1", "acct_a", 10_000_000, fee_line_micros=600_000, also=also
        )
        again = await s.books.deposit(
            "cs_1", "acct_a", 10_000_000, fee_line_micros=600_000, also=also
        )
        assert first.result == {"credited": 10_000_000, "repaid": 0}
        assert again == replace(first, replayed=True)
        assert seen == [1]
        with pytest.raises(ConflictError):
            await s.books.deposit("cs_1", "acct_a", 9)
        with pytest.raises(NotFoundError):
            await s.books.deposit("cs_2", "acct_nobody", 9)
        fee = await s.books.stripe_fee("txn_1", 590_000, payer=FeePayer.LINE)
        assert fee.result == {"from_budget": 0, "expense": 590_000}
        assert (await s.books.wallets("acct_a")).credit_micros == 10_000_000
        assert (await s.books.stripe_position()).balance_micros == 10_010_000
        await s.sound()
