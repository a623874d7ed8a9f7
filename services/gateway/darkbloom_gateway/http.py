"""The application: the token path mounted in FastAPI, which carries the control plane."""

from collections.abc import Callable, Mapping

from darkbloom_edge.dialects.chat import CHAT
from darkbloom_edge.dialects.completions import COMPLETIONS
from darkbloom_edge.dialects.dialect import Dialect
from darkbloom_edge.dialects.messages import MESSAGES
from darkbloom_edge.dialects.responses import RESPONSES
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.telemetry import TelemetryConfig
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from darkbloom_gateway.console import routes as console
from darkbloom_gateway.counting import COUNT_PATH
from darkbloom_gateway.end_to_end.answering import ANSWER_PATH, DECLINE_PATH
from darkbloom_gateway.end_to_end.asking import OFFERS_PATH
from darkbloom_gateway.envelopes import error_body
from darkbloom_gateway.errors import (
    ApiError,
    bad_request,
    internal,
    method_not_allowed,
    no_such_endpoint,
)
from darkbloom_gateway.openapi.document import describe
from darkbloom_gateway.routes import (
    capacity,
    document,
    encryption,
    enrolment,
    evidence,
    gateway_evidence,
    health,
    install,
    mdm,
    models,
    pages,
    payouts,
    stripe,
    version,
)
from darkbloom_gateway.routes.plane import ControlPlane
from darkbloom_gateway.wire import App, error_headers

DIALECTS: Mapping[str, Dialect] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": COMPLETIONS,
    "/v1/messages": MESSAGES,
    "/v1/responses": RESPONSES,
}
"""The inference endpoints by path."""


def endpoint_word(path: str) -> str:
    """Return the word of an inference endpoint in metrics, such as `chat_completions`."""
    return path.removeprefix("/v1/").replace("/", "_")


ROUTES = frozenset(
    {
        *DIALECTS,
        COUNT_PATH,
        OFFERS_PATH,
        ANSWER_PATH,
        DECLINE_PATH,
        "/v1/models",
        "/v1/pricing",
        "/v1/payments/balance",
        "/v1/payments/usage",
        "/v1/payments/ledger",
        "/v1/pricing/own",
        "/v1/admin/pricing",
        "/v1/admin/credit",
        "/v1/admin/reward",
        "/v1/admin/users/role",
        "/v1/admin/users/platform-fee",
        "/v1/admin/invite-codes",
        "/v1/invite/redeem",
        "/v1/referral/apply",
        "/v1/referral/info",
        "/v1/referral/register",
        "/v1/referral/stats",
        "/v1/provider/account-earnings",
        "/v1/me/earnings",
        "/v1/me/insights",
        "/v1/me/summary",
        "/v1/me/providers",
        "/v1/provider/earnings-summary",
        "/v1/me/export",
        "/v1/me/public-name",
        "/v1/leaderboard",
        "/v1/network/totals",
        "/v1/stats",
        "/v1/providers/attestation",
        "/v1/receipts",
        "/v1/receipts/keys",
        "/v1/log/head",
        "/v1/log/entries",
        "/v1/log/proof/inclusion",
        "/v1/log/proof/consistency",
        "/v1/releases",
        "/v1/releases/latest",
        "/v1/runtime/manifest",
        "/v1/key",
        "/v1/keys",
        "/v1/auth/keys",
        "/v1/device/approve",
        "/v1/device/code",
        "/v1/device/token",
        "/v1/me",
        "/v1/me/tokens",
        "/v1/provider/link",
        "/v1/provider/link/challenge",
        "/v1/provider/token",
        "/v1/provider/log-report",
        "/v1/admin/log-reports",
        "/health",
        "/readyz",
        *install.ROUTES,
        *capacity.ROUTES,
        *document.ROUTES,
        *pages.ROUTES,
        *version.ROUTES,
        *encryption.ROUTES,
        *gateway_evidence.ROUTES,
        *enrolment.ROUTES,
        *mdm.ROUTES,
        *stripe.ROUTES,
        *payouts.ROUTES,
        *console.ROUTES,
    }
)
"""Paths that metrics may name."""
_NOT_FOUND, _METHOD = 404, 405
_OWN_TELEMETRY_ONLY: TelemetryConfig = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}
"""The framework would send paths, queries and messages of exceptions to the collector."""


def make_app(
    hot: Mapping[tuple[str, str], App],
    plane: ControlPlane,
    health_reason: Callable[[], str | None],
    *routers: APIRouter,
) -> FastAPI:
    """Return the application without its shell.

    Args:
        hot: the token path by method and path.
        plane: collaborators of the other routes.
        health_reason: says why this worker cannot serve, or nothing.
        routers: more routes, wired by the caller.
    """
    app = FastAPI(
        title="Darkbloom",
        version=plane.version,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        telemetry=_OWN_TELEMETRY_ONLY,
    )
    # A class instance is an ASGI application to Starlette: no request object, no response object.
    for (method, path), endpoint in hot.items():
        app.router.routes.append(Route(path, endpoint=endpoint, methods=[method]))
    # Before the models: their ids are paths, and `catalog` would be one of them.
    app.include_router(install.make_router(plane))
    app.include_router(capacity.make_router(plane))
    app.include_router(models.make_router(plane))
    app.include_router(evidence.make_router(plane))
    app.include_router(health.make_router(plane, health_reason))
    app.include_router(pages.make_router())
    for router in routers:
        app.include_router(router)
    app.include_router(
        document.make_router(lambda: describe(app.routes, hot.keys(), version=plane.version))
    )

    @app.exception_handler(ApiError)
    async def on_api_error(request: Request, error: ApiError) -> Response:
        return _error(request, error)

    @app.exception_handler(HTTPException)
    async def on_http_error(request: Request, error: HTTPException) -> Response:
        if error.status_code == _METHOD:
            return _error(request, method_not_allowed(_allowed(app, request)))
        return _error(
            request, no_such_endpoint() if error.status_code == _NOT_FOUND else internal()
        )

    @app.exception_handler(RequestValidationError)
    async def on_bad_parameter(request: Request, error: RequestValidationError) -> Response:
        # The library's text quotes the value, so only the name is taken from it.
        fault = error.errors()[0] if error.errors() else {}
        name = str((fault.get("loc") or ("",))[-1])
        return _error(request, bad_request(f"{name} is not valid", param=name))

    @app.exception_handler(Exception)
    async def on_fault(request: Request, _cause: Exception) -> Response:
        return _error(request, internal())

    return app


def _allowed(app: FastAPI, request: Request) -> str:
    """Return the methods of a path: it may have a route for each of them."""
    names = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
    scope = request.scope
    return ", ".join(
        name
        for name in names
        if any(
            route.matches({**scope, "method": name})[0] is Match.FULL for route in app.router.routes
        )
    )


def _error(request: Request, error: ApiError) -> Response:
    body = error_body(error, request.url.path)
    response = Response(body, error.http_status, media_type="application/json")
    for name, value in error_headers(error):
        response.headers[name.decode("ascii")] = value.decode("ascii")
    return response
