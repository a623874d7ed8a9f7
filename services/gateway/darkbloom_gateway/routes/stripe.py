"""`/v1/billing/*`: deposits, saved cards, and Stripe's webhooks, which are passed on raw."""

from datetime import UTC
from decimal import Decimal
from typing import Annotated, Any

from darkbloom.billing.v1 import payment_service_pb2 as pb
from darkbloom_mesh.errors import InvalidArgumentError, MeshError, NotFoundError
from fastapi import APIRouter, Query, Request

from darkbloom_gateway.billing_payments import PaymentsClient
from darkbloom_gateway.billing_programmes import ProgrammesClient
from darkbloom_gateway.errors import ClientGoneError, bad_request, unavailable
from darkbloom_gateway.routes.bodies import (
    flag,
    read_object,
    rfc3339,
    text,
    usd,
    usd2,
)
from darkbloom_gateway.routes.plane import ControlPlane, Reply, reply
from darkbloom_gateway.routes.stripe_fields import KEY, email_of, request_id, word
from darkbloom_gateway.wire import read_body

MAX_WEBHOOK = 1024 * 1024
_WEBHOOK_IDLE_S = 10.0
_LONGEST = 2000
_MIN_DEPOSIT = Decimal("0.50")
_WEBHOOKS = {
    "/v1/billing/stripe/webhook": pb.EVENT_SOURCE_PAYMENTS,
    "/v1/billing/stripe/connect/webhook": pb.EVENT_SOURCE_TRANSFERS,
    "/v1/billing/stripe/connect/accounts/webhook": pb.EVENT_SOURCE_ACCOUNTS,
}
ROUTES = frozenset(
    {
        *_WEBHOOKS,
        "/v1/billing/methods",
        "/v1/billing/auto-top-up",
        "/v1/billing/card",
        "/v1/billing/wallet/balance",
        "/v1/billing/stripe/create-session",
        "/v1/billing/stripe/session",
    }
)
"""Paths of these routes, for metrics."""


def make_router(
    plane: ControlPlane, payments: PaymentsClient, programmes: ProgrammesClient
) -> APIRouter:
    """Return the routes."""
    router = APIRouter()
    _webhooks(router, payments)
    _deposits(router, plane, payments, programmes)
    _cards(router, plane, payments)
    return router


def _webhooks(router: APIRouter, payments: PaymentsClient) -> None:
    async def webhook(request: Request) -> Reply:
        """Hand Stripe's bytes to billing; anything but 2xx makes Stripe deliver again."""
        signature = request.headers.get("stripe-signature", "")
        try:
            payload = await read_body(
                request.scope, request.receive, limit=MAX_WEBHOOK, idle_s=_WEBHOOK_IDLE_S
            )
        except ClientGoneError:
            raise bad_request("the body ended early") from None
        await payments.deliver(_WEBHOOKS[request.url.path], payload, signature)
        return reply({"received": True})

    for path in _WEBHOOKS:
        router.add_api_route(path, webhook, methods=["POST"])


def _deposits(
    router: APIRouter,
    plane: ControlPlane,
    payments: PaymentsClient,
    programmes: ProgrammesClient,
) -> None:
    @router.get("/v1/billing/methods")
    async def list_methods() -> Reply:
        """Return what can be paid with; nobody needs a key to read it."""
        found = await payments.options()
        method = {"method": "stripe", "display_name": "Card", "currencies": ["USD"]}
        return reply(
            {
                "methods": [method] if found.deposits else [],
                "min_deposit_micro_usd": found.min_deposit_micros,
                "fee_line": found.fee_line,
            }
        )

    @router.post("/v1/billing/stripe/create-session")
    async def create_session(request: Request) -> Reply:
        """Open a Checkout session."""
        caller = await plane.account(request)
        await plane.financial(caller)
        body = await read_object(request)
        wanted = pb.CreateDepositRequest(
            request_id=request_id(request),
            account_id=caller.account_id,
            amount_micros=usd(body, "amount_usd", least=_MIN_DEPOSIT),
            email=email_of(body, caller.email),
            save_card=flag(body, "save_card"),
            coordinator_host=(request.url.hostname or "")[:_LONGEST],
        )
        if code := text(body, "referral_code", default=""):
            await _refer(programmes, caller.account_id, code)
        made = await payments.create_deposit(wanted)
        return reply(
            {
                "session_id": made.session_id,
                "stripe_session": made.stripe_session,
                "url": made.url,
                "amount_usd": usd2(made.amount_micros),
                "amount_micro_usd": made.amount_micros,
                "fee_usd": usd2(made.fee_micros),
                "total_usd": usd2(made.amount_micros + made.fee_micros),
            }
        )

    @router.get("/v1/billing/stripe/session")
    async def get_session(
        request: Request,
        id: Annotated[str, Query(max_length=200)] = "",  # noqa: A002 - the query's name
    ) -> Reply:
        """Return a session of the caller's account."""
        caller = await plane.account(request)
        if not KEY.fullmatch(id):
            raise bad_request("id is missing", param="id")
        found = await payments.deposit(caller.account_id, id)
        done = found.HasField("complete_time")
        return reply(
            {
                "session_id": found.session_id,
                "payment_method": "stripe",
                "amount_micro_usd": found.amount_micros,
                "status": word(pb.DepositStatus.Name(found.status), "DEPOSIT_STATUS_"),
                "created_at": rfc3339(found.create_time.ToDatetime(UTC)),
                "completed_at": rfc3339(found.complete_time.ToDatetime(UTC)) if done else None,
            }
        )

    @router.get("/v1/billing/wallet/balance")
    async def get_wallet(request: Request) -> Reply:
        """Return what the caller's account can spend."""
        caller = await plane.account(request)
        try:
            money = await plane.billing.balance(caller.account_id)
        except MeshError:
            raise unavailable() from None
        return reply({"credit_balance_micro_usd": money.balance_micros})


def _cards(router: APIRouter, plane: ControlPlane, payments: PaymentsClient) -> None:
    @router.post("/v1/billing/card")
    async def save_card(request: Request) -> Reply:
        """Return a page that saves a card for automatic top-ups."""
        caller = await plane.login(request)
        await plane.financial(caller)
        url = await payments.create_card_setup(
            pb.CreateCardSetupRequest(
                request_id=request_id(request),
                account_id=caller.account_id,
                email=email_of({}, caller.email),
            )
        )
        return reply({"url": url})

    @router.delete("/v1/billing/card")
    async def delete_card(request: Request) -> Reply:
        """Forget the saved card."""
        caller = await plane.login(request)
        await plane.financial(caller, revokes=True)
        await payments.delete_card(caller.account_id)
        return reply({"status": "deleted"})

    @router.get("/v1/billing/auto-top-up")
    async def get_auto_top_up(request: Request) -> Reply:
        """Return saved card and automatic top-up."""
        caller = await plane.account(request)
        return reply(_top_up(await payments.auto_top_up(caller.account_id)))

    @router.put("/v1/billing/auto-top-up")
    async def set_auto_top_up(request: Request) -> Reply:
        """Set automatic top-up, or switch it off."""
        caller = await plane.login(request)
        body = await read_object(request)
        enabled = flag(body, "enabled")
        await plane.financial(caller, revokes=not enabled)
        wanted = pb.SetAutoTopUpRequest(account_id=caller.account_id, enabled=enabled)
        if enabled:
            wanted.threshold_micros = usd(body, "threshold_usd")
            wanted.amount_micros = usd(body, "amount_usd", least=_MIN_DEPOSIT)
            wanted.monthly_cap_micros = usd(body, "monthly_cap_usd", least=_MIN_DEPOSIT)
        return reply(_top_up(await payments.set_auto_top_up(wanted)))


def _top_up(found: pb.AutoTopUp) -> dict[str, Any]:
    card = {"brand": found.card_brand, "last4": found.card_last4} if found.card_last4 else None
    return {
        "enabled": found.enabled,
        "threshold_usd": usd2(found.threshold_micros),
        "amount_usd": usd2(found.amount_micros),
        "monthly_cap_usd": usd2(found.monthly_cap_micros),
        "month_usd": usd2(found.month_micros),
        "disabled_reason": found.disabled_reason,
        "card": card,
    }


async def _refer(programmes: ProgrammesClient, account_id: str, code: str) -> None:
    """Name the account's referrer; nothing but a code of nobody keeps a deposit from being made.

    Raises:
        ApiError: 400.
    """
    try:
        await programmes.apply(account_id, code)
    except (NotFoundError, InvalidArgumentError):
        raise bad_request("there is no such referral code", param="referral_code") from None
    except MeshError:
        return
