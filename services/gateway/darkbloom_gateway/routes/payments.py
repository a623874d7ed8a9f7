"""`GET /v1/payments/balance` and `GET /v1/payments/usage`."""

from typing import Annotated, Any

from darkbloom_mesh.errors import InvalidArgumentError, MeshError
from fastapi import APIRouter, Query, Request

from darkbloom_gateway.errors import ApiError, bad_request, unavailable
from darkbloom_gateway.ports import UsageRow
from darkbloom_gateway.routes.plane import ControlPlane, Reply, reply

DEFAULT_PAGE = 100
MAX_PAGE = 1000
_MICRO = 1_000_000


def make_router(plane: ControlPlane) -> APIRouter:
    """Return the routes."""
    router = APIRouter()

    @router.get("/v1/payments/balance")
    async def get_balance(request: Request) -> Reply:
        """Return what the caller's account can spend and withdraw."""
        caller = await plane.account(request)
        try:
            money = await plane.billing.balance(caller.account_id)
        except MeshError as error:
            raise _away(error) from None
        return reply(
            {
                "balance_micro_usd": money.balance_micros,
                "balance_usd": _usd(money.balance_micros),
                "withdrawable_micro_usd": money.withdrawable_micros,
                "withdrawable_usd": _usd(money.withdrawable_micros),
            }
        )

    @router.get("/v1/payments/usage")
    async def list_usage(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = DEFAULT_PAGE,
        page_token: Annotated[str, Query(max_length=512)] = "",
    ) -> Reply:
        """Return a page of charged requests, newest first."""
        caller = await plane.account(request)
        try:
            rows, following = await plane.billing.usage(caller.account_id, limit, page_token)
        except InvalidArgumentError:
            raise bad_request("page_token is not one of ours", param="page_token") from None
        except MeshError as error:
            raise _away(error) from None
        content: dict[str, Any] = {"usage": [_row(row) for row in rows]}
        if following:
            content["next_page_token"] = following
        return reply(content)

    return router


def _away(error: MeshError) -> ApiError:
    return error if isinstance(error, ApiError) else unavailable()


def _usd(micros: int) -> str:
    """Write micro-USD as dollars with six decimals, without going through a float."""
    sign = "-" if micros < 0 else ""
    return f"{sign}{abs(micros) // _MICRO}.{abs(micros) % _MICRO:06d}"


def _row(row: UsageRow) -> dict[str, Any]:
    return {
        "job_id": row.job_id,
        "model": row.model,
        "prompt_tokens": row.prompt_tokens,
        "cached_tokens": row.cached_tokens,
        "completion_tokens": row.completion_tokens,
        "cost_micro_usd": row.cost_micros,
        "timestamp": row.settled_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }
