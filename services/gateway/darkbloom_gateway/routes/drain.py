"""`/v1/admin/drain`: close inference at every gateway, and open it again."""

import structlog
from fastapi import APIRouter, Request

from darkbloom_gateway.errors import ApiError
from darkbloom_gateway.fleet_drain import FleetDrain
from darkbloom_gateway.routes.bodies import flag, only, read_object
from darkbloom_gateway.routes.plane import ControlPlane, Reply, reply

_log = structlog.get_logger()


def make_router(plane: ControlPlane, drain: FleetDrain) -> APIRouter:
    """Return the routes.

    Args:
        plane: collaborators.
        drain: the switch.
    """
    router = APIRouter()

    @router.get("/v1/admin/drain")
    async def read_drain(request: Request) -> Reply:
        """Say whether inference is closed, and how much this worker still answers.

        While the store is away, `draining` is what this worker heard last and goes by.
        """
        await plane.admin(request)
        await drain.follow()
        return _state(plane)

    @router.post("/v1/admin/drain")
    async def set_drain(request: Request) -> Reply:
        """Close inference at every gateway in about a second, or open it again.

        New requests are 429 with Retry-After; running answers go on; nothing else is closed.
        """
        caller = await plane.admin(request)
        body = await read_object(request, empty=True)
        only(body, "draining")
        draining = flag(body, "draining", default=True)
        try:
            await drain.set(draining=draining)
        except ApiError:
            # It may have been heard: whose it was must be found all the same.
            _log.warning("drain_not_confirmed", account_id=caller.account_id, draining=draining)
            raise
        _log.info("drain_set", account_id=caller.account_id, draining=draining)
        return _state(plane)

    return router


def _state(plane: ControlPlane) -> Reply:
    # A gateway that leaves by itself says nothing of the others.
    return reply({"draining": plane.gate.paused, "inflight": plane.gate.inflight})
