"""Random histories against a small model, and the same under fire."""

import asyncio
import random  # noqa: TID251 - seeded: the same histories each time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from darkbloom_billing.admin.budgets import Budgets
from darkbloom_billing.admin.grants import Grants
from darkbloom_billing.audit import audit
from darkbloom_billing.books import Books
from darkbloom_billing.model import End, EndKind
from darkbloom_billing.store.accounts import PostgresAccounts
from darkbloom_billing.store.database import Connection, Database
from darkbloom_billing.store.ledger import PostgresLedger
from darkbloom_mesh.errors import StoreUnavailableError
from darkbloom_mesh.testing import FakeClock

from tests.component.billing.histories import (
    ACCOUNTS,
    LEASE_UNTIL,
    NOW,
    PRICE,
    PROVIDERS,
    Command,
    Hold,
    Model,
    commands,
)
from tests.component.billing.world import open_database, owner

FUNDS = 3_000


@asynccontextmanager
async def books(url: str) -> AsyncIterator[tuple[Database, PostgresLedger]]:
    database = await open_database(url)
    accounts = PostgresAccounts(database)
    for name in sorted({*ACCOUNTS, *PROVIDERS}):
        await accounts.create_account(name, name, now=NOW)
    clock = FakeClock(NOW)
    written = Books(database, clock)
    grants = Grants(written, Budgets(written, database, clock), clock, development=True)
    for name in ACCOUNTS:
        await grants.grant(f"g_{name}", name, FUNDS, "")
    try:
        yield database, PostgresLedger(database)
    finally:
        await database.close()


async def run(ledger: PostgresLedger, command: Command) -> str:
    if isinstance(command, Hold):
        (held,) = await ledger.hold_many([(command.order, PRICE)], now=NOW, lease_until=LEASE_UNTIL)
        return "held" if held.refusal is None else held.refusal.value
    (ended,) = await ledger.resolve_many([command.end], now=NOW)
    assert ended is not None
    return ended.status.value


async def read(database: Database) -> dict[str, tuple[int, int, int, int]]:
    async def work(connection: Connection) -> dict[str, tuple[int, int, int, int]]:
        rows = await connection.fetch(
            """SELECT a.account_id, w.promo, w.earned, w.held, w.maturing
               FROM billing.account a, billing.wallets(a.account_id) w"""
        )
        return {name: tuple(money) for name, *money in rows}

    return await database.run(work)


async def violations(database: Database) -> list[object]:
    return list((await audit(database, now=NOW, receipts_due=NOW)).violations)


@pytest.mark.parametrize("seed", range(6))
async def test_any_history_gives_the_answers_and_balances_of_the_model(url: str, seed: int) -> None:
    async with books(url) as (database, ledger):
        model = Model(free=dict.fromkeys(ACCOUNTS, FUNDS))
        for command in commands(random.Random(seed), 25):
            told = await run(ledger, command)
            expected = (
                model.hold(command.order)
                if isinstance(command, Hold)
                else model.resolve(command.end)
            )
            assert told == expected
            assert await read(database) == model.balances()
        assert await violations(database) == []


@pytest.mark.parametrize("seed", range(2))
async def test_batches_give_what_single_commands_give(url: str, seed: int) -> None:
    rng = random.Random(seed)
    async with books(url) as (database, ledger):
        model = Model(free=dict.fromkeys(ACCOUNTS, FUNDS))
        waiting = commands(rng, 60)
        while waiting:
            kind = type(waiting[0])
            size = rng.randint(1, 20)
            batch = [command for command in waiting[:size] if isinstance(command, kind)]
            waiting = [c for c in waiting[:size] if not isinstance(c, kind)] + waiting[size:]
            if kind is Hold:
                # The store works account by account; within one it keeps the order given.
                batch.sort(key=lambda c: c.order.account_id)
                rows = [(c.order, PRICE) for c in batch]
                held = await ledger.hold_many(rows, now=NOW, lease_until=LEASE_UNTIL)
                told = [h.refusal.value if h.refusal else "held" for h in held]
                expected = [model.hold(c.order) for c in batch]
            else:
                ended = await ledger.resolve_many([c.end for c in batch], now=NOW)
                told = [e.status.value for e in ended if e]
                expected = [model.resolve(c.end) for c in batch]
            assert told == expected
        assert await read(database) == model.balances()
        assert await violations(database) == []


async def test_killed_connections_lose_no_money_and_repeat_no_command(url: str) -> None:
    rng = random.Random(7)
    names = ("held", "hold_ended", "insufficient_funds")
    async with books(url) as (database, ledger):
        done = asyncio.Event()
        kills = 0

        async def killer() -> None:
            nonlocal kills
            async with owner(url) as db:
                while not done.is_set():
                    kills += await db.fetchval(
                        """SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                           WHERE application_name = 'darkbloom-billing'
                             AND datname = current_database() AND random() < 0.3"""
                    )
                    await db.execute("SELECT pg_sleep(0.03)")

        async def client(work: list[Command]) -> None:
            for command in work:
                while True:
                    try:
                        told = await run(ledger, command)
                    except StoreUnavailableError:
                        continue
                    if isinstance(command, Hold):
                        assert told in names
                    break

        work = commands(rng, 160)
        async with asyncio.TaskGroup() as group:
            group.create_task(killer())
            async with asyncio.TaskGroup() as clients:
                for n in range(8):
                    clients.create_task(client(work[n::8]))
            done.set()
        assert kills > 3
        assert await violations(database) == []

        # Sweep what nobody ended: all money is then free or paid out, none is in between.
        open_holds = await ledger.expired(now=LEASE_UNTIL, limit=10_000)
        ends = [
            End(
                request_id=name,
                kind=EndKind.SWEEP,
                charge_micros=0,
                payee="",
                body_hash=b"",
                body={},
            )
            for name in open_holds
        ]
        await ledger.resolve_many(ends, now=LEASE_UNTIL)
        balances = (await read(database)).values()
        assert sum(held for _, _, held, _ in balances) == 0
        assert sum(free + earned + late for free, earned, _, late in balances) == FUNDS * len(
            ACCOUNTS
        )
        assert await violations(database) == []


async def test_many_writers_over_the_same_accounts_do_not_deadlock(url: str) -> None:
    async with books(url) as (database, ledger):
        rng = random.Random(3)

        async def writer(seed: int) -> None:
            for command in commands(random.Random(seed), 12):
                await run(ledger, command)

        await asyncio.gather(*(writer(rng.randint(0, 2**32)) for _ in range(8)))
        assert await violations(database) == []
        async with owner(url) as db:
            deadlocks = await db.fetchval(
                "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
            )
        assert deadlocks == 0


async def test_a_closed_port_is_unavailable_not_an_error_of_the_caller(url: str) -> None:
    database = await open_database(url)
    await database.close()
    with pytest.raises(StoreUnavailableError):
        await PostgresLedger(database).overdue(now=NOW)


def test_the_model_itself_conserves_money() -> None:
    for seed in range(50):
        model = Model(free=dict.fromkeys(ACCOUNTS, FUNDS))
        for command in commands(random.Random(seed), 40):
            if isinstance(command, Hold):
                model.hold(command.order)
            else:
                model.resolve(command.end)
            total = sum(sum(parts) for parts in model.balances().values())
            assert total == FUNDS * len(ACCOUNTS)
