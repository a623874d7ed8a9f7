"""`/v1/billing/withdraw/stripe` and what it needs: where earnings go, and their way there."""

from datetime import UTC
from decimal import Decimal
from typing import Annotated, Any

from darkbloom.billing.v1 import payment_service_pb2 as pb
from darkbloom_mesh.errors import MeshError
from fastapi import APIRouter, Query, Request

from darkbloom_gateway.billing_payments import PaymentsClient, stripe_error
from darkbloom_gateway.errors import bad_request
from darkbloom_gateway.routes.bodies import read_object, rfc3339, text, usd, usd2
from darkbloom_gateway.routes.plane import ControlPlane, Reply, reply
from darkbloom_gateway.routes.stripe_fields import (
    email_of,
    request_id,
    withdrawal_status,
    word,
)

DEFAULT_PAGE, MAX_PAGE = 50, 200
ROUTES = frozenset(
    {
        "/v1/billing/withdraw/stripe",
        "/v1/billing/stripe/onboard",
        "/v1/billing/stripe/status",
        "/v1/billing/stripe/dashboard",
        "/v1/billing/stripe/account",
        "/v1/billing/stripe/withdrawals",
    }
)
"""Paths of these routes, for metrics."""
_MIN_WITHDRAW = Decimal("1.00")
_LONGEST = 2000
_ETA = {
    pb.WITHDRAWAL_METHOD_INSTANT: "~30 minutes",
    pb.WITHDRAWAL_METHOD_STANDARD: "1-2 business days",
}
_METHODS = {"standard": pb.WITHDRAWAL_METHOD_STANDARD, "instant": pb.WITHDRAWAL_METHOD_INSTANT}


def make_router(plane: ControlPlane, payments: PaymentsClient) -> APIRouter:
    """Return the routes."""
    router = APIRouter()
    _payouts(router, plane, payments)
    _withdrawals(router, plane, payments)
    return router


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
                email=email_of({}, caller.email),
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
        if refresh == "1":
            # Each one asks Stripe, whose patience with us is everybody's.
            await plane.financial(caller)
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
                request_id=request_id(request),
                account_id=caller.account_id,
                amount_micros=usd(body, "amount_usd", least=_MIN_WITHDRAW),
                method=_METHODS[method],
            )
        )
        if made.status == pb.WITHDRAWAL_STATUS_FAILED:
            raise stripe_error("stripe refused it; nothing was taken")
        if made.status in {pb.WITHDRAWAL_STATUS_PENDING, pb.WITHDRAWAL_STATUS_MANUAL}:
            raise stripe_error("stripe has not answered; the money stays reserved until it has")
        try:
            balance: int | None = (await plane.billing.balance(caller.account_id)).balance_micros
        except MeshError:
            # The withdrawal is made, whatever can be read of it now.
            balance = None
        return _submitted(made, balance)

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


def _submitted(made: pb.Withdrawal, balance: int | None) -> Reply:
    instant = made.method == pb.WITHDRAWAL_METHOD_INSTANT
    open_step = made.status == pb.WITHDRAWAL_STATUS_QUEUED or (instant and not made.payout_id)
    status = word(pb.WithdrawalStatus.Name(made.status), "WITHDRAWAL_STATUS_")
    return reply(
        {
            "status": status if open_step else "submitted",
            "withdrawal_id": made.withdrawal_id,
            "transfer_id": made.transfer_id,
            "payout_id": made.payout_id,
            "amount_usd": usd2(made.amount_micros),
            "fee_usd": usd2(made.fee_micros),
            "net_usd": usd2(made.net_micros),
            "method": word(pb.WithdrawalMethod.Name(made.method), "WITHDRAWAL_METHOD_"),
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
        "method": word(pb.WithdrawalMethod.Name(row.method), "WITHDRAWAL_METHOD_"),
        "status": withdrawal_status(row),
        "failure_reason": row.failure_reason,
        "refunded": row.refunded,
        "created_at": rfc3339(row.create_time.ToDatetime(UTC)),
        "updated_at": rfc3339(row.update_time.ToDatetime(UTC)),
    }
