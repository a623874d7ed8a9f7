"""Messages of reports to values and back. Only InvalidArgumentError leaves."""

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from datetime import datetime

from darkbloom.billing.v1 import report_pb2, report_service_pb2
from darkbloom.common.v1 import page_pb2
from darkbloom_mesh.errors import InvalidArgumentError
from google.protobuf.timestamp_pb2 import Timestamp

from darkbloom_billing import convert
from darkbloom_billing.model import UsageRow
from darkbloom_billing.reports import model

MAX_COUNT = 1_000_000
_PLACE = re.compile(r"([a-z]{1,16}):([0-9]{1,18})")
_METRICS = {
    report_pb2.LEADERBOARD_METRIC_EARNINGS: model.Metric.EARNINGS,
    report_pb2.LEADERBOARD_METRIC_TOKENS: model.Metric.TOKENS,
    report_pb2.LEADERBOARD_METRIC_JOBS: model.Metric.JOBS,
}
_WINDOWS = {
    report_pb2.FIGURE_WINDOW_24H: model.Window.DAY,
    report_pb2.FIGURE_WINDOW_7D: model.Window.WEEK,
    report_pb2.FIGURE_WINDOW_30D: model.Window.MONTH,
    report_pb2.FIGURE_WINDOW_ALL: model.Window.ALL,
}


def wallets(value: model.Wallets) -> report_service_pb2.GetWalletsResponse:
    """Write what an account has."""
    return report_service_pb2.GetWalletsResponse(
        promo_micros=value.promo_micros,
        credit_micros=value.credit_micros,
        earned_micros=value.earned_micros,
        held_micros=value.held_micros,
        maturing_micros=value.maturing_micros,
        disputed_micros=value.disputed_micros,
        debt_micros=value.debt_micros,
        frozen=value.frozen,
    )


def usage_filter(message: report_pb2.UsageFilter) -> model.HistoryFilter:
    """Read which charged requests are wanted."""
    return model.HistoryFilter(
        since=_moment(message.from_time, "from") if message.HasField("from_time") else None,
        until=_moment(message.to_time, "to") if message.HasField("to_time") else None,
        key_id=convert.token(message.key_id, "key_id") if message.key_id else "",
        model=convert.token(message.model, "model") if message.model else "",
    )


def earnings_filter(message: report_pb2.EarningsFilter) -> model.HistoryFilter:
    """Read which paid requests are wanted."""
    return model.HistoryFilter(
        since=_moment(message.from_time, "from") if message.HasField("from_time") else None,
        until=_moment(message.to_time, "to") if message.HasField("to_time") else None,
        identity_key=machine(message.identity_key),
        model=convert.token(message.build, "build") if message.build else "",
    )


def machine(value: bytes) -> bytes:
    """Read a machine; empty means all."""
    return convert.identity_key(value) if value else b""


def count_limit(value: int) -> int:
    """Read how far to count."""
    return convert.between(value, 0, MAX_COUNT, "count_limit")


def usage(row: UsageRow) -> report_pb2.UsageEntry:
    """Write a charged request."""
    return report_pb2.UsageEntry(
        request_id=row.request_id,
        attempt_id=row.attempt_id,
        key_id=row.key_id,
        model=row.model,
        build=row.build,
        prompt_tokens=row.prompt_tokens,
        cached_tokens=row.cached_tokens,
        completion_tokens=row.completion_tokens,
        charge_micros=row.charge_micros,
        outcome=row.outcome,
        settle_time=convert.timestamp(row.settled_at),
    )


def earning(row: model.MachineEarning) -> report_pb2.EarningsEntry:
    """Write a paid request."""
    return report_pb2.EarningsEntry(
        request_id=row.request_id,
        build=row.build,
        amount_micros=row.amount_micros,
        prompt_tokens=row.prompt_tokens,
        completion_tokens=row.completion_tokens,
        settle_time=convert.timestamp(row.settled_at),
        identity_key=row.identity_key,
        machine=row.machine,
    )


def statement_place(request: page_pb2.PageRequest) -> dict[str, int]:
    """Read where a page of a statement begins: below which posting of each wallet."""
    if not request.page_token:
        return {}
    try:
        text = base64.urlsafe_b64decode(request.page_token).decode("ascii")
    except (binascii.Error, ValueError):
        raise _foreign_token() from None
    places = [_PLACE.fullmatch(part) for part in text.split(",")]
    if any(place is None for place in places):
        raise _foreign_token()
    return {place[1]: int(place[2]) for place in places if place is not None}


def statement_token(place: Mapping[str, int]) -> str:
    """Write where the next page begins."""
    text = ",".join(f"{wallet}:{version}" for wallet, version in sorted(place.items()))
    return base64.urlsafe_b64encode(text.encode()).decode()


def entry(value: model.StatementEntry) -> report_pb2.StatementEntry:
    """Write an entry of a statement."""
    return report_pb2.StatementEntry(
        entry_id=value.entry_id,
        type=value.type,
        wallet=value.wallet,
        amount_micros=value.amount_micros,
        free_micros=value.free_micros,
        held_micros=value.held_micros,
        settled_micros=value.settled_micros,
        reference=value.reference,
        create_time=convert.timestamp(value.occurred_at),
    )


def work(value: model.Work) -> report_pb2.Work:
    """Write sums."""
    return report_pb2.Work(
        work_micros=value.work_micros,
        reward_micros=value.reward_micros,
        tokens=value.tokens,
        jobs=value.jobs,
    )


def summary(value: model.Summary) -> report_service_pb2.GetEarningsSummaryResponse:
    """Write the sums of an account."""
    return report_service_pb2.GetEarningsSummaryResponse(
        lifetime=work(value.lifetime),
        last_24h=work(value.last_24h),
        last_7d=work(value.last_7d),
        machines=[
            report_pb2.MachineWork(
                identity_key=found.identity_key,
                name=found.name,
                link_time=convert.timestamp(found.linked_at) if found.linked_at else None,
                work=work(found.work),
            )
            for found in value.machines
        ],
    )


def day(value: model.DayWork) -> report_pb2.DayWork:
    """Write one day."""
    return report_pb2.DayWork(
        day=value.day.isoformat(),
        build=value.build,
        identity_key=value.identity_key,
        work=work(value.work),
    )


def metric(value: report_pb2.LeaderboardMetric.ValueType) -> model.Metric:
    """Read a metric."""
    found = _METRICS.get(value)
    if found is None:
        raise InvalidArgumentError("not a metric", "metric")
    return found


def window(value: report_pb2.FigureWindow.ValueType) -> model.Window:
    """Read a window."""
    found = _WINDOWS.get(value)
    if found is None:
        raise InvalidArgumentError("not a window", "window")
    return found


def board_entry(value: model.BoardEntry) -> report_pb2.LeaderboardEntry:
    """Write one place on a board."""
    return report_pb2.LeaderboardEntry(rank=value.rank, name=value.name, work=work(value.work))


def minutes(series: Sequence[model.MinuteWork]) -> list[report_pb2.MinuteWork]:
    """Write the last minutes."""
    return [
        report_pb2.MinuteWork(
            minute_time=convert.timestamp(found.minute),
            prompt_tokens=found.prompt_tokens,
            completion_tokens=found.completion_tokens,
            jobs=found.jobs,
        )
        for found in series
    ]


def dossier(value: model.Dossier) -> report_service_pb2.GetDossierResponse:
    """Write facts of an account."""
    return report_service_pb2.GetDossierResponse(
        account_id=value.account_id,
        display_name=value.display_name,
        role=value.role,
        create_time=convert.timestamp(value.created_at),
        keys=[
            report_pb2.DossierKey(
                key_id=key.key_id,
                name=key.name,
                label=key.label,
                revoked=key.revoked,
                create_time=convert.timestamp(key.created_at),
            )
            for key in value.keys
        ],
        machines=[
            report_pb2.DossierMachine(
                identity_key=found.identity_key,
                name=found.name,
                link_time=convert.timestamp(found.linked_at) if found.linked_at else None,
            )
            for found in value.machines
        ],
    )


def _moment(message: Timestamp, field: str) -> datetime:
    return convert.moment(message, field)


def _foreign_token() -> InvalidArgumentError:
    return InvalidArgumentError("page token is not one of ours", "page.page_token")
