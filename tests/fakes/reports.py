"""A stand-in for billing's reports: fixed rows, remembered requests, and failures on demand."""

from datetime import UTC, datetime
from typing import Any

from darkbloom.billing.v1 import report_pb2
from darkbloom.billing.v1 import report_service_pb2 as pb
from darkbloom.billing.v1.report_service_pb2_grpc import ReportServiceServicer
from darkbloom_mesh.errors import ConflictError, InvalidArgumentError, UnavailableError
from google.protobuf.timestamp_pb2 import Timestamp

AT = datetime(2026, 5, 1, 12, tzinfo=UTC)
MACHINE = bytes.fromhex(
    "04"
    "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
    "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
)
"""A point of P-256."""
PAGES = 3
"""How many pages of one row a history has."""


def stamp() -> Timestamp:
    made = Timestamp()
    made.FromDatetime(AT)
    return made


class FakeReports(ReportServiceServicer):
    """Histories of three pages; sums that a test may set."""

    def __init__(self) -> None:
        self.down = False
        self.computed = True
        self.machine = MACHINE
        self.matches = PAGES
        self.asked: list[Any] = []
        self.model = "tiny"
        self.names: dict[str, str] = {}
        self.wallets = pb.GetWalletsResponse(
            promo_micros=1_000_000, credit_micros=234_562, earned_micros=5, maturing_micros=7
        )
        self.work = report_pb2.Work(work_micros=800, reward_micros=200, tokens=60, jobs=2)

    async def GetWallets(self, request: Any, context: Any) -> Any:
        self._note(request)
        return self.wallets

    async def SearchUsage(self, request: Any, context: Any) -> Any:
        number, following = self._page(request)
        row = report_pb2.UsageEntry(
            request_id=f"req_{number}",
            attempt_id=f"att_{number}",
            model=self.model,
            prompt_tokens=40,
            completion_tokens=20,
            charge_micros=100,
            outcome="completed",
            settle_time=stamp(),
        )
        matches = min(self.matches, request.count_limit)
        return pb.SearchUsageResponse(usage=[row], next_page_token=following, matches=matches)

    async def ListStatement(self, request: Any, context: Any) -> Any:
        number, following = self._page(request)
        kinds = ("charge", "refund", "stripe_payout")
        row = report_pb2.StatementEntry(
            entry_id=f"{number}d",
            type=kinds[number],
            wallet="earned",
            amount_micros=-100,
            create_time=stamp(),
        )
        return pb.ListStatementResponse(entries=[row], next_page_token=following)

    async def SearchEarnings(self, request: Any, context: Any) -> Any:
        number, following = self._page(request)
        row = report_pb2.EarningsEntry(
            request_id=f"req_{number}",
            build=self.model,
            amount_micros=100,
            identity_key=MACHINE,
            machine="mac",
            settle_time=stamp(),
        )
        matches = min(self.matches, request.count_limit)
        return pb.SearchEarningsResponse(earnings=[row], next_page_token=following, matches=matches)

    async def GetEarningsSummary(self, request: Any, context: Any) -> Any:
        self._note(request)
        machine = report_pb2.MachineWork(
            identity_key=self.machine, name="mac", link_time=stamp(), work=self.work
        )
        return pb.GetEarningsSummaryResponse(
            lifetime=self.work, last_24h=self.work, last_7d=self.work, machines=[machine]
        )

    async def ListInsights(self, request: Any, context: Any) -> Any:
        self._note(request)
        row = report_pb2.DayWork(day="2026-05-01", build=self.model, work=self.work)
        return pb.ListInsightsResponse(rows=[row])

    async def GetLeaderboard(self, request: Any, context: Any) -> Any:
        self._note(request)
        self._ready()
        entries = [
            report_pb2.LeaderboardEntry(rank=rank, name=f"name-{rank}", work=self.work)
            for rank in range(1, 61)
        ]
        return pb.GetLeaderboardResponse(entries=entries, update_time=stamp())

    async def GetNetworkTotals(self, request: Any, context: Any) -> Any:
        self._note(request)
        self._ready()
        return pb.GetNetworkTotalsResponse(
            work=self.work,
            active_accounts=1,
            update_time=stamp(),
            prompt_tokens=40,
            completion_tokens=20,
            series=[report_pb2.MinuteWork(minute_time=stamp(), jobs=2)],
        )

    async def GetPublicName(self, request: Any, context: Any) -> Any:
        self._note(request)
        return pb.GetPublicNameResponse(
            choice=report_pb2.PUBLIC_NAME_CHOICE_PSEUDONYM, name="quiet-fox-0001"
        )

    async def SetPublicName(self, request: Any, context: Any) -> Any:
        self._note(request)
        if request.name == "taken":
            raise ConflictError("another account has this name")
        if request.name == "no!":
            raise InvalidArgumentError("is reserved", "name")
        return pb.SetPublicNameResponse(name=request.name)

    async def GetDossier(self, request: Any, context: Any) -> Any:
        self._note(request)
        key = report_pb2.DossierKey(
            key_id="key_1", name="=cmd", label="sk-db-1…", create_time=stamp()
        )
        return pb.GetDossierResponse(account_id=request.account_id, create_time=stamp(), keys=[key])

    def _page(self, request: Any) -> tuple[int, str]:
        self._note(request)
        token = request.page.page_token
        if token not in ("", "1", "2"):
            raise InvalidArgumentError("page token is not one of ours", "page.page_token")
        number = int(token or 0)
        return number, "" if number + 1 == PAGES else str(number + 1)

    def _note(self, request: Any) -> None:
        if self.down:
            raise UnavailableError("store does not answer")
        self.asked.append(request)

    def _ready(self) -> None:
        if not self.computed:
            raise UnavailableError("figures are not computed yet")
