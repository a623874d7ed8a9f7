"""`GET /health` and `GET /readyz`."""

from collections.abc import Callable

from fastapi import APIRouter

from darkbloom_gateway.routes.plane import ControlPlane, Reply, reply


def make_router(plane: ControlPlane, health_reason: Callable[[], str | None]) -> APIRouter:
    """Return the routes.

    Args:
        plane: collaborators.
        health_reason: says why this worker cannot serve, or nothing.
    """
    router = APIRouter()

    @router.get("/health")
    async def health() -> Reply:
        """Say that the process lives."""
        content = {"status": "ok", "version": plane.version, "build_commit": plane.commit}
        return reply({**content, "draining": plane.gate.draining})

    @router.get("/readyz")
    async def readyz() -> Reply:
        """Say whether new requests should come here.

        While operators have closed inference everywhere, they should: without a ready gateway
        clients would get broken connections instead of a 429 that says when to come again.
        """
        reason = "draining" if plane.gate.leaving else health_reason()
        content = {
            "draining": plane.gate.draining,
            "inflight": plane.gate.inflight,
            "ready": reason is None,
            **({"health_reason": reason} if reason is not None else {}),
        }
        return reply(content, status=200 if reason is None else 503)

    return router
