"""Reports on the wire: translate, delegate, translate back."""

from datetime import timedelta

from darkbloom.billing.v1 import report_pb2
from darkbloom.billing.v1 import report_service_pb2 as pb
from darkbloom.billing.v1.report_service_pb2_grpc import ReportServiceServicer
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import InvalidArgumentError, NotFoundError
from darkbloom_mesh.interceptors import Context

from darkbloom_billing import convert as wire
from darkbloom_billing.reports import convert
from darkbloom_billing.reports.figures import BEST, PublicFigures
from darkbloom_billing.reports.names import chosen_name
from darkbloom_billing.reports.ports import ReportStore
from darkbloom_billing.reports.statement import entry

MAX_DAYS = 90
MAX_DAY_ROWS = 10_000
_BOARD = 50


class ReportServer(ReportServiceServicer):
    """Histories, sums and public figures; holds no resource of its own."""

    def __init__(self, store: ReportStore, figures: PublicFigures, clock: Clock) -> None:
        self._store = store
        self._figures = figures
        self._clock = clock

    async def GetWallets(
        self, request: pb.GetWalletsRequest, context: Context
    ) -> pb.GetWalletsResponse:
        """Return what an account has."""
        found = await self._store.wallets(wire.token(request.account_id, "account_id"))
        if found is None:
            raise NotFoundError("no such account")
        return convert.wallets(found)

    async def SearchUsage(
        self, request: pb.SearchUsageRequest, context: Context
    ) -> pb.SearchUsageResponse:
        """Return a page of charged requests."""
        account_id = wire.token(request.account_id, "account_id")
        wanted, size = convert.usage_filter(request.filter), wire.page_size(request.page)
        counted = convert.count_limit(request.count_limit)
        matches = await self._store.usage_count(account_id, wanted, limit=counted) if counted else 0
        found = await self._store.usage(
            account_id, wanted, limit=size + 1, after=wire.cursor(request.page)
        )
        page, following = wire.page(found, size, wire.cursor_of)
        return pb.SearchUsageResponse(
            usage=map(convert.usage, page), next_page_token=following, matches=matches
        )

    async def ListStatement(
        self, request: pb.ListStatementRequest, context: Context
    ) -> pb.ListStatementResponse:
        """Return a page of an account's movements."""
        size, below = wire.page_size(request.page), convert.statement_place(request.page)
        found = await self._store.movements(
            wire.token(request.account_id, "account_id"), limit=size + 1, below=below
        )
        page = found[:size]
        reached = {**below, **{movement.wallet: movement.version for movement in page}}
        return pb.ListStatementResponse(
            entries=[convert.entry(entry(movement)) for movement in page],
            next_page_token=convert.statement_token(reached) if len(found) > size else "",
        )

    async def SearchEarnings(
        self, request: pb.SearchEarningsRequest, context: Context
    ) -> pb.SearchEarningsResponse:
        """Return a page of paid requests."""
        account_id = wire.token(request.account_id, "account_id")
        wanted, size = convert.earnings_filter(request.filter), wire.page_size(request.page)
        counted = convert.count_limit(request.count_limit)
        matches = (
            await self._store.earnings_count(account_id, wanted, limit=counted) if counted else 0
        )
        found = await self._store.earnings(
            account_id, wanted, limit=size + 1, after=wire.cursor(request.page)
        )
        page, following = wire.page(found, size, wire.cursor_of)
        return pb.SearchEarningsResponse(
            earnings=map(convert.earning, page), next_page_token=following, matches=matches
        )

    async def GetEarningsSummary(
        self, request: pb.GetEarningsSummaryRequest, context: Context
    ) -> pb.GetEarningsSummaryResponse:
        """Return the sums of an account."""
        account_id = wire.token(request.account_id, "account_id")
        return convert.summary(await self._store.summary(account_id, now=self._clock.now()))

    async def ListInsights(
        self, request: pb.ListInsightsRequest, context: Context
    ) -> pb.ListInsightsResponse:
        """Return work by day."""
        days = wire.between(request.days, 1, MAX_DAYS, "days")
        found = await self._store.days(
            wire.token(request.account_id, "account_id"),
            since=self._clock.now().date() - timedelta(days=days - 1),
            identity_key=convert.machine(request.identity_key),
            limit=MAX_DAY_ROWS,
        )
        return pb.ListInsightsResponse(rows=map(convert.day, found))

    async def GetLeaderboard(
        self, request: pb.GetLeaderboardRequest, context: Context
    ) -> pb.GetLeaderboardResponse:
        """Return the first places of a board."""
        limit = request.limit if 1 <= request.limit <= BEST else _BOARD
        entries, computed_at = self._figures.board(
            convert.metric(request.metric), convert.window(request.window), limit
        )
        return pb.GetLeaderboardResponse(
            entries=map(convert.board_entry, entries), update_time=wire.timestamp(computed_at)
        )

    async def GetNetworkTotals(
        self, request: pb.GetNetworkTotalsRequest, context: Context
    ) -> pb.GetNetworkTotalsResponse:
        """Return sums over everybody."""
        standing, series, computed_at = self._figures.totals(convert.window(request.window))
        return pb.GetNetworkTotalsResponse(
            work=convert.work(standing.total),
            active_accounts=standing.active_accounts,
            update_time=wire.timestamp(computed_at),
            prompt_tokens=standing.total.prompt_tokens,
            completion_tokens=standing.total.completion_tokens,
            series=convert.minutes(series),
        )

    async def GetPublicName(
        self, request: pb.GetPublicNameRequest, context: Context
    ) -> pb.GetPublicNameResponse:
        """Return how an account appears."""
        account_id = wire.token(request.account_id, "account_id")
        hidden, chosen = await self._store.public_name(account_id)
        if hidden:
            return pb.GetPublicNameResponse(choice=report_pb2.PUBLIC_NAME_CHOICE_HIDDEN)
        return pb.GetPublicNameResponse(
            choice=report_pb2.PUBLIC_NAME_CHOICE_CHOSEN
            if chosen
            else report_pb2.PUBLIC_NAME_CHOICE_PSEUDONYM,
            name=self._figures.name(account_id, chosen),
        )

    async def SetPublicName(
        self, request: pb.SetPublicNameRequest, context: Context
    ) -> pb.SetPublicNameResponse:
        """Choose how an account appears."""
        account_id, now = wire.token(request.account_id, "account_id"), self._clock.now()
        match request.choice:
            case report_pb2.PUBLIC_NAME_CHOICE_PSEUDONYM:
                await self._store.forget_public_name(account_id)
                return pb.SetPublicNameResponse(name=self._figures.name(account_id, ""))
            case report_pb2.PUBLIC_NAME_CHOICE_HIDDEN:
                await self._store.set_public_name(account_id, None, None, now=now)
                return pb.SetPublicNameResponse()
            case report_pb2.PUBLIC_NAME_CHOICE_CHOSEN:
                name, folded = chosen_name(request.name)
                await self._store.set_public_name(account_id, name, folded, now=now)
                return pb.SetPublicNameResponse(name=name)
            case _:
                raise InvalidArgumentError("not a choice", "choice")

    async def GetDossier(
        self, request: pb.GetDossierRequest, context: Context
    ) -> pb.GetDossierResponse:
        """Return what is known about an account."""
        found = await self._store.dossier(wire.token(request.account_id, "account_id"))
        if found is None:
            raise NotFoundError("no such account")
        return convert.dossier(found)
