"""What an account's machines have earned: rows, sums, days. Machines may read it by their token."""

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

from darkbloom.attestation.v1.attestation_pb2 import CodeRelease
from darkbloom.billing.v1 import report_pb2 as pb
from darkbloom.billing.v1.report_service_pb2 import GetEarningsSummaryResponse
from darkbloom.router.v1.fleet_pb2 import Provider
from darkbloom_edge.errors import EdgeError
from darkbloom_edge.signatures import from_base64, parse_p256_public, to_base64
from darkbloom_mesh.errors import InvalidArgumentError
from fastapi import APIRouter, Query, Request

from darkbloom_gateway.billing_payments import PaymentsClient
from darkbloom_gateway.billing_reports import ReportsClient
from darkbloom_gateway.cached import Cached
from darkbloom_gateway.errors import ApiError, bad_request
from darkbloom_gateway.routes import histories, machines, tables
from darkbloom_gateway.routes.bodies import usd6
from darkbloom_gateway.routes.payments import Limit, Text, Token
from darkbloom_gateway.routes.plane import ControlPlane, Reply, reply

HISTORY_LIMIT = 50
MAX_HISTORY = 1000
_DAYS = {"7": 7, "30": 30, "90": 90}
_HARDWARE = "hardware"
_READY = "ready"
Format = Annotated[str, Query(alias="format", max_length=16)]


def make_router(
    plane: ControlPlane,
    reports: ReportsClient,
    payments: PaymentsClient,
    fleet: Cached[Sequence[Provider]],
    releases: Cached[Sequence[CodeRelease]],
) -> APIRouter:
    """Return the routes."""
    router = APIRouter()

    @router.get("/v1/provider/account-earnings")
    async def account_earnings(request: Request, limit: int = HISTORY_LIMIT) -> Reply:
        """Return the newest earnings, and what they come to."""
        caller = await plane.earner(request)
        size = limit if 1 <= limit <= MAX_HISTORY else HISTORY_LIMIT
        return reply(await _account_earnings(reports, caller.account_id, size))

    @router.get("/v1/me/earnings")
    async def my_earnings(
        request: Request,
        limit: Limit = tables.DEFAULT_PAGE,
        page_token: Token = "",
        from_: Annotated[str, Query(alias="from", max_length=64)] = "",
        to: Text = "",
        machine: Text = "",
        model: Text = "",
        format_: Format = "",
    ) -> Reply:
        """Return paid requests, of one machine or all, newest first: a page, or all as CSV."""
        caller = await plane.earner(request)
        wanted = pb.EarningsFilter(
            from_time=tables.moment(from_, "from"),
            to_time=tables.moment(to, "to"),
            identity_key=_machine(machine),
            build=model,
        )
        as_csv = tables.wants_csv(request, format_)
        try:
            found = await reports.earnings(
                caller.account_id,
                wanted,
                tables.page(1 if as_csv else limit, page_token),
                count_limit=tables.MAX_CSV_ROWS + 1 if as_csv else 0,
            )
        except InvalidArgumentError as error:
            raise tables.not_valid(error) from None
        if not as_csv:
            rows = [_earning(row) for row in found.earnings]
            return reply(tables.paged("earnings", rows, found.next_page_token))
        tables.check_size(found.matches)

        pages = histories.earnings(reports, caller.account_id, wanted)
        return tables.csv_reply("earnings", histories.csv_file(histories.EARNINGS_HEAD, pages))

    @router.get("/v1/me/insights")
    async def my_insights(
        request: Request,
        days: Annotated[str, Query(max_length=8)] = "7",
        machine: Text = "",
        format_: Format = "",
    ) -> Reply:
        """Return work by UTC day, model and machine; rewards count apart from work."""
        caller = await plane.earner(request)
        if days not in _DAYS:
            raise bad_request("days must be 7, 30 or 90", param="days")
        found = await reports.insights(caller.account_id, _DAYS[days], _machine(machine))
        if tables.wants_csv(request, format_):
            cells = [histories.day_cells(row) for row in found.rows]
            return tables.csv_reply("insights", _once([histories.INSIGHTS_HEAD, *cells]))
        return reply({"days": _DAYS[days], "rows": [_day(row) for row in found.rows]})

    @router.get("/v1/me/summary")
    async def my_summary(request: Request) -> Reply:
        """Return an account's money, work and machines at a glance, to its signed-in owner."""
        caller = await plane.login(request)
        summary = await reports.summary(caller.account_id)
        content = await _sums(reports, caller.account_id, summary)
        own = {
            machine.identity_key for machine in summary.machines if machine.HasField("link_time")
        }
        connected = [found for found in await fleet.get() if found.identity_key in own]
        return reply(
            {
                **content,
                "payout_ready": await _payout_ready(payments, caller.account_id),
                "counts": _counts(len(own), connected),
                **await machines.versions(releases),
            }
        )

    @router.get("/v1/provider/earnings-summary")
    async def earnings_summary(request: Request) -> Reply:
        """Return what an account's machines have earned, to them as well."""
        caller = await plane.earner(request)
        summary = await reports.summary(caller.account_id)
        return reply(await _sums(reports, caller.account_id, summary))

    return router


async def _sums(
    reports: ReportsClient, account_id: str, summary: GetEarningsSummaryResponse
) -> dict[str, Any]:
    money = await reports.wallets(account_id)
    return {
        "account_id": account_id,
        "available_balance_micro_usd": money.promo_micros
        + money.credit_micros
        + money.earned_micros,
        "withdrawable_balance_micro_usd": 0 if money.frozen else money.earned_micros,
        "maturing_balance_micro_usd": money.maturing_micros,
        "lifetime_micro_usd": _earned(summary.lifetime),
        "lifetime_jobs": summary.lifetime.jobs,
        "last_24h_micro_usd": _earned(summary.last_24h),
        "last_24h_jobs": summary.last_24h.jobs,
        "last_7d_micro_usd": _earned(summary.last_7d),
        "last_7d_jobs": summary.last_7d.jobs,
        "machines": [_machine_row(row) for row in summary.machines],
    }


async def _account_earnings(reports: ReportsClient, account_id: str, size: int) -> dict[str, Any]:
    found = await reports.earnings(account_id, pb.EarningsFilter(), tables.page(size, ""))
    summary = await reports.summary(account_id)
    money = await reports.wallets(account_id)
    available = money.promo_micros + money.credit_micros + money.earned_micros
    withdrawable = 0 if money.frozen else money.earned_micros
    return {
        "account_id": account_id,
        "earnings": [_earning(row) for row in found.earnings],
        "total_micro_usd": summary.lifetime.work_micros,
        "total_usd": usd6(summary.lifetime.work_micros),
        "count": summary.lifetime.jobs,
        "recent_count": len(found.earnings),
        "history_limit": size,
        "available_balance_micro_usd": available,
        "available_balance_usd": usd6(available),
        "withdrawable_balance_micro_usd": withdrawable,
        "withdrawable_balance_usd": usd6(withdrawable),
        "maturing_balance_micro_usd": money.maturing_micros,
        "maturing_balance_usd": usd6(money.maturing_micros),
    }


async def _payout_ready(payments: PaymentsClient, account_id: str) -> bool:
    """Say whether a withdrawal could be sent; without Stripe none can."""
    try:
        return (await payments.payout_account(account_id, refresh=False)).status == _READY
    except ApiError:
        return False


def _machine(value: str) -> bytes:
    """Read a machine's identity key, base64 as `darkbloom status` shows it.

    Raises:
        ApiError: 400.
    """
    if not value:
        return b""
    try:
        # In a query a plus sign arrives as a space.
        return parse_p256_public(from_base64(value.replace(" ", "+")))
    except EdgeError:
        raise bad_request("machine is not an identity key in base64", param="machine") from None


def _counts(linked: int, connected: Sequence[Provider]) -> dict[str, int]:
    online = [found for found in connected if found.status == "online"]
    untrusted = sum(found.status == "untrusted" for found in connected)
    without_verdict = sum(not found.HasField("verdict") for found in online)
    return {
        "total": linked,
        "online": len(online),
        "serving": sum(any(slot.num_running for slot in found.slots) for found in online),
        "offline": linked - len(connected),
        "untrusted": untrusted,
        "hardware": sum(found.trust_level == _HARDWARE for found in connected),
        "needs_attention": untrusted + without_verdict,
    }


def _earned(work: pb.Work) -> int:
    return work.work_micros + work.reward_micros


def _earning(row: pb.EarningsEntry) -> dict[str, Any]:
    return {
        "job_id": row.request_id,
        "model": row.build,
        "machine": row.machine,
        "machine_key": to_base64(row.identity_key),
        "amount_micro_usd": row.amount_micros,
        "amount_usd": usd6(row.amount_micros),
        "prompt_tokens": row.prompt_tokens,
        "completion_tokens": row.completion_tokens,
        "created_at": tables.instant(row.settle_time),
    }


def _work(work: pb.Work) -> dict[str, int]:
    return {
        "earnings_micro_usd": _earned(work),
        "work_earnings_micro_usd": work.work_micros,
        "reward_earnings_micro_usd": work.reward_micros,
        "tokens": work.tokens,
        "jobs": work.jobs,
    }


def _day(row: pb.DayWork) -> dict[str, Any]:
    return {
        "day": row.day,
        "model": row.build,
        "machine_key": to_base64(row.identity_key),
        **_work(row.work),
    }


def _machine_row(row: pb.MachineWork) -> dict[str, Any]:
    linked = {"linked_at": tables.instant(row.link_time)} if row.HasField("link_time") else {}
    return {
        "machine_key": to_base64(row.identity_key),
        "name": row.name,
        **linked,
        **_work(row.work),
    }


async def _once(rows: Sequence[Sequence[tables.Cell]]) -> AsyncIterator[bytes]:
    yield tables.csv_lines(rows)
