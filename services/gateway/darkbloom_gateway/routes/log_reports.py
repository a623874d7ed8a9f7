"""Logs that an owner sends in: `POST /v1/provider/log-report`, read by administrators only.

What is in them is never looked at here, and never logged.
"""

from darkbloom_mesh.errors import InvalidArgumentError, MeshError, NotFoundError, OverloadedError
from fastapi import APIRouter, Request, Response

from darkbloom_gateway.billing_identity import IdentityClient
from darkbloom_gateway.errors import ClientGoneError, bad_request, not_found, rate_limited
from darkbloom_gateway.routes.bodies import rfc3339
from darkbloom_gateway.routes.keys import away
from darkbloom_gateway.routes.plane import ControlPlane, Reply, reply
from darkbloom_gateway.wire import read_body

MAX_BYTES = 10 * 1024 * 1024
_IDLE_S = 10.0
_CREATED = 201
_FULL_S = 60.0


def make_router(plane: ControlPlane, identity: IdentityClient) -> APIRouter:
    """Return the routes."""
    router = APIRouter()

    @router.post("/v1/provider/log-report")
    async def send_report(request: Request) -> Reply:
        """Keep a machine's logs for two weeks; the newest three of an account."""
        token = await plane.provider(request)
        await plane.financial(token)
        try:
            content = await read_body(
                request.scope, request.receive, limit=MAX_BYTES, idle_s=_IDLE_S
            )
        except ClientGoneError:
            raise bad_request("the body ended early") from None
        if not content:
            raise bad_request("the report is empty")
        try:
            name, until = await identity.add_log_report(token.account_id, token.token_id, content)
        except OverloadedError:
            raise rate_limited(_FULL_S) from None
        except MeshError as error:
            raise away(error) from None
        return reply({"id": name, "bytes": len(content), "expires_at": rfc3339(until)}, _CREATED)

    @router.get("/v1/admin/log-reports/{report_id}")
    async def read_report(request: Request, report_id: str) -> Reply:
        """Return a report, as bytes that no browser shows."""
        await plane.admin(request)
        try:
            content = await identity.log_report(report_id)
        except (NotFoundError, InvalidArgumentError):
            raise not_found("there is no such log report") from None
        except MeshError as error:
            raise away(error) from None
        return Response(
            content,
            media_type="application/octet-stream",
            headers={
                "cache-control": "no-store",
                "content-disposition": "attachment",
                "x-content-type-options": "nosniff",
            },
        )

    return router
