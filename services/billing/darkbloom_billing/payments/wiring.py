"""Payments put together: what Stripe keys allow, with its loops and its servicer."""

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from darkbloom.billing.v1 import payment_service_pb2
from darkbloom.billing.v1.payment_service_pb2_grpc import add_PaymentServiceServicer_to_server
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.config import Secret
from darkbloom_mesh.serve import Service

from darkbloom_billing.books import Books, FeePayer
from darkbloom_billing.books.outbox import Handler as JobHandler
from darkbloom_billing.config import BillingConfig
from darkbloom_billing.payments.acquirer import StripeAcquirer
from darkbloom_billing.payments.check import AssetCheck
from darkbloom_billing.payments.connections import Connections, Links
from darkbloom_billing.payments.deposits import Deposits
from darkbloom_billing.payments.erasure import erase_accounts, erase_customers
from darkbloom_billing.payments.meters import PaymentMeters
from darkbloom_billing.payments.model import EventSource, StripeEvent
from darkbloom_billing.payments.payouts import Payouts
from darkbloom_billing.payments.rail import ConnectRail
from darkbloom_billing.payments.reversals import Reversals
from darkbloom_billing.payments.sdk import Stripe
from darkbloom_billing.payments.server import Desks, PaymentServer
from darkbloom_billing.payments.store.events import PostgresEvents
from darkbloom_billing.payments.store.payouts import PostgresPayouts
from darkbloom_billing.payments.store.sessions import PostgresSessions
from darkbloom_billing.payments.top_ups import TopUps
from darkbloom_billing.payments.webhooks import Dispatcher, Handler, Inbox
from darkbloom_billing.store.database import Database

NAME = payment_service_pb2.DESCRIPTOR.services_by_name["PaymentService"].full_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Payments:
    """What the configuration allows; what needs a Stripe key that is not there is None."""

    events: PostgresEvents
    store: PostgresPayouts
    sessions: PostgresSessions
    payer: FeePayer
    handlers: Mapping[str, Handler]
    """By kind of event."""
    owed: Mapping[str, JobHandler]
    """Of owed work that only Stripe can do."""
    acquirer: StripeAcquirer | None
    deposits: Deposits | None
    top_ups: TopUps | None
    rail: ConnectRail | None
    connections: Connections | None
    payouts: Payouts | None
    client: Stripe | None
    """For deposits."""
    connect_client: Stripe | None
    """For payouts."""


def build_payments(
    config: BillingConfig,
    database: Database,
    books: Books,
    clock: Clock,
    meters: PaymentMeters,
    client: Callable[[Secret], Stripe],
) -> Payments:
    """Put the parts together; nothing runs yet.

    Args:
        config: Keys, addresses, periods.
        database: Where events, sessions and withdrawals are.
        books: Move the money.
        clock: Time.
        meters: Counters.
        client: Dials Stripe with a key; the caller closes what it made.
    """
    acquirer, deposits, top_ups, dialled = None, None, None, None
    rail, connections, payouts, connected = None, None, None, None
    handlers: dict[str, Handler] = {}
    owed: dict[str, JobHandler] = {}
    store, sessions = PostgresPayouts(database), PostgresSessions(database)
    payer = FeePayer.LINE if config.stripe_fee_payer == "consumer" else FeePayer.BUDGET

    if config.stripe_secret_key is not None:
        dialled = client(config.stripe_secret_key)
        acquirer = StripeAcquirer(
            dialled,
            success_url=config.stripe_success_url,
            cancel_url=config.stripe_cancel_url,
        )
        deposits = Deposits(books, sessions, acquirer, clock, payer=payer)
        top_ups = TopUps(deposits, sessions, acquirer, clock)
        handlers |= _money_in(deposits, Reversals(books, sessions, acquirer, clock))
        owed |= erase_customers(acquirer)

    connect_key = config.stripe_connect_secret_key or config.stripe_secret_key
    if connect_key is not None:
        connected = client(connect_key)
        rail = ConnectRail(connected)
        links = Links(
            return_url=config.stripe_connect_return_url,
            refresh_url=config.stripe_connect_refresh_url,
            country=config.stripe_connect_country,
        )
        connections = Connections(books, store, rail, clock, links)
        payouts = Payouts(books, store, rail, clock, meters, connections)
        handlers |= _money_out(payouts, connections)
        owed |= erase_accounts(rail)

    return Payments(
        events=PostgresEvents(database),
        store=store,
        sessions=sessions,
        payer=payer,
        handlers=handlers,
        owed=owed,
        acquirer=acquirer,
        deposits=deposits,
        top_ups=top_ups,
        rail=rail,
        connections=connections,
        payouts=payouts,
        client=dialled,
        connect_client=connected,
    )


def wire_payments(
    config: BillingConfig,
    service: Service,
    database: Database,
    books: Books,
    clock: Clock,
    *,
    owed: MutableMapping[str, JobHandler],
) -> "partial[Any]":
    """Start what the configuration allows; return what registers the servicer.

    Without a key for deposits or payouts, their methods say so, and the rest works.

    Args:
        config: Keys, addresses, periods.
        service: Owns the loops.
        database: Where events, sessions and withdrawals are.
        books: Move the money.
        clock: Time.
        owed: Gets the handlers of owed work that only Stripe can do.
    """
    meters = PaymentMeters(service.metrics)
    parts = build_payments(
        config, database, books, clock, meters, lambda key: _client(config, key, service)
    )
    owed.update(parts.owed)
    inbox = Inbox(parts.events, _secrets(config), clock, meters)

    if parts.acquirer is not None and parts.deposits is not None and parts.top_ups is not None:
        check = AssetCheck(books, parts.acquirer, parts.store, parts.events, clock, meters)
        service.spawn(parts.top_ups.run(config.stripe_poll_s), name="top_ups")
        service.spawn(check.run(), name="asset_check")
        service.spawn(parts.deposits.run(), name="lost_deposits")
    if parts.payouts is not None:
        service.spawn(parts.payouts.run(config.stripe_poll_s), name="withdrawals")
    if parts.handlers:
        dispatcher = Dispatcher(parts.events, parts.handlers, clock, meters)
        work = dispatcher.run(inbox.arrived, config.stripe_poll_s)
        service.spawn(work, name="stripe_events")
    desks = Desks(
        deposits=parts.deposits,
        top_ups=parts.top_ups,
        connections=parts.connections,
        payouts=parts.payouts,
        fee_line=parts.payer is FeePayer.LINE,
    )
    return partial(add_PaymentServiceServicer_to_server, PaymentServer(desks, inbox))


def dial(config: BillingConfig, key: Secret) -> Stripe:
    """Return a client of Stripe, or of what stands in for it in development."""
    return Stripe(key, api_base=config.stripe_api_base, timeout_s=config.stripe_timeout_s)


def _client(config: BillingConfig, key: Secret, service: Service) -> Stripe:
    client = dial(config, key)
    service.on_close(client.close)
    return client


def _secrets(config: BillingConfig) -> Mapping[EventSource, tuple[Secret, ...]]:
    """Return the secrets of each endpoint; payments may have two while they are rotated."""
    given = {
        EventSource.PAYMENTS: (
            config.stripe_webhook_secret,
            config.stripe_legacy_webhook_secret,
        ),
        EventSource.TRANSFERS: (config.stripe_connect_webhook_secret,),
        EventSource.ACCOUNTS: (config.stripe_connect_accounts_webhook_secret,),
    }
    return {
        source: tuple(secret for secret in secrets if secret is not None)
        for source, secrets in given.items()
    }


def _money_in(deposits: Deposits, reversals: Reversals) -> dict[str, Handler]:
    async def checkout(event: StripeEvent) -> None:
        await deposits.sync_checkout(event.object_id)

    async def payment(event: StripeEvent) -> None:
        await deposits.sync_payment(event.object_id, event.facts.get("session", ""))

    async def refund(event: StripeEvent) -> None:
        # Refunds name their charge; a charge is itself.
        charge = event.facts.get("charge", event.object_id)
        await reversals.sync_refunds(charge, event.facts.get("session", ""))

    async def dispute(event: StripeEvent) -> None:
        await reversals.sync_dispute(event.object_id)

    return {
        "checkout.session.completed": checkout,
        "checkout.session.expired": checkout,
        "checkout.session.async_payment_succeeded": checkout,
        "checkout.session.async_payment_failed": checkout,
        "payment_intent.succeeded": payment,
        "payment_intent.payment_failed": payment,
        "charge.refunded": refund,
        "refund.failed": refund,
        "charge.dispute.created": dispute,
        "charge.dispute.funds_withdrawn": dispute,
        "charge.dispute.funds_reinstated": dispute,
        "charge.dispute.closed": dispute,
    }


def _money_out(payouts: Payouts, connections: Connections) -> dict[str, Handler]:
    async def account(event: StripeEvent) -> None:
        await connections.changed(event.stripe_account or event.object_id)

    async def payout(event: StripeEvent) -> None:
        await payouts.on_payout(event.stripe_account, event.object_id)

    async def transfer(event: StripeEvent) -> None:
        await payouts.on_transfer(event.object_id)

    return {
        "account.updated": account,
        "payout.paid": payout,
        "payout.failed": payout,
        "payout.canceled": payout,
        "transfer.reversed": transfer,
    }
