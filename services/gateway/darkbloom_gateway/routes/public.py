"""Figures that everybody may see: boards, totals, what the network has done."""

from collections.abc import Sequence
from typing import Annotated, Any, final

import orjson
from darkbloom.billing.v1 import report_pb2 as pb
from darkbloom.billing.v1.report_service_pb2 import GetNetworkTotalsResponse
from darkbloom.router.v1.fleet_pb2 import Provider
from darkbloom_mesh.errors import ConflictError, InvalidArgumentError
from fastapi import APIRouter, Query, Request, Response

from darkbloom_gateway.billing_reports import MAX_BOARD, Figures, ReportsClient
from darkbloom_gateway.errors import ApiError, bad_request
from darkbloom_gateway.routes import fleet_figures, tables
from darkbloom_gateway.routes.bodies import read_object, text
from darkbloom_gateway.routes.plane import ControlPlane, Reply, reply

DEFAULT_BOARD = 50
METRICS = {
    "earnings": pb.LEADERBOARD_METRIC_EARNINGS,
    "tokens": pb.LEADERBOARD_METRIC_TOKENS,
    "jobs": pb.LEADERBOARD_METRIC_JOBS,
}
WINDOWS = {
    "24h": pb.FIGURE_WINDOW_24H,
    "7d": pb.FIGURE_WINDOW_7D,
    "30d": pb.FIGURE_WINDOW_30D,
    "all": pb.FIGURE_WINDOW_ALL,
}
_ALIASES = {"1d": "24h", "lifetime": "all"}
_CHOICES = {
    "pseudonym": pb.PUBLIC_NAME_CHOICE_PSEUDONYM,
    "hidden": pb.PUBLIC_NAME_CHOICE_HIDDEN,
    "chosen": pb.PUBLIC_NAME_CHOICE_CHOSEN,
}
_WORDS = {number: word for word, number in _CHOICES.items()}
Word = Annotated[str, Query(max_length=16)]


def make_router(plane: ControlPlane, reports: ReportsClient, figures: Figures) -> APIRouter:
    """Return the routes."""
    router, shown = APIRouter(), _Stats()

    @router.get("/v1/leaderboard")
    async def leaderboard(metric: Word = "earnings", window: Word = "7d", limit: str = "") -> Reply:
        """Return who earned or served most."""
        if metric not in METRICS:
            raise bad_request("metric must be earnings, tokens or jobs", param="metric")
        window = _window(window)
        found = await figures.boards[METRICS[metric], WINDOWS[window]].get()
        entries = [
            {
                "rank": entry.rank,
                "pseudonym": entry.name,
                **_work(entry.work),
            }
            for entry in found.entries[: _limit(limit)]
        ]
        return reply(
            {
                "metric": metric,
                "window": window,
                "entries": entries,
                "updated_at": tables.instant(found.update_time),
            }
        )

    @router.get("/v1/network/totals")
    async def network_totals(window: Word = "24h") -> Reply:
        """Return sums over everybody."""
        window = _window(window)
        found = await figures.totals[WINDOWS[window]].get()
        return reply(
            {
                "window": window,
                **_work(found.work),
                "active_accounts": found.active_accounts,
                "updated_at": tables.instant(found.update_time),
            }
        )

    @router.get("/v1/stats")
    async def stats() -> Reply:
        """Return what the network has done since it began, and in the last half hour."""
        found = await figures.totals[pb.FIGURE_WINDOW_ALL].get()
        return Response(shown.of(found, await plane.providers.get()), media_type="application/json")

    @router.get("/v1/me/public-name")
    async def my_public_name(request: Request) -> Reply:
        """Return how the caller appears on boards."""
        caller = await plane.account(request)
        found = await reports.public_name(caller.account_id)
        return reply({"choice": _WORDS[found.choice], "name": found.name})

    @router.put("/v1/me/public-name")
    async def set_public_name(request: Request) -> Reply:
        """Appear under a pseudonym, a chosen name, or not at all."""
        caller = await plane.login(request)
        body = await read_object(request)
        choice = text(body, "choice", longest=16)
        if choice not in _CHOICES:
            raise bad_request("choice must be pseudonym, hidden or chosen", param="choice")
        name = text(body, "name", longest=32) if choice == "chosen" else ""
        await plane.financial(caller)
        try:
            shown = await reports.set_public_name(caller.account_id, _CHOICES[choice], name)
        except InvalidArgumentError as error:
            raise bad_request(f"name {error.message}", param="name") from None
        except ConflictError:
            raise ApiError(409, "conflict", "another account has this name", param="name") from None
        return reply({"choice": choice, "name": shown})

    return router


@final
class _Stats:
    """The page of the network, written once for each time that its figures were read."""

    def __init__(self) -> None:
        self._of: tuple[GetNetworkTotalsResponse, Sequence[Provider]] | None = None
        self._page = b""

    def of(self, found: GetNetworkTotalsResponse, fleet: Sequence[Provider]) -> bytes:
        """Return the body."""
        known = self._of
        if known is None or known[0] is not found or known[1] is not fleet:
            self._of, self._page = (found, fleet), orjson.dumps(_stats(found, fleet))
        return self._page


def _stats(found: GetNetworkTotalsResponse, fleet: Sequence[Provider]) -> dict[str, Any]:
    jobs, tokens = found.work.jobs, found.work.tokens
    here = fleet_figures.online(fleet)
    return {
        "total_requests": jobs,
        "total_prompt_tokens": found.prompt_tokens,
        "total_completion_tokens": found.completion_tokens,
        "total_tokens": tokens,
        "avg_tokens_per_request": tokens // jobs if jobs else 0,
        **fleet_figures.totals(here),
        "providers": fleet_figures.machines(here),
        "models": fleet_figures.models(here),
        "verification_counts": fleet_figures.levels(here),
        "time_series": [
            {
                "minute": tables.instant(minute.minute_time),
                "requests": minute.jobs,
                "prompt_tokens": minute.prompt_tokens,
                "completion_tokens": minute.completion_tokens,
            }
            for minute in found.series
        ],
        "snapshot_at": tables.instant(found.update_time),
    }


def _window(value: str) -> str:
    window = _ALIASES.get(value, value)
    if window not in WINDOWS:
        raise bad_request("window must be 24h, 7d, 30d or all", param="window")
    return window


def _limit(value: str) -> int:
    """Read a limit; what is out of range means the default, as it always has."""
    limit = int(value) if value.isascii() and value.isdigit() and len(value) < len("1000") else 0
    return limit if 1 <= limit <= MAX_BOARD else DEFAULT_BOARD


def _work(work: pb.Work) -> dict[str, Any]:
    return {
        "earnings_micro_usd": work.work_micros + work.reward_micros,
        "work_earnings_micro_usd": work.work_micros,
        "reward_earnings_micro_usd": work.reward_micros,
        "tokens": work.tokens,
        "jobs": work.jobs,
    }
