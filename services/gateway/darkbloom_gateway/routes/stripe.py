"""`/v1/billing/*`: deposits, saved cards, payouts, and Stripe's webhooks, passed on raw."""

import re
from datetime import UTC
from decimal import Decimal
from typing import Annotated, Any
from uuid import uuid4

from darkbloom.billing.v1 import payment_service_pb2 as pb
from fastapi import APIRouter, Query, Request

from darkbloom_gateway.billing_payments import PaymentsClient, stripe_error
from darkbloom_gateway.errors import ClientGoneError, bad_request
from darkbloom_gateway.routes.bodies import (
    Body,
    read_object,
    rfc3339,
    text,
    usd,
    usd2,
)
from darkbloom_gateway.routes.plane import ControlPlane, Reply, reply
from darkbloom_gateway.wire import read_body

MAX_WEBHOOK = 1024 * 1024
DEFAULT_PAGE, MAX_PAGE = 50, 200
_WEBHOOK_IDLE_S = 10.0
_KEY = re.compile(r"[\x21-\x7e]{1,128}")
_LONGEST = 2000
_EMAIL = re.compile(r"[\x21-\x7e]{1,200}@[\x21-\x7e]{1,50}")
_MIN_DEPOSIT, _MIN_WITHDRAW = Decimal("0.50"), Decimal("1.00")
_CENT_MICROS = 10_000
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
        "/v1/billing/withdraw/stripe",
        "/v1/billing/stripe/create-session",
        "/v1/billing/stripe/session",
        "/v1/billing/stripe/onboard",
        "/v1/billing/stripe/status",
        "/v1/billing/stripe/dashboard",
        "/v1/billing/stripe/account",
        "/v1/billing/stripe/withdrawals",
    }
)
"""Paths of these routes, for metrics."""
_ETA = {
    pb.WITHDRAWAL_METHOD_INSTANT: "~30 minutes",
    pb.WITHDRAWAL_METHOD_STANDARD: "1-2 business days",
}
_METHODS = {"standard": pb.WITHDRAWAL_METHOD_STANDARD, "instant": pb.WITHDRAWAL_METHOD_INSTANT}


def make_router(plane: ControlPlane, payments: PaymentsClient) -> APIRouter:
    """Return the routes."""
    router = APIRouter()
    _webhooks(router, payments)
    _deposits(router, plane, payments)
    _cards(router, plane, payments)
    _payouts(router, plane, payments)
    _withdrawals(router, plane, payments)
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


def _deposits(router: APIRouter, plane: ControlPlane, payments: PaymentsClient) -> None:
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
        made = await payments.create_deposit(
            pb.CreateDepositRequest(
                request_id=_request_id(request),
                account_id=caller.account_id,
                amount_micros=usd(body, "amount_usd", least=_MIN_DEPOSIT),
                email=_email(body, caller.email),
                save_card=_flag(body, "save_card"),
                coordinator_host=(request.url.hostname or "")[:_LONGEST],
            )
        )
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
        if not _KEY.fullmatch(id):
            raise bad_request("id is missing", param="id")
        found = await payments.deposit(caller.account_id, id)
        done = found.HasField("complete_time")
        return reply(
            {
                "session_id": found.session_id,
                "payment_method": "stripe",
                "amount_micro_usd": found.amount_micros,
                "status": _word(pb.DepositStatus.Name(found.status), "DEPOSIT_STATUS_"),
                "created_at": rfc3339(found.create_time.ToDatetime(UTC)),
                "completed_at": rfc3339(found.complete_time.ToDatetime(UTC)) if done else None,
            }
        )

    @router.get("/v1/billing/wallet/balance")
    async def get_wallet(request: Request) -> Reply:
        """Return what the caller's account can spend."""
        caller = await plane.account(request)
        money = await plane.billing.balance(caller.account_id)
        return reply({"credit_balance_micro_usd": money.balance_micros})


def _cards(router: APIRouter, plane: ControlPlane, payments: PaymentsClient) -> None:
    @router.post("/v1/billing/card")
    async def save_card(request: Request) -> Reply:
        """Return a page that saves a card for automatic top-ups."""
        caller = await plane.login(request)
        await plane.financial(caller)
        url = await payments.create_card_setup(
            pb.CreateCardSetupRequest(
                request_id=_request_id(request),
                account_id=caller.account_id,
                email=_email({}, caller.email),
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
        enabled = _flag(body, "enabled")
        await plane.financial(caller, revokes=not enabled)
        wanted = pb.SetAutoTopUpRequest(account_id=caller.account_id, enabled=enabled)
        if enabled:
            wanted.threshold_micros = usd(body, "threshold_usd")
            wanted.amount_micros = usd(body, "amount_usd", least=_MIN_DEPOSIT)
            wanted.monthly_cap_micros = usd(body, "monthly_cap_usd", least=_MIN_DEPOSIT)
        return reply(_top_up(await payments.set_auto_top_up(wanted)))


def _payouts(router: APIRouter, plane: ControlPlane, payments: PaymentsClient) -> None:
    @router.post("/v1/billing/stripe/onboard")
    async def onboard(request: Request) -> Reply:
        """Return where the caller sets payouts up."""
        caller = await plane.login(request)
        await plane.financial(caller)
        body = await read_object(request, empty=True)
        made = await payments.start_onboarding(
            pb.StartOnboardingRequest(
                account_id=caller.account_id,
                return_url=text(body, "return_url", default="", longest=_LONGEST),
                refresh_url=text(body, "refresh_url", default="", longest=_LONGEST),
                country=text(body, "country", default="", longest=2),
                email=_email({}, caller.email),
            )
        )
        return reply(
            {
                "url": made.url,
                "stripe_account_id": made.account.stripe_account_id,
                "status": made.account.status,
            }
        )

    @router.get("/v1/billing/stripe/status")
    async def get_status(
        request: Request, refresh: Annotated[str, Query(max_length=8)] = ""
    ) -> Reply:
        """Return whether the caller can be paid out to."""
        caller = await plane.account(request)
        options = await payments.options()
        found = pb.PayoutAccount()
        if options.payouts:
            found = await payments.payout_account(caller.account_id, refresh=refresh == "1")
        return reply(
            {
                "has_account": bool(found.stripe_account_id),
                "configured": options.payouts,
                "stripe_account_id": found.stripe_account_id,
                "status": found.status,
                "destination_type": found.destination_type,
                "destination_last4": found.destination_last4,
                "instant_eligible": found.instant_eligible,
                "min_withdraw_micro_usd": options.min_withdraw_micros,
                "instant_fee_bps": options.instant_fee_bps,
                "instant_fee_min_usd": usd2(options.instant_fee_min_micros),
                "currently_due": list(found.currently_due),
                "payout_rail": "stripe_connect",
                "country": found.country,
                "currency": "usd",
            }
        )

    @router.post("/v1/billing/stripe/dashboard")
    async def dashboard(request: Request) -> Reply:
        """Return a link into the caller's dashboard at Stripe."""
        caller = await plane.login(request)
        await plane.financial(caller)
        return reply({"url": await payments.dashboard(caller.account_id)})

    @router.delete("/v1/billing/stripe/account")
    async def unlink(request: Request) -> Reply:
        """Unlink the payout account; running payouts go on."""
        caller = await plane.login(request)
        await plane.financial(caller, revokes=True)
        await payments.unlink(caller.account_id)
        return reply({"status": "unlinked"})


def _withdrawals(router: APIRouter, plane: ControlPlane, payments: PaymentsClient) -> None:
    @router.post("/v1/billing/withdraw/stripe")
    async def withdraw(request: Request) -> Reply:
        """Withdraw earned money; 502 means undecided, and the money stays reserved."""
        caller = await plane.login(request)
        await plane.financial(caller)
        body = await read_object(request)
        method = text(body, "method", default="standard")
        if method not in _METHODS:
            raise bad_request("method must be standard or instant", param="method")
        made = await payments.withdraw(
            pb.CreateWithdrawalRequest(
                request_id=_request_id(request),
                account_id=caller.account_id,
                amount_micros=usd(body, "amount_usd", least=_MIN_WITHDRAW),
                method=_METHODS[method],
            )
        )
        if made.status == pb.WITHDRAWAL_STATUS_FAILED:
            raise stripe_error("stripe refused it; nothing was taken")
        if made.status in {pb.WITHDRAWAL_STATUS_PENDING, pb.WITHDRAWAL_STATUS_MANUAL}:
            raise stripe_error("stripe has not answered; the money stays reserved until it has")
        money = await plane.billing.balance(caller.account_id)
        return _submitted(made, money.balance_micros)

    @router.get("/v1/billing/stripe/withdrawals")
    async def list_withdrawals(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = DEFAULT_PAGE,
        page_token: Annotated[str, Query(max_length=512)] = "",
    ) -> Reply:
        """Return the caller's withdrawals, newest first."""
        caller = await plane.account(request)
        found = await payments.withdrawals(caller.account_id, limit, page_token)
        content: dict[str, Any] = {"withdrawals": [_withdrawal(row) for row in found.withdrawals]}
        if found.next_page_token:
            content["next_page_token"] = found.next_page_token
        return reply(content)


def _submitted(made: pb.Withdrawal, balance: int) -> Reply:
    instant = made.method == pb.WITHDRAWAL_METHOD_INSTANT
    open_step = made.status == pb.WITHDRAWAL_STATUS_QUEUED or (instant and not made.payout_id)
    status = _word(pb.WithdrawalStatus.Name(made.status), "WITHDRAWAL_STATUS_")
    return reply(
        {
            "status": status if open_step else "submitted",
            "withdrawal_id": made.withdrawal_id,
            "transfer_id": made.transfer_id,
            "payout_id": made.payout_id,
            "amount_usd": usd2(made.amount_micros),
            "fee_usd": usd2(made.fee_micros),
            "net_usd": usd2(made.net_micros),
            "method": _word(pb.WithdrawalMethod.Name(made.method), "WITHDRAWAL_METHOD_"),
            "eta": _ETA[made.method],
            "arrival_unix": made.arrival_time.seconds,
            "balance_micro_usd": balance,
        },
        202 if open_step else 200,
    )


def _withdrawal(row: pb.Withdrawal) -> dict[str, Any]:
    return {
        "id": row.withdrawal_id,
        "account_id": row.account_id,
        "stripe_account_id": row.stripe_account_id,
        "transfer_id": row.transfer_id,
        "payout_id": row.payout_id,
        "amount_micro_usd": row.amount_micros,
        "fee_micro_usd": row.fee_micros,
        "net_micro_usd": row.net_micros,
        "method": _word(pb.WithdrawalMethod.Name(row.method), "WITHDRAWAL_METHOD_"),
        "status": _status(row),
        "failure_reason": row.failure_reason,
        "refunded": row.refunded,
        "created_at": rfc3339(row.create_time.ToDatetime(UTC)),
        "updated_at": rfc3339(row.update_time.ToDatetime(UTC)),
    }


def _status(row: pb.Withdrawal) -> str:
    if row.status == pb.WITHDRAWAL_STATUS_MANUAL:
        return "manual_reconciliation_required"
    return _word(pb.WithdrawalStatus.Name(row.status), "WITHDRAWAL_STATUS_")


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


def _request_id(request: Request) -> str:
    """Return the caller's `Idempotency-Key`, or a fresh one.

    Raises:
        ApiError: 400.
    """
    given = request.headers.get("idempotency-key")
    if given is None:
        return f"http-{uuid4().hex}"
    if not _KEY.fullmatch(given):
        raise bad_request("idempotency-key has 1 to 128 printable characters")
    return f"key-{given}"


def _email(body: Body, own: str) -> str:
    """Return the e-mail that Stripe may show, which is optional."""
    given = text(body, "email", default="") or own
    if given and not _EMAIL.fullmatch(given):
        raise bad_request("email is not an address", param="email")
    return given


def _flag(body: Body, name: str) -> bool:
    value = body.get(name, False)
    if not isinstance(value, bool):
        raise bad_request(f"{name} must be true or false", param=name)
    return value


def _word(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower()
