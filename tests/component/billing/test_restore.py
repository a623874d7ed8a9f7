"""The database is lost and set back to a moment; then the books agree with the world again."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from darkbloom_billing.admin.erasure_proof import bundle, check
from darkbloom_billing.admin.model import Operator, Source
from darkbloom_billing.admin.parts import build_erasures
from darkbloom_billing.books import Books
from darkbloom_billing.books.seal import export as export_head
from darkbloom_billing.books.seal import exported, seal
from darkbloom_billing.config import BillingConfig
from darkbloom_billing.recovery.report import Recovery
from darkbloom_billing.recovery.steps import recover
from darkbloom_billing.store.database import Database
from darkbloom_local import backups
from darkbloom_local.process import Child
from darkbloom_local.stores import Postgres, running
from darkbloom_mesh.config import Secret
from darkbloom_mesh.migrate import migrate
from darkbloom_mesh.testing import FakeClock

from tests.component.billing.test_seal import older
from tests.component.billing.till import Till, till_at
from tests.component.billing.world import CONSUMER, PROVIDER, START, open_database, owner
from tests.stripe_local.running import API_KEY, Control, local_stripe

ANN = "acct_ann"
OPERATOR = Operator(name="ops", source=Source.CLI)
DOLLAR = 1_000_000


@dataclass
class Places:
    """What is outside of the database."""

    backups: Path
    erasures: Path
    heads: Path
    new_heads: Path

    @classmethod
    def made(cls, root: Path) -> "Places":
        made = cls(*(root / name for name in ("backups", "erasures", "heads", "new_heads")))
        for path in (made.erasures, made.heads, made.new_heads):
            path.mkdir()
        return made


@contextmanager
def server(home: Path, places: Places) -> Iterator[tuple[Postgres, Child]]:
    started = Postgres(home, durable=False, settings=backups.archiving(places.backups))
    started.prepare()
    backups.prepare_archive(started, places.backups)
    child = started.launch()
    try:
        started.wait_ready(child)
        yield started, child
    finally:
        child.stop(10)


def config(url: str, stripe: Control, places: Places) -> BillingConfig:
    return BillingConfig(
        environment="development",
        database_url=Secret(url),
        stripe_secret_key=Secret(API_KEY),
        stripe_api_base=stripe.url,
        erasure_directory=str(places.erasures),
        seal_directory=str(places.new_heads),
    )


async def person(t: Till, account_id: str) -> None:
    """Somebody with a login."""
    await t.world.account(account_id)
    async with owner(t.world.url) as db:
        await db.execute(
            """INSERT INTO billing.app_user (user_id, issuer, subject, account_id, email,
                 email_verified, created_at)
               VALUES ('user_ann', 'https://id', 's', $1, 'ann@example.org', true, now())""",
            account_id,
        )


async def sealed(t: Till, places: Places) -> int:
    async with owner(t.world.url) as db:
        await older(db)
    block = await seal(t.books.database, now=t.clock.now())
    assert block is not None
    export_head(block, places.heads)
    return block.height


async def erased(t: Till, places: Places) -> str:
    erasures = build_erasures(
        config(t.world.url, t.stripe, places), t.books.database, t.books, t.clock
    )
    planned, token = await erasures.plan(OPERATOR, "plan_ann", ANN)
    await erasures.confirm(OPERATOR, planned.erasure_id, token, forfeit=True, force=True)
    return planned.erasure_id


@asynccontextmanager
async def database(url: str) -> AsyncIterator[Database]:
    opened = await open_database(url)
    try:
        yield opened
    finally:
        await opened.close()


async def before_and_after(t: Till, places: Places, pg: Postgres) -> tuple[datetime, datetime, str]:
    """A life in two parts; returns the moment between them, as the database and Stripe have it."""
    await t.earn(20 * DOLLAR)
    await t.onboarded()
    await t.paid(10 * DOLLAR)
    await person(t, ANN)
    # What happened until here is further back than anybody has to ask Stripe for.
    t.clock.jump(7200)
    await asyncio.to_thread(backups.base_backup, pg, places.backups)
    order = t.world.order()
    await t.world.hold(order)
    paid_later = await t.deposit(3 * DOLLAR)
    assert await sealed(t, places) == 1
    async with owner(t.world.url) as db:
        moment = await db.fetchval("SELECT clock_timestamp()")
    told = t.clock.now()

    # From here on only the world remembers.
    await t.world.release(order.request_id)
    t.clock.jump(7200)
    await t.stripe.do("pay", session=paid_later.stripe_session)
    await t.paid(5 * DOLLAR)
    await t.withdraw(4 * DOLLAR)
    await t.deliver()
    name = await erased(t, places)
    assert await sealed(t, places) == 2
    await asyncio.to_thread(backups.archive_now, pg)
    return moment, told, name


async def test_what_the_database_forgot_comes_back_from_the_world(tmp_path: Path) -> None:
    places, clock = Places.made(tmp_path), FakeClock(START)
    async with local_stripe(clock) as stripe:
        with server(tmp_path / "first", places) as (pg, child):
            migrate(Secret(pg.url), package="darkbloom_billing", schema="billing")
            async with till_at(stripe, clock, pg.url) as t:
                moment, told, erasure = await before_and_after(t, places, pg)
                spent = await t.wallets()
                left = await t.wallets(PROVIDER)
            backups.kill(child, pg)

        again = await asyncio.to_thread(
            backups.restore, places.backups, tmp_path / "second", to=moment, durable=False
        )
        with running(again):
            async with database(again.url) as db:
                books = Books(db, clock)
                assert (await books.wallets(CONSUMER)).credit_micros < spent.credit_micros
                assert (await books.wallets(PROVIDER)).earned_micros > left.earned_micros

                settings = config(again.url, stripe, places)
                done = await recover(
                    settings,
                    db,
                    clock,
                    moment=told,
                    erasures=places.erasures,
                    heads=places.heads,
                    void_all=True,
                )
                judge(done)
                # The hold of then was released in the first life; here nobody will do it.
                assert (await books.wallets(CONSUMER)).credit_micros == 18 * DOLLAR
                assert (await books.wallets(PROVIDER)).earned_micros == left.earned_micros
                # All of it may be repeated, and from further back.
                twice = await recover(
                    settings, db, clock, moment=START, erasures=places.erasures, heads=places.heads
                )
                assert (twice.sound, twice.holds_voided) == (True, 0)
                assert twice.stripe["events"] > done.stripe["events"] > 0
                assert twice.erasures == {"known": 1}
                assert (await books.wallets(CONSUMER)).credit_micros == 18 * DOLLAR
                await gone(again.url, db, erasure, places)


def judge(done: Recovery) -> None:
    assert done.sound, done.body()
    assert (done.holds_voided, done.holds_open) == (1, 0)
    assert done.stripe["events_new"] > 0
    assert (done.stripe["sessions_adopted"], done.stripe["withdrawals_adopted"]) == (1, 1)
    assert done.erasures == {"erased": 1}
    assert (done.heads_equal, done.heads_given_up, done.heads_differ) == (1, (2,), ())
    assert done.audit["violations"] == []


async def gone(url: str, db: Database, erasure: str, places: Places) -> None:
    """The person is erased again, and it can be proven to somebody who trusts only the copies."""
    assert set(exported(places.new_heads)) == {1}
    async with owner(url) as admin:
        assert await admin.fetchval("SELECT count(*) FROM billing.app_user") == 0
        await older(admin)
    block = await seal(db, now=START + timedelta(days=1))
    assert block is not None
    export_head(block, places.new_heads)
    proof = await bundle(db, erasure)
    heads = exported(places.new_heads)
    assert proof["statement"]["rules"]["users"] == 1
    assert check(proof, heads) == ()
    assert check(proof, exported(places.heads)) == ("the copy outside says otherwise",)
    proof["statement"]["rules"]["users"] = 2
    assert check(proof, heads) == ("the statement is not the one of the event",)
    proof["event"][0] += 1
    assert "the event is not in the block" in check(proof, heads)
    assert check({}, heads) == ("this is no proof of an erasure",)
