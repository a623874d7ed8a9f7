"""Programmes and operators, wired: what the composition root adds with a few lines."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

from darkbloom.billing.v1 import operator_service_pb2, programme_service_pb2
from darkbloom.billing.v1.operator_service_pb2_grpc import add_OperatorServiceServicer_to_server
from darkbloom.billing.v1.programme_service_pb2_grpc import add_ProgrammeServiceServicer_to_server
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.serve import Service

from darkbloom_billing.admin.account_store import PostgresAccountDesk
from darkbloom_billing.admin.actions import ActionLog
from darkbloom_billing.admin.budgets import Budgets
from darkbloom_billing.admin.desk import Desk
from darkbloom_billing.admin.erasure import Erasures
from darkbloom_billing.admin.erasure_log import ErasureLog
from darkbloom_billing.admin.erasure_records import Keeper
from darkbloom_billing.admin.export import Exporter
from darkbloom_billing.admin.grants import Grants
from darkbloom_billing.admin.operators import Operators
from darkbloom_billing.admin.reconciliation import Reconciliation
from darkbloom_billing.admin.server import OperatorServer
from darkbloom_billing.audit import Report
from darkbloom_billing.books import Books
from darkbloom_billing.books.seal import head
from darkbloom_billing.config import BillingConfig
from darkbloom_billing.prices import Prices
from darkbloom_billing.programmes.invite_store import PostgresInvites
from darkbloom_billing.programmes.invites import Invites
from darkbloom_billing.programmes.model import Caps
from darkbloom_billing.programmes.referral_store import PostgresReferrals
from darkbloom_billing.programmes.referrals import Referrals
from darkbloom_billing.programmes.server import ProgrammeServer
from darkbloom_billing.store.database import Database

SERVICES = (
    programme_service_pb2.DESCRIPTOR.services_by_name["ProgrammeService"].full_name,
    operator_service_pb2.DESCRIPTOR.services_by_name["OperatorService"].full_name,
)


@dataclass(frozen=True, slots=True)
class Parts:
    """What serves, and what runs beside it."""

    programmes: ProgrammeServer
    operators: OperatorServer
    referrals: Referrals
    erasures: Erasures
    grants: Grants

    def registrars(self) -> list[Callable[..., None]]:
        """Return what adds the services to a server."""
        return [
            partial(add_ProgrammeServiceServicer_to_server, self.programmes),
            partial(add_OperatorServiceServicer_to_server, self.operators),
        ]

    def spawn(self, service: Service, config: BillingConfig) -> None:
        """Start the jobs."""
        service.spawn(self.referrals.run(config.referral_period_s), name="referrals")
        service.spawn(self.erasures.run(config.erasure_period_s), name="erasures")


def build_erasures(
    config: BillingConfig, database: Database, books: Books, clock: Clock
) -> Erasures:
    """Return what erases accounts."""
    kept = config.erasure_directory
    return Erasures(
        books,
        database,
        clock,
        grace=timedelta(seconds=config.erasure_grace_s),
        **({"keep": Keeper(database, ErasureLog(Path(kept))).keep} if kept else {}),
    )


def build(
    config: BillingConfig,
    database: Database,
    books: Books,
    prices: Prices,
    clock: Clock,
    audit: Callable[[], Awaitable[Report]],
) -> Parts:
    """Return programmes and operators over the books."""
    invites = PostgresInvites(database)
    caps = Caps(
        share_percent=config.referral_share_percent,
        month_micros=config.referral_month_micros,
        referrer_micros=config.referral_referrer_micros,
    )
    referrals = Referrals(books, PostgresReferrals(database), clock, caps=caps)
    erasures = build_erasures(config, database, books, clock)
    budgets = Budgets(books, database, clock)
    operators = OperatorServer(
        operators=Operators(database),
        accounts=PostgresAccountDesk(database),
        desk=Desk(books, prices, database, clock),
        invites=invites,
        budgets=budgets,
        reconciliation=Reconciliation(books, database, clock),
        erasures=erasures,
        actions=ActionLog(database),
        seal_head=partial(head, database),
        exporter=Exporter(database),
        audit=audit,
        clock=clock,
    )
    return Parts(
        programmes=ProgrammeServer(Invites(books, invites, clock), referrals),
        operators=operators,
        referrals=referrals,
        erasures=erasures,
        grants=Grants(books, budgets, clock, development=config.environment == "development"),
    )
