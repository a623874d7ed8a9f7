"""The books beside the hot path, over a real database, with a clock that stands still."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta

from darkbloom_billing.audit import audit
from darkbloom_billing.books import Books, Budget
from darkbloom_billing.books.maturation import Maturation
from darkbloom_billing.model import End, EndKind, HoldOrder
from darkbloom_billing.store.database import Connection, Database
from darkbloom_billing.store.ledger import PostgresLedger
from darkbloom_mesh.testing import FakeClock

from tests.component.billing.histories import PRICE
from tests.component.billing.world import START, open_database, request_id

DOLLAR = 1_000_000
WEEK = timedelta(days=7)


def settled(name: str, payee: str, charge: int) -> End:
    """A settlement as the domain hands it to the store."""
    return End(
        request_id=name,
        kind=EndKind.SETTLE,
        charge_micros=charge,
        payee=payee,
        body_hash=charge.to_bytes(8, "big"),
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


def released(name: str) -> End:
    """A release as the domain hands it to the store."""
    return End(
        request_id=name,
        kind=EndKind.RELEASE,
        charge_micros=0,
        payee="",
        body_hash=b"released",
        body={},
    )


@dataclass
class Shop:
    """Everything that moves money, without the network around it."""

    books: Books
    ledger: PostgresLedger
    database: Database
    clock: FakeClock

    async def people(self, *names: str) -> None:
        for name in names:
            await self.books.open_account(name, name)

    async def fund(self, budget: Budget, amount: int) -> None:
        await self.books.fund_equity(f"eq_{budget}", amount, operator="a")
        await self.books.fund_budget(f"b_{budget}", budget, amount, operators=("a", "b"))

    async def hold(self, payer: str, amount: int, name: str | None = None) -> str:
        """Reserve exactly an amount; return `held` or the refusal."""
        now = self.clock.now()
        order = HoldOrder(
            request_id=name or request_id(),
            account_id=payer,
            key_id="",
            build="b",
            prompt_bound=amount,
            output_bound=0,
            requested_model="m",
        )
        (outcome,) = await self.ledger.hold_many(
            [(order, PRICE)], now=now, lease_until=now + timedelta(minutes=15)
        )
        return "held" if outcome.refusal is None else outcome.refusal.value

    async def extend(self, name: str, number: int, total: int, *, replaces: bool = False) -> str:
        """Raise a hold to an amount, or set it to that; return `held` or the refusal."""
        outcome = await self.ledger.extend_hold(
            name,
            number,
            replace(PRICE, price_id=f"p{total}"),
            total=total,
            replaces=replaces,
            now=self.clock.now(),
        )
        return "held" if outcome.refusal is None else outcome.refusal.value

    async def held(self, payer: str, amount: int) -> str:
        name = request_id()
        assert await self.hold(payer, amount, name) == "held"
        return name

    async def end(self, end: End) -> str:
        (ended,) = await self.ledger.resolve_many([end], now=self.clock.now())
        assert ended is not None
        return ended.status.value

    async def released(self, name: str) -> None:
        assert await self.end(released(name)) == "released"

    async def sold(self, payer: str, payee: str, charge: int, *, receipt: bool = True) -> str:
        """A request that was held, settled and countersigned."""
        name = await self.held(payer, charge)
        assert await self.end(settled(name, payee, charge)) == "settled"
        if receipt:
            await self.receipt(name)
        return name

    async def receipt(self, name: str) -> None:
        async def work(connection: Connection) -> None:
            await connection.execute(
                "INSERT INTO billing.receipt VALUES ($1, $2, '', '', '', $3)",
                name,
                b'{"opened":{"prompt_tokens":1,"completion_tokens":1}}',
                self.clock.now(),
            )

        await self.database.run(work)

    async def sweep(self) -> int:
        """One round of the maturation sweeper."""
        return await Maturation(self.books, self.clock, WEEK).sweep()

    async def mature(self, *sources: str) -> None:
        """Let the named earnings, or all of them, be old enough."""
        age = timedelta(0)
        if not sources:
            await Maturation(self.books, self.clock, age).sweep()
            return
        due = await self.books.due(self.clock.now(), limit=100)
        for account_id, found in due.items():
            if wanted := [source for source in found if source in sources]:
                await self.books.mature(account_id, wanted, due=self.clock.now())

    async def sound(self) -> None:
        """The whole audit finds nothing."""
        now = self.clock.now()
        report = await audit(self.database, now=now, receipts_due=now)
        assert report.violations == ()


@asynccontextmanager
async def shop(url: str) -> AsyncIterator[Shop]:
    database = await open_database(url)
    clock = FakeClock(START)
    try:
        yield Shop(Books(database, clock), PostgresLedger(database), database, clock)
    finally:
        await database.close()
