"""`/v1/referral/*`: an account's own code, its referrer, and what that brought."""

from datetime import UTC

from fastapi import APIRouter, Request

from darkbloom_gateway.billing_programmes import ProgrammesClient
from darkbloom_gateway.errors import ApiError, unavailable
from darkbloom_gateway.routes.bodies import read_object, rfc3339, text, usd6
from darkbloom_gateway.routes.plane import ControlPlane, Reply, reply
from darkbloom_gateway.routes.programmes import asked

_KIND = "referral_error"


def make_router(plane: ControlPlane, programmes: ProgrammesClient) -> APIRouter:
    """Return the routes."""
    router = APIRouter()

    @router.post("/v1/referral/register")
    async def register(request: Request) -> Reply:
        """Choose the account's code; one that has a code gets that one back."""
        caller = await plane.account(request)
        wanted = text(await read_object(request), "code")
        await plane.financial(caller)
        code, share = await asked(
            programmes.register(caller.account_id, wanted), missing=unavailable(), kind=_KIND
        )
        return reply(
            {
                "code": code,
                "share_percent": share,
                "message": f"share {code}: you get {share} % of what referred accounts spend of "
                "purchased credit, within the programme's caps, after 30 days",
            }
        )

    @router.post("/v1/referral/apply")
    async def apply(request: Request) -> Reply:
        """Name the account's referrer, for ever."""
        caller = await plane.account(request)
        wanted = text(await read_object(request), "code")
        await plane.financial(caller)
        code = await asked(
            programmes.apply(caller.account_id, wanted),
            missing=ApiError(404, _KIND, "there is no such referral code"),
            kind=_KIND,
        )
        return reply({"status": "applied", "code": code})

    @router.get("/v1/referral/info")
    async def info(request: Request) -> Reply:
        """Return code and referrer; both empty before there are any."""
        caller = await plane.account(request)
        view = await asked(
            programmes.referral(caller.account_id), missing=unavailable(), kind=_KIND
        )
        return reply(
            {
                "code": view.code,
                "share_percent": view.share_percent,
                "referred_by": view.referred_by,
            }
        )

    @router.get("/v1/referral/stats")
    async def stats(request: Request) -> Reply:
        """Return what the code brought; 404 until there is one."""
        caller = await plane.account(request)
        view = await asked(
            programmes.referral(caller.account_id), missing=unavailable(), kind=_KIND
        )
        if not view.code:
            raise ApiError(404, _KIND, "this account has no referral code yet")
        money = await asked(plane.billing.balance(caller.account_id), missing=unavailable())
        content = {
            "code": view.code,
            "share_percent": view.share_percent,
            "total_referred": view.referred_count,
            "total_referred_spend_micro_usd": view.qualifying_micros,
            "total_rewards_micro_usd": view.reward_micros,
            "total_rewards_usd": usd6(view.reward_micros),
            "maturing_micro_usd": view.maturing_micros,
            "balance_micro_usd": money.balance_micros,
            "balance_usd": usd6(money.balance_micros),
        }
        if view.HasField("next_mature_time"):
            content["next_matures_at"] = rfc3339(view.next_mature_time.ToDatetime(UTC))
        return reply(content)

    return router
