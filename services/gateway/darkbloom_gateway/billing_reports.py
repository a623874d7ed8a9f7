"""Billing's reports and prices for the control plane: typed messages in, typed messages out.

Every call carries a deadline and leaves as an `ApiError` where billing does not answer; what is
wrong with a request keeps its own class, for the route to name the field.
"""

from collections.abc import Awaitable, Mapping
from functools import partial
from typing import TypeVar

import grpc
from darkbloom.billing.v1 import price_service_pb2 as prices
from darkbloom.billing.v1 import report_pb2
from darkbloom.billing.v1 import report_service_pb2 as reports_pb
from darkbloom.billing.v1.price_service_pb2_grpc import PriceServiceStub
from darkbloom.billing.v1.report_service_pb2_grpc import ReportServiceStub
from darkbloom.common.v1.page_pb2 import PageRequest
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import (
    ConflictError,
    InvalidArgumentError,
    MeshError,
    NotFoundError,
    OverloadedError,
)

from darkbloom_gateway.cached import Cached
from darkbloom_gateway.clients import answer
from darkbloom_gateway.errors import unavailable

T = TypeVar("T")
MAX_BOARD = 200
RECENT_S, BOARD_S, TOTALS_S = 60.0, 300.0, 30.0
STALE_S = 300.0
_CALLERS_FAULT = (ConflictError, InvalidArgumentError, NotFoundError, OverloadedError)


class ReportsClient:
    """Reads of money and histories, and prices, over one channel."""

    def __init__(self, channel: grpc.aio.Channel, *, timeout_s: float) -> None:
        self._reports: ReportServiceStub = ReportServiceStub(channel)
        self._prices: PriceServiceStub = PriceServiceStub(channel)
        self._timeout_s = timeout_s

    async def wallets(self, account_id: str) -> reports_pb.GetWalletsResponse:
        """Return what an account has."""
        request = reports_pb.GetWalletsRequest(account_id=account_id)
        return await _ask(self._reports.GetWallets(request, timeout=self._timeout_s))

    async def usage(
        self,
        account_id: str,
        wanted: report_pb2.UsageFilter,
        page: PageRequest,
        *,
        count_limit: int = 0,
    ) -> reports_pb.SearchUsageResponse:
        """Return a page of charged requests."""
        request = reports_pb.SearchUsageRequest(
            account_id=account_id, page=page, filter=wanted, count_limit=count_limit
        )
        return await _ask(self._reports.SearchUsage(request, timeout=self._timeout_s))

    async def statement(
        self, account_id: str, page: PageRequest
    ) -> reports_pb.ListStatementResponse:
        """Return a page of an account's movements."""
        request = reports_pb.ListStatementRequest(account_id=account_id, page=page)
        return await _ask(self._reports.ListStatement(request, timeout=self._timeout_s))

    async def earnings(
        self,
        account_id: str,
        wanted: report_pb2.EarningsFilter,
        page: PageRequest,
        *,
        count_limit: int = 0,
    ) -> reports_pb.SearchEarningsResponse:
        """Return a page of paid requests."""
        request = reports_pb.SearchEarningsRequest(
            account_id=account_id, page=page, filter=wanted, count_limit=count_limit
        )
        return await _ask(self._reports.SearchEarnings(request, timeout=self._timeout_s))

    async def summary(self, account_id: str) -> reports_pb.GetEarningsSummaryResponse:
        """Return the sums of an account's work."""
        request = reports_pb.GetEarningsSummaryRequest(account_id=account_id)
        return await _ask(self._reports.GetEarningsSummary(request, timeout=self._timeout_s))

    async def insights(
        self, account_id: str, days: int, identity_key: bytes
    ) -> reports_pb.ListInsightsResponse:
        """Return work by day."""
        request = reports_pb.ListInsightsRequest(
            account_id=account_id, days=days, identity_key=identity_key
        )
        return await _ask(self._reports.ListInsights(request, timeout=self._timeout_s))

    async def leaderboard(
        self,
        metric: report_pb2.LeaderboardMetric.ValueType,
        window: report_pb2.FigureWindow.ValueType,
        limit: int,
    ) -> reports_pb.GetLeaderboardResponse:
        """Return the first places of a board."""
        request = reports_pb.GetLeaderboardRequest(metric=metric, window=window, limit=limit)
        return await _ask(self._reports.GetLeaderboard(request, timeout=self._timeout_s))

    async def totals(
        self, window: report_pb2.FigureWindow.ValueType
    ) -> reports_pb.GetNetworkTotalsResponse:
        """Return sums over everybody."""
        request = reports_pb.GetNetworkTotalsRequest(window=window)
        return await _ask(self._reports.GetNetworkTotals(request, timeout=self._timeout_s))

    async def public_name(self, account_id: str) -> reports_pb.GetPublicNameResponse:
        """Return how an account appears."""
        request = reports_pb.GetPublicNameRequest(account_id=account_id)
        return await _ask(self._reports.GetPublicName(request, timeout=self._timeout_s))

    async def set_public_name(
        self, account_id: str, choice: report_pb2.PublicNameChoice.ValueType, name: str
    ) -> str:
        """Choose how an account appears; return the name."""
        request = reports_pb.SetPublicNameRequest(account_id=account_id, choice=choice, name=name)
        found = await _ask(self._reports.SetPublicName(request, timeout=self._timeout_s))
        return found.name

    async def dossier(self, account_id: str) -> reports_pb.GetDossierResponse:
        """Return facts of an account."""
        request = reports_pb.GetDossierRequest(account_id=account_id)
        return await _ask(self._reports.GetDossier(request, timeout=self._timeout_s))

    async def own_prices(self, account_id: str) -> prices.ListOwnPricesResponse:
        """Return a provider's own rows."""
        request = prices.ListOwnPricesRequest(account_id=account_id)
        return await _ask(self._prices.ListOwnPrices(request, timeout=self._timeout_s))

    async def set_price(self, request: prices.SetPriceRequest) -> prices.SetPriceResponse:
        """Set the price of a build."""
        return await _ask(self._prices.SetPrice(request, timeout=self._timeout_s))

    async def delete_price(self, request: prices.DeletePriceRequest) -> None:
        """Take an own price back."""
        await _ask(self._prices.DeletePrice(request, timeout=self._timeout_s))


class Figures:
    """Public figures of each kind, kept for a moment, so that nobody can flood billing.

    Attributes:
        boards: by metric and window, as long as any board is.
        totals: by window.
    """

    def __init__(self, reports: ReportsClient, clock: Clock) -> None:
        metrics = report_pb2.LeaderboardMetric.values()[1:]
        windows = report_pb2.FigureWindow.values()[1:]
        self.boards: Mapping[tuple[int, int], Cached[reports_pb.GetLeaderboardResponse]] = {
            (metric, window): Cached(
                partial(reports.leaderboard, metric, window, MAX_BOARD),
                clock=clock,
                fresh_s=RECENT_S if window == report_pb2.FIGURE_WINDOW_24H else BOARD_S,
                stale_s=STALE_S,
            )
            for metric in metrics
            for window in windows
        }
        self.totals: Mapping[int, Cached[reports_pb.GetNetworkTotalsResponse]] = {
            window: Cached(
                partial(reports.totals, window), clock=clock, fresh_s=TOTALS_S, stale_s=STALE_S
            )
            for window in windows
        }


async def _ask(call: Awaitable[T]) -> T:
    """Await a call.

    Raises:
        MeshError: The caller's own fault.
        ApiError: 503: billing does not answer, or cannot yet.
    """
    try:
        return await answer(call)
    except _CALLERS_FAULT:
        raise
    except MeshError:
        raise unavailable() from None
