"""`POST /v1/mdm/webhook`: what devices answer their manager, passed on raw to attestation."""

from collections.abc import Awaitable, Callable

from darkbloom_edge.apple.mdm_webhook import MAX_WEBHOOK_BYTES, secret_matches
from darkbloom_mesh.config import Secret
from fastapi import APIRouter, Request

from darkbloom_gateway.errors import ApiError, ClientGoneError, bad_request
from darkbloom_gateway.routes.plane import Reply, reply
from darkbloom_gateway.wire import read_body

ROUTES = frozenset({"/v1/mdm/webhook"})
SECRET_HEADER = "x-webhook-token"  # noqa: S105 - the name of a header
"""Carries the secret; never the address, which proxies would log."""
_IDLE_S = 10.0
_FORBIDDEN, _TOO_LARGE = 403, 413


def make_router(record: Callable[[bytes], Awaitable[None]], secret: Secret | None) -> APIRouter:
    """Return the route.

    Args:
        record: hands a report to attestation, which drops what it did not ask for.
        secret: shared with the device manager; None refuses everybody.
    """
    router = APIRouter()

    @router.post("/v1/mdm/webhook")
    async def webhook(request: Request) -> Reply:
        """Check the secret before the body is read; what is dropped is a success as well."""
        presented = request.headers.get(SECRET_HEADER, "")
        if secret is None or not secret_matches(presented, secret.reveal()):
            raise ApiError(_FORBIDDEN, "permission_error", "the webhook's secret is wrong")
        try:
            body = await read_body(
                request.scope, request.receive, limit=MAX_WEBHOOK_BYTES, idle_s=_IDLE_S
            )
        except ClientGoneError:
            raise bad_request("the body ended early") from None
        except ApiError as error:
            if error.http_status != _TOO_LARGE:
                raise
            raise bad_request("the report is too large") from None
        await record(body)
        return reply({"received": True})

    return router
