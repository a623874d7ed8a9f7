"""`POST /v1/enroll`: the device management profile that a Mac's owner installs."""

from collections.abc import Callable

from darkbloom_edge.apple.enrolment import (
    CONTENT_TYPE,
    FILE_NAME,
    EnrolmentSettings,
    enrolment_profile,
)
from fastapi import APIRouter, Request, Response

from darkbloom_gateway.errors import ApiError
from darkbloom_gateway.routes.plane import ControlPlane, Reply

ROUTES = frozenset({"/v1/enroll"})
_ENTROPY_BYTES = 16


def make_router(
    plane: ControlPlane, settings: EnrolmentSettings | None, *, entropy: Callable[[int], bytes]
) -> APIRouter:
    """Return the route.

    Args:
        plane: limits of strangers.
        settings: where Macs enrol; None where they do not. Never from the request: a profile that
            names the caller's `Host` would carry our name to somebody else's server.
        entropy: random bytes of this size.
    """
    router = APIRouter()

    @router.post("/v1/enroll")
    async def enroll(request: Request) -> Reply:
        """Return a profile; whatever the body says is not read."""
        await plane.stranger(request)
        if settings is None:
            raise ApiError(503, "enrolment_unavailable", "this network does not manage machines")
        return Response(
            enrolment_profile(settings, entropy(_ENTROPY_BYTES)),
            media_type=CONTENT_TYPE,
            headers={
                "content-disposition": f'attachment; filename="{FILE_NAME}"',
                "cache-control": "no-store",
            },
        )

    return router
