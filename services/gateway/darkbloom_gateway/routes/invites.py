"""`POST /v1/invite/redeem`."""

from fastapi import APIRouter, Request

from darkbloom_gateway.billing_programmes import ProgrammesClient
from darkbloom_gateway.errors import not_found
from darkbloom_gateway.routes.bodies import read_object, text, usd2, usd6
from darkbloom_gateway.routes.plane import ControlPlane, Reply, reply
from darkbloom_gateway.routes.programmes import asked


def make_router(plane: ControlPlane, programmes: ProgrammesClient) -> APIRouter:
    """Return the route."""
    router = APIRouter()

    @router.post("/v1/invite/redeem")
    async def redeem(request: Request) -> Reply:
        """Use an invite; 404 where there is none, 400 where it is not for this account now."""
        caller = await plane.account(request)
        code = text(await read_object(request), "code")
        await plane.financial(caller)
        credited, balance = await asked(
            programmes.redeem(caller.account_id, code), missing=not_found("there is no such invite")
        )
        return reply({"credited_usd": usd2(credited), "balance_usd": usd6(balance)})

    return router
