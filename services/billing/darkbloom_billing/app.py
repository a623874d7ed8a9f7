"""The composition root: stores, keys, ledger, servicers, background tasks."""

import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from darkbloom.billing.v1 import (
    account_service_pb2,
    identity_service_pb2,
    ledger_service_pb2,
    price_service_pb2,
    receipt_service_pb2,
    report_service_pb2,
)
from darkbloom.billing.v1.account_service_pb2_grpc import add_AccountServiceServicer_to_server
from darkbloom.billing.v1.identity_service_pb2_grpc import add_IdentityServiceServicer_to_server
from darkbloom.billing.v1.ledger_service_pb2_grpc import add_LedgerServiceServicer_to_server
from darkbloom.billing.v1.price_service_pb2_grpc import add_PriceServiceServicer_to_server
from darkbloom.billing.v1.receipt_service_pb2_grpc import add_ReceiptServiceServicer_to_server
from darkbloom.billing.v1.report_service_pb2_grpc import add_ReportServiceServicer_to_server
from darkbloom_mesh.channel import channel
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.serve import Service

from darkbloom_billing.accounts import Accounts
from darkbloom_billing.admin import erasure_proof
from darkbloom_billing.admin import parts as programme_parts
from darkbloom_billing.archive.keeper import ArchiveKeeper
from darkbloom_billing.archive.server import ReceiptServer
from darkbloom_billing.archive.store import PostgresArchive
from darkbloom_billing.audit import Auditor, Report
from darkbloom_billing.books import Books
from darkbloom_billing.books.disputes import FOLLOW
from darkbloom_billing.books.outbox import Dispatcher, Handler, Outbox
from darkbloom_billing.books.seal import Block, export, exported, head
from darkbloom_billing.books.tasks import BooksTasks
from darkbloom_billing.clients import AttestationLog, ReceiptKeys, VerdictKeys
from darkbloom_billing.config import BillingConfig
from darkbloom_billing.identity.wiring import wire_identity
from darkbloom_billing.key_feed import KeyFeed
from darkbloom_billing.keyring import KeyRing
from darkbloom_billing.ledger import Ledger
from darkbloom_billing.meters import Meters
from darkbloom_billing.payments.wiring import NAME as PAYMENT_SERVICE
from darkbloom_billing.payments.wiring import wire_payments
from darkbloom_billing.prices import Prices
from darkbloom_billing.receipts import Receipts
from darkbloom_billing.recovery.steps import recover
from darkbloom_billing.reports.figures import PublicFigures
from darkbloom_billing.reports.rollups import PostgresFigures
from darkbloom_billing.reports.server import ReportServer
from darkbloom_billing.reports.store import PostgresReports
from darkbloom_billing.server import AccountServer, LedgerServer, PriceServer
from darkbloom_billing.store.accounts import PostgresAccounts
from darkbloom_billing.store.database import Database
from darkbloom_billing.store.ledger import PostgresLedger
from darkbloom_billing.store.prices import PostgresPrices
from darkbloom_billing.store.receipts import PostgresReceipts

ROOM = "billing"

_SERVICES = (
    ledger_service_pb2.DESCRIPTOR.services_by_name["LedgerService"].full_name,
    account_service_pb2.DESCRIPTOR.services_by_name["AccountService"].full_name,
    identity_service_pb2.DESCRIPTOR.services_by_name["IdentityService"].full_name,
    receipt_service_pb2.DESCRIPTOR.services_by_name["ReceiptService"].full_name,
    price_service_pb2.DESCRIPTOR.services_by_name["PriceService"].full_name,
    report_service_pb2.DESCRIPTOR.services_by_name["ReportService"].full_name,
    PAYMENT_SERVICE,
    *programme_parts.SERVICES,
)
_AUDIT_CONNECTIONS = 1


async def serve(config: BillingConfig) -> int:
    """Run billing until it is told to stop; return the exit code."""
    async with Service(config, room=ROOM, version=version("darkbloom-billing")) as service:
        await wire(config, service, config.clock())
        return await service.wait()


async def wire(config: BillingConfig, service: Service, clock: Clock) -> None:
    """Build every part of billing inside a service that is about to serve.

    Raises:
        StoreUnavailableError: The database does not answer.
        RoleError: The database role is not restricted, or nothing is migrated.
    """
    database = await open_database(config, clock)
    service.on_close(database.close)
    attestation = channel(
        config.attestation_target,
        mesh_token=config.mesh_token(),
        room=ROOM,
        tls=service.tls,
        peer="attestation",
    )
    service.on_close(partial(attestation.close, None))

    meters = Meters(service.metrics)
    development = config.environment == "development"
    accounts = PostgresAccounts(database)
    prices = Prices(PostgresPrices(database), clock)
    feed = KeyFeed(accounts)
    verdict_keys = KeyRing(
        VerdictKeys(attestation), clock, pinned=config.pinned_verdict_keys(), name="verdict"
    )
    receipt_keys = KeyRing(ReceiptKeys(attestation), clock, name="receipt")
    ledger = Ledger(
        PostgresLedger(database),
        prices,
        verdict_keys,
        clock,
        meters,
        lease_s=config.hold_lease_s,
        development=development,
    )
    await prices.refresh()
    await feed.start()
    service.on_drain(feed.close)
    service.on_drain(prices.close)

    for name, work in ledger.batches():
        service.spawn(work, name=name)
    service.spawn(ledger.run_sweeper(config.sweep_period_s), name="sweeper")
    service.spawn(prices.run(config.poll_period_s), name="prices")
    service.spawn(feed.run(config.poll_period_s), name="keys")
    service.spawn(verdict_keys.run(config.key_refresh_s), name="verdict_keys")
    service.spawn(receipt_keys.run(config.key_refresh_s), name="receipt_keys")
    figures = PublicFigures(PostgresFigures(database), clock)
    service.spawn(figures.run(config.rollup_period_s), name="figures")
    report_server = ReportServer(PostgresReports(database), figures, clock)
    books = Books(database, clock)
    # What owed work is done by, by kind; a kind that nobody here knows waits.
    handlers: dict[str, Handler] = {FOLLOW: lambda job: books.dispute_follow(job.key)}
    dispatcher = Dispatcher(Outbox(database, clock), handlers, secrets.SystemRandom().random)
    BooksTasks(config, database, clock, meters).spawn(service, books, dispatcher)
    hooks = {
        "billing_keys": feed.invalidate,
        "billing_prices": prices.invalidate,
        "billing_outbox": dispatcher.wake,
    }
    service.spawn(database.run_listener(hooks), name="listener")

    programmes = programme_parts.build(
        config, database, books, prices, clock, partial(_audit, config, database, clock)
    )
    programmes.spawn(service, config)
    receipts = Receipts(PostgresReceipts(database), receipt_keys, clock, meters)
    keep = timedelta(days=config.receipt_days)
    archive = PostgresArchive(database, secrets.token_bytes)
    keeper = ArchiveKeeper(
        archive,
        AttestationLog(attestation),
        clock,
        keep=keep,
        on_anchored=partial(meters.receipts, "anchored"),
    )
    service.spawn(keeper.run_anchoring(config.anchor_period_s), name="anchoring")
    service.spawn(keeper.run_forgetting(), name="receipts-forgetting")
    account_rules = Accounts(accounts, clock)
    account_server = AccountServer(
        account_rules,
        accounts,
        feed,
        programmes.grants,
        heartbeat_s=config.heartbeat_s,
        development=development,
    )
    identity_server = wire_identity(config, service, database, account_rules, clock)
    price_server = PriceServer(
        prices,
        Accounts(accounts, clock),
        clock,
        heartbeat_s=config.heartbeat_s,
        development=development,
    )
    service.add_listener(
        "grpc",
        config.listen,
        registrars=[
            partial(add_LedgerServiceServicer_to_server, LedgerServer(ledger, receipts)),
            partial(add_ReceiptServiceServicer_to_server, ReceiptServer(archive, clock, keep=keep)),
            partial(add_AccountServiceServicer_to_server, account_server),
            partial(add_IdentityServiceServicer_to_server, identity_server),
            partial(add_PriceServiceServicer_to_server, price_server),
            partial(add_ReportServiceServicer_to_server, report_server),
            wire_payments(config, service, database, books, clock, owed=handlers),
            *programmes.registrars(),
        ],
        mesh_token=config.mesh_token(),
        connection_age_s=config.connection_age_s,
        reflection=_SERVICES,
    )


def migrate(config: BillingConfig, *, new: bool = False) -> str:
    """Bring the schemas to their newest revision and return it; needs the owner's role.

    Args:
        config: What the environment says.
        new: Fill a blank database in production too.
    """
    # Half of a room's start would be alembic and sqlalchemy, which no server needs.
    from darkbloom_mesh.migrate import migrate as migrate_schema

    new = new or config.environment == "development"
    return migrate_schema(config.database_url, package="darkbloom_billing", schema=ROOM, new=new)


async def check(config: BillingConfig) -> Report:
    """Audit the whole ledger once and remember what was found."""
    clock = config.clock()
    database = await open_database(config, clock, connections=_AUDIT_CONNECTIONS)
    try:
        return await _audit(config, database, clock)
    finally:
        await database.close()


async def sealed_head(config: BillingConfig, directory: Path | None) -> Block | None:
    """Return the head of the sealed history, and copy it to a directory if there is one."""
    database = await open_database(config, config.clock(), connections=_AUDIT_CONNECTIONS)
    try:
        block = await head(database)
    finally:
        await database.close()
    if block is not None and directory is not None:
        export(block, directory)
    return block


async def recover_from(
    config: BillingConfig,
    moment: datetime,
    *,
    erasures: Path | None,
    heads: Path | None,
    void_all: bool,
    acknowledge: Sequence[str] = (),
) -> dict[str, Any]:
    """Do what follows a restore; see `recovery.steps.recover`."""
    clock = config.clock()
    database = await open_database(config, clock)
    try:
        done = await recover(
            config,
            database,
            clock,
            moment=moment,
            erasures=erasures,
            heads=heads,
            void_all=void_all,
            acknowledge=acknowledge,
        )
    finally:
        await database.close()
    return done.body()


async def erasure_bundle(config: BillingConfig, erasure_id: str) -> dict[str, Any]:
    """Return the proof of an erasure; see `admin.erasure_proof.bundle`."""
    database = await open_database(config, config.clock(), connections=_AUDIT_CONNECTIONS)
    try:
        return await erasure_proof.bundle(database, erasure_id)
    finally:
        await database.close()


async def open_database(
    config: BillingConfig, clock: Clock, *, connections: int | None = None
) -> Database:
    """Connect as the restricted role."""
    return await Database.open(
        config.database_url,
        role=config.database_role,
        connections=connections or config.database_connections,
        timeout_s=config.database_timeout_s,
        clock=clock,
        uniform=secrets.SystemRandom().random,
    )


async def _audit(config: BillingConfig, database: Database, clock: Clock) -> Report:
    """Audit the whole ledger, against the copies of its head where there are some."""
    now = clock.now()
    due = now - timedelta(seconds=config.receipt_due_s)
    heads = exported(Path(config.seal_directory)) if config.seal_directory else {}
    return await Auditor(database).full(now=now, receipts_due=due, exported=heads)
