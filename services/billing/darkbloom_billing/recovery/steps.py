"""The steps after a restore, in the order in which they stand on each other.

Holds end first, since an open one stands in the way of an erasure. Then Stripe, so that money that
has left is not there to be forfeited or withdrawn again. Then erasures. Then the proof: the sealed
history against its copies, and a whole audit. Each step may be repeated, and so may all of them.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from darkbloom_mesh.clock import Clock
from darkbloom_mesh.telemetry import Metrics

from darkbloom_billing.admin.erasure import Erasures
from darkbloom_billing.admin.erasure_log import ErasureLog, Step
from darkbloom_billing.admin.erasure_records import replay
from darkbloom_billing.admin.errors import OperatorRefusedError
from darkbloom_billing.admin.parts import build_erasures
from darkbloom_billing.audit import Auditor, Report
from darkbloom_billing.batch import MAX_ROWS
from darkbloom_billing.books import Books
from darkbloom_billing.books.maturation import Maturation
from darkbloom_billing.books.seal import Block, export, exported, torn_heads
from darkbloom_billing.config import BillingConfig
from darkbloom_billing.model import EndKind, EndStatus
from darkbloom_billing.payments import withdrawals
from darkbloom_billing.payments.meters import PaymentMeters
from darkbloom_billing.payments.model import WithdrawalStatus
from darkbloom_billing.payments.past import StripePast
from darkbloom_billing.payments.resync import Resync, Resynced
from darkbloom_billing.payments.sdk import Stripe
from darkbloom_billing.payments.store.payouts import PostgresPayouts
from darkbloom_billing.payments.webhooks import Dispatcher
from darkbloom_billing.payments.wiring import build_payments, dial
from darkbloom_billing.recovery.report import Recovery
from darkbloom_billing.settlement import release
from darkbloom_billing.store.database import Connection, Database
from darkbloom_billing.store.ledger import PostgresLedger

_OPEN = "SELECT count(*) FROM billing.lease"
_BLOCKS = "SELECT * FROM ledger.block ORDER BY height"


async def recover(
    config: BillingConfig,
    database: Database,
    clock: Clock,
    *,
    moment: datetime,
    erasures: Path | None = None,
    heads: Path | None = None,
    void_all: bool = False,
    acknowledge: Sequence[str] = (),
) -> Recovery:
    """Do everything that follows a restore to a moment.

    Args:
        config: Billing's own; its Stripe keys decide whether Stripe is asked.
        database: The restored one.
        clock: Time.
        moment: To which it was restored.
        erasures: Records of confirmed erasures.
        heads: Copies of the sealed history.
        acknowledge: Ids that a person has looked at; they do not make the outcome unsound.
        void_all: No request of before can still be running (every router and gateway was down).

    Raises:
        StoreUnavailableError: The database does not answer.
        StripeFailedError: Stripe does not answer.
        InvalidArgumentError: A file of `erasures` or `heads` is not what it should be.
    """
    books, done = Books(database, clock), Recovery()
    longest = timedelta(seconds=config.hold_lease_s) if void_all else timedelta()
    done.holds_voided = await void_holds(PostgresLedger(database), now=clock.now() + longest)
    done.holds_open = await _value(database, _OPEN)
    # What matured since the moment has to be there again before what was paid from it.
    await Maturation(books, clock, timedelta(seconds=config.maturation_s)).sweep()
    found = await ask_stripe(config, database, books, clock, moment)
    if found is not None:
        found.acknowledge(acknowledge)
        done.stripe = asdict(found)
    if erasures is not None:
        own = build_erasures(config, database, books, clock)
        log = ErasureLog(erasures)
        torn = log.unreadable()
        done.erasures_unreadable = tuple(name for name in torn if name not in acknowledge)
        for kept in log.newest():
            if kept.step is Step.ERASED:
                await end_withdrawals(books, PostgresPayouts(database), clock, kept.account_id)
        done.erasures = await replay_erasures(own, database, clock, log)
    copies = await compare_heads(config, database, heads, done) if heads is not None else {}
    done.audit = (await _audit(config, database, clock, copies)).body()
    return done


async def void_holds(ledger: PostgresLedger, *, now: datetime) -> int:
    """Give back what is held by requests whose lease is over; returns how many there were."""
    voided = 0
    while expired := await ledger.expired(now=now, limit=MAX_ROWS):
        ends = [release(request_id, EndKind.SWEEP, "swept") for request_id in expired]
        outcomes = await ledger.resolve_many(ends, now=now)
        released = sum(each is not None and each.status is EndStatus.RELEASED for each in outcomes)
        voided += released
        if not released:
            break
    return voided


async def ask_stripe(
    config: BillingConfig, database: Database, books: Books, clock: Clock, moment: datetime
) -> Resynced | None:
    """Book what happened at Stripe since a moment; None: there is no key to ask with."""
    dialled: list[Stripe] = []

    def client(key: Any) -> Stripe:
        dialled.append(dial(config, key))
        return dialled[-1]

    meters = PaymentMeters(Metrics(version="recovery"))
    try:
        parts = build_payments(config, database, books, clock, meters, client)
        if not parts.handlers:
            return None
        resync = Resync(
            books=books,
            sessions=parts.sessions,
            payouts=parts.store,
            events=parts.events,
            dispatcher=Dispatcher(parts.events, parts.handlers, clock, meters),
            deposits=parts.deposits,
            past=None if parts.client is None else StripePast(parts.client),
            connect_past=None if parts.connect_client is None else StripePast(parts.connect_client),
            payer=parts.payer,
            clock=clock,
        )
        return await resync.run(moment)
    finally:
        for each in dialled:
            await each.close()


async def replay_erasures(
    erasures: Erasures, database: Database, clock: Clock, log: ErasureLog
) -> Mapping[str, int]:
    """Erase again whoever was erased, and confirm again what was confirmed; counts by outcome.

    What was taken back comes first: at most one erasure of an account is open at a time.
    """
    outcomes: Counter[str] = Counter()
    for kept in sorted(log.newest(), key=lambda each: each.step is not Step.CANCELED):
        try:
            outcomes[await replay(erasures, database, clock, kept)] += 1
        except OperatorRefusedError:
            outcomes["waiting"] += 1
    return dict(outcomes)


async def end_withdrawals(
    books: Books, payouts: PostgresPayouts, clock: Clock, account_id: str
) -> None:
    """End what an erased account had sent: it could be erased only once all of it had arrived."""
    for row in await payouts.on_their_way():
        if row.account_id == account_id and row.status is WithdrawalStatus.TRANSFERRED:
            paid = replace(withdrawals.paid(row, clock.now()), posted=True)
            await books.withdraw_paid(
                row.withdrawal_id, keep_fee=not row.fee_waived, also=payouts.saving(row, paid)
            )


async def compare_heads(
    config: BillingConfig, database: Database, directory: Path, done: Recovery
) -> Mapping[int, str]:
    """Compare the sealed history with its copies; returns the copies that still count.

    Those of the restored history are copied on to the directory of the configuration, where it is
    another one: what is sealed from here on has other hashes at the heights that were given up.
    """

    async def work(connection: Connection) -> list[Block]:
        return [Block(**dict(row)) for row in await connection.fetch(_BLOCKS)]

    blocks = {block.height: block for block in await database.run(work)}
    outside, done.heads_unreadable = exported(directory), torn_heads(directory)
    done.heads_given_up = tuple(sorted({*outside} - {*blocks}))
    kept = {height: told for height, told in outside.items() if height in blocks}
    differ = [height for height, told in kept.items() if blocks[height].hash.hex() != told]
    done.heads_differ, done.heads_equal = tuple(sorted(differ)), len(kept) - len(differ)
    if config.seal_directory and Path(config.seal_directory) != directory:
        for height in sorted({*kept} - {*differ}):
            export(blocks[height], Path(config.seal_directory))
    return kept


async def _audit(
    config: BillingConfig, database: Database, clock: Clock, heads: Mapping[int, str]
) -> Report:
    now = clock.now()
    due = now - timedelta(seconds=config.receipt_due_s)
    return await Auditor(database).full(now=now, receipts_due=due, exported=heads)


async def _value(database: Database, statement: str) -> int:
    async def work(connection: Connection) -> int:
        return int(await connection.fetchval(statement))

    return await database.run(work)
