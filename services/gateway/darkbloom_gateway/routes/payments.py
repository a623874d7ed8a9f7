"""`GET /v1/payments/balance`, `/usage` and `/ledger`: what an account has and where it went."""

from typing import Annotated, Any

from darkbloom.billing.v1 import report_pb2 as pb
from darkbloom_mesh.errors import InvalidArgumentError
from fastapi import APIRouter, Query, Request

from darkbloom_gateway.billing_reports import ReportsClient
from darkbloom_gateway.routes import histories, tables
from darkbloom_gateway.routes.bodies import usd6
from darkbloom_gateway.routes.plane import ControlPlane, Reply, reply

Limit = Annotated[int, Query(ge=1, le=tables.MAX_PAGE)]
Token = Annotated[str, Query(max_length=512)]
Text = Annotated[str, Query(max_length=256)]


def make_router(plane: ControlPlane, reports: ReportsClient) -> APIRouter:
    """Return the routes."""
    router = APIRouter()

    @router.get("/v1/payments/balance")
    async def get_balance(request: Request) -> Reply:
        """Return what the caller's account can spend and withdraw, and what it cannot yet."""
        caller = await plane.account(request)
        money = await reports.wallets(caller.account_id)
        spendable = money.promo_micros + money.credit_micros + money.earned_micros
        withdrawable = 0 if money.frozen else money.earned_micros
        return reply(
            {
                "balance_micro_usd": spendable,
                "balance_usd": usd6(spendable),
                "withdrawable_micro_usd": withdrawable,
                "withdrawable_usd": usd6(withdrawable),
                "promo_micro_usd": money.promo_micros,
                "purchased_micro_usd": money.credit_micros,
                "earned_micro_usd": money.earned_micros,
                "held_micro_usd": money.held_micros,
                "maturing_micro_usd": money.maturing_micros,
                "disputed_micro_usd": money.disputed_micros,
                "debt_micro_usd": money.debt_micros,
                "frozen": money.frozen,
            }
        )

    @router.get("/v1/payments/usage")
    async def list_usage(
        request: Request,
        limit: Limit = tables.DEFAULT_PAGE,
        page_token: Token = "",
        from_: Annotated[str, Query(alias="from", max_length=64)] = "",
        to: Text = "",
        key_id: Text = "",
        model: Text = "",
        format_: Annotated[str, Query(alias="format", max_length=16)] = "",
    ) -> Reply:
        """Return charged requests, newest first: a page, or all that match as CSV."""
        caller = await plane.account(request)
        wanted = pb.UsageFilter(
            from_time=tables.moment(from_, "from"),
            to_time=tables.moment(to, "to"),
            key_id=key_id,
            model=model,
        )
        as_csv = tables.wants_csv(request, format_)
        try:
            found = await reports.usage(
                caller.account_id,
                wanted,
                tables.page(1 if as_csv else limit, page_token),
                count_limit=tables.MAX_CSV_ROWS + 1 if as_csv else 0,
            )
        except InvalidArgumentError as error:
            raise tables.not_valid(error) from None
        if not as_csv:
            rows = [_usage(row) for row in found.usage]
            return reply(tables.paged("usage", rows, found.next_page_token))
        tables.check_size(found.matches)

        pages = histories.usage(reports, caller.account_id, wanted)
        return tables.csv_reply("usage", histories.csv_file(histories.USAGE_HEAD, pages))

    @router.get("/v1/payments/ledger")
    async def list_ledger(
        request: Request,
        limit: Limit = tables.DEFAULT_PAGE,
        page_token: Token = "",
    ) -> Reply:
        """Return every movement of the account's money, holds included, newest first."""
        caller = await plane.account(request)
        try:
            found = await reports.statement(caller.account_id, tables.page(limit, page_token))
        except InvalidArgumentError as error:
            raise tables.not_valid(error) from None
        rows = [_entry(row) for row in found.entries]
        return reply(tables.paged("entries", rows, found.next_page_token))

    return router


def _usage(row: pb.UsageEntry) -> dict[str, Any]:
    return {
        "job_id": row.attempt_id,
        "request_id": row.request_id,
        "key_id": row.key_id,
        "model": row.model,
        "build": row.build,
        "prompt_tokens": row.prompt_tokens,
        "cached_tokens": row.cached_tokens,
        "completion_tokens": row.completion_tokens,
        "cost_micro_usd": row.charge_micros,
        "outcome": row.outcome,
        "timestamp": tables.instant(row.settle_time),
    }


def _entry(row: pb.StatementEntry) -> dict[str, Any]:
    return {
        "id": row.entry_id,
        "type": row.type,
        "wallet": row.wallet,
        "amount_micro_usd": row.amount_micros,
        "balance_after": row.free_micros,
        "held_after": row.held_micros,
        "settled_micro_usd": row.settled_micros,
        "reference": row.reference,
        "created_at": tables.instant(row.create_time),
    }
