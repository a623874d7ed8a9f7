"""An account's histories as rows, page after page: for CSV files and for the export."""

from collections.abc import AsyncIterator, Sequence

from darkbloom.billing.v1 import payment_service_pb2
from darkbloom.billing.v1 import report_pb2 as pb
from darkbloom_edge.signatures import to_base64

from darkbloom_gateway.billing_payments import PaymentsClient
from darkbloom_gateway.billing_reports import ReportsClient
from darkbloom_gateway.routes.stripe_fields import withdrawal_status, word
from darkbloom_gateway.routes.tables import MAX_PAGE, Cell, csv_lines, instant, page

Rows = AsyncIterator[Sequence[Sequence[Cell]]]
MAX_WITHDRAWALS = 200
"""Withdrawals of a page."""
USAGE_HEAD = (
    "timestamp",
    "job_id",
    "request_id",
    "key_id",
    "model",
    "build",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "cost_micro_usd",
    "outcome",
)
STATEMENT_HEAD = (
    "timestamp",
    "id",
    "type",
    "wallet",
    "amount_micro_usd",
    "free_micro_usd",
    "held_micro_usd",
    "settled_micro_usd",
    "reference",
)
EARNINGS_HEAD = (
    "timestamp",
    "job_id",
    "model",
    "machine",
    "machine_key",
    "amount_micro_usd",
    "prompt_tokens",
    "completion_tokens",
)
INSIGHTS_HEAD = (
    "day",
    "model",
    "machine_key",
    "work_micro_usd",
    "reward_micro_usd",
    "tokens",
    "jobs",
)
WITHDRAWALS_HEAD = (
    "created_at",
    "id",
    "status",
    "method",
    "amount_micro_usd",
    "fee_micro_usd",
    "net_micro_usd",
    "stripe_account_id",
    "transfer_id",
    "payout_id",
    "failure_reason",
    "refunded",
    "updated_at",
)


def usage_cells(row: pb.UsageEntry) -> Sequence[Cell]:
    """Return a charged request under `USAGE_HEAD`."""
    return (
        instant(row.settle_time),
        row.attempt_id,
        row.request_id,
        row.key_id,
        row.model,
        row.build,
        row.prompt_tokens,
        row.cached_tokens,
        row.completion_tokens,
        row.charge_micros,
        row.outcome,
    )


def statement_cells(row: pb.StatementEntry) -> Sequence[Cell]:
    """Return a movement under `STATEMENT_HEAD`."""
    return (
        instant(row.create_time),
        row.entry_id,
        row.type,
        row.wallet,
        row.amount_micros,
        row.free_micros,
        row.held_micros,
        row.settled_micros,
        row.reference,
    )


def earnings_cells(row: pb.EarningsEntry) -> Sequence[Cell]:
    """Return a paid request under `EARNINGS_HEAD`."""
    return (
        instant(row.settle_time),
        row.request_id,
        row.build,
        row.machine,
        to_base64(row.identity_key),
        row.amount_micros,
        row.prompt_tokens,
        row.completion_tokens,
    )


def withdrawal_cells(row: payment_service_pb2.Withdrawal) -> Sequence[Cell]:
    """Return a withdrawal under `WITHDRAWALS_HEAD`."""
    method = payment_service_pb2.WithdrawalMethod.Name(row.method)
    return (
        instant(row.create_time),
        row.withdrawal_id,
        withdrawal_status(row),
        word(method, "WITHDRAWAL_METHOD_"),
        row.amount_micros,
        row.fee_micros,
        row.net_micros,
        row.stripe_account_id,
        row.transfer_id,
        row.payout_id,
        row.failure_reason,
        str(row.refunded).lower(),
        instant(row.update_time),
    )


def day_cells(row: pb.DayWork) -> Sequence[Cell]:
    """Return one day under `INSIGHTS_HEAD`; rewards have neither model nor machine."""
    return (
        row.day,
        row.build,
        to_base64(row.identity_key),
        row.work.work_micros,
        row.work.reward_micros,
        row.work.tokens,
        row.work.jobs,
    )


async def csv_file(head: Sequence[Cell], pages: Rows) -> AsyncIterator[bytes]:
    """Yield a table as CSV, page after page."""
    yield csv_lines([head])
    async for page_of_rows in pages:
        yield csv_lines(page_of_rows)


async def usage(reports: ReportsClient, account_id: str, wanted: pb.UsageFilter) -> Rows:
    """Yield charged requests, newest first."""
    token = ""
    while True:
        answer = await reports.usage(account_id, wanted, page(MAX_PAGE, token))
        yield [usage_cells(row) for row in answer.usage]
        token = answer.next_page_token
        if not token:
            return


async def statement(reports: ReportsClient, account_id: str) -> Rows:
    """Yield movements, newest first."""
    token = ""
    while True:
        answer = await reports.statement(account_id, page(MAX_PAGE, token))
        yield [statement_cells(row) for row in answer.entries]
        token = answer.next_page_token
        if not token:
            return


async def earnings(reports: ReportsClient, account_id: str, wanted: pb.EarningsFilter) -> Rows:
    """Yield paid requests, newest first."""
    token = ""
    while True:
        answer = await reports.earnings(account_id, wanted, page(MAX_PAGE, token))
        yield [earnings_cells(row) for row in answer.earnings]
        token = answer.next_page_token
        if not token:
            return


async def withdrawals(
    payments: PaymentsClient, account_id: str, first: payment_service_pb2.ListWithdrawalsResponse
) -> Rows:
    """Yield withdrawals, newest first, beginning with a page that was read before."""
    answer = first
    while True:
        yield [withdrawal_cells(row) for row in answer.withdrawals]
        token = answer.next_page_token
        if not token:
            return
        answer = await payments.withdrawals(account_id, MAX_WITHDRAWALS, token)
