"""`/v1/pricing`: what models cost, and what a provider charges of its own."""

import hashlib
import re
from decimal import Decimal
from typing import Any, Protocol
from uuid import uuid4

from darkbloom.billing.v1.price_service_pb2 import (
    DeletePriceRequest,
    SetPriceRequest,
    SetPriceResponse,
)
from darkbloom.common.v1.error_reason_pb2 import ErrorReason
from darkbloom.common.v1.price_pb2 import PriceRow
from darkbloom_mesh.errors import (
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    OverloadedError,
)
from fastapi import APIRouter, Request

from darkbloom_gateway.billing_programmes import OperatorsClient
from darkbloom_gateway.billing_reports import ReportsClient
from darkbloom_gateway.catalog import Catalog
from darkbloom_gateway.errors import (
    ApiError,
    bad_request,
    model_not_found,
    rate_limited,
    unavailable,
)
from darkbloom_gateway.model import Price
from darkbloom_gateway.ports import PriceList
from darkbloom_gateway.routes.admin import AuditedPrices
from darkbloom_gateway.routes.bodies import Body, integer, read_object, text
from darkbloom_gateway.routes.plane import ControlPlane, Reply, reply

_MAX_PRICE = 10_000_000_000
_MICRO = Decimal(1_000_000)
_KEY = re.compile(r"[\x21-\x7e]{1,128}")
_LIMIT_KEY = "darkbloom-limit-micros"
_MINUTE_S = 60.0


def make_router(
    plane: ControlPlane, reports: ReportsClient, operators: OperatorsClient
) -> APIRouter:
    """Return the routes."""
    router = APIRouter()

    @router.get("/v1/pricing")
    async def list_prices() -> Reply:
        """Return the platform's prices; nobody needs a key to read them.

        An alias is listed at the price of its primary build; a request is settled at the build that
        served.
        """
        return reply(price_list(await plane.prices.get(), plane.shelf.catalog))

    @router.get("/v1/pricing/own")
    async def list_own_prices(request: Request) -> Reply:
        """Return what the caller's machines charge of their own."""
        caller = await plane.account(request)
        found = await reports.own_prices(caller.account_id)
        return reply({"prices": [_row(row, row.build) for row in found.prices]})

    @router.put("/v1/pricing")
    async def set_own_price(request: Request) -> Reply:
        """Set what the caller's machines charge for a model."""
        caller = await plane.account(request)
        return await _set(plane, reports, request, caller.account_id, "updated")

    @router.delete("/v1/pricing")
    async def delete_own_price(request: Request) -> Reply:
        """Go back to the platform's price."""
        caller = await plane.account(request)
        return await _delete(plane, reports, request, caller.account_id)

    @router.put("/v1/admin/pricing")
    async def set_platform_price(request: Request) -> Reply:
        """Set the platform's price of a model."""
        prices = AuditedPrices(operators, await plane.admin(request))
        return await _set(plane, prices, request, "", "platform_default_updated")

    return router


def price_list(prices: PriceList, catalog: Catalog | None) -> dict[str, Any]:
    """Return what models cost: each build, and each name at the price of its primary build."""
    rows = {row.build: row for row in prices.rows}
    listed = [] if catalog is None else catalog.listed()
    # A name may be a build's id, too, and mean another build: what it costs is what that costs.
    taken = {row.name for row in listed if row.name != row.build.build_id}
    aliases = [row for row in listed if row.name in taken or row.name not in rows]
    fallback = prices.fallback
    return {
        "prices": [
            *(_row(row, row.build) for row in prices.rows if row.build not in taken),
            *(
                _row(rows[alias.build.build_id], alias.name)
                for alias in aliases
                if alias.build.build_id in rows
            ),
        ],
        "fallback_input_price": fallback.input_micros,
        "fallback_output_price": fallback.output_micros,
        "fallback_cache_read_price": fallback.cache_read_micros,
        "fallback_input_usd": _usd(fallback.input_micros),
        "fallback_output_usd": _usd(fallback.output_micros),
        "fallback_cache_read_usd": _usd(fallback.cache_read_micros),
    }


class SetsPrices(Protocol):
    """Whoever a price is set through."""

    async def set_price(self, message: SetPriceRequest) -> SetPriceResponse:
        """Set one."""
        ...


async def _set(
    plane: ControlPlane, reports: SetsPrices, request: Request, account_id: str, status: str
) -> Reply:
    body = await read_object(request)
    model = text(body, "model")
    written: PriceRow | None = None
    for build in _builds(plane, model, known=bool(account_id)):
        message = _message(body, build, account_id, _request_id(request, account_id, build))
        try:
            written = (await reports.set_price(message)).price
        except InvalidArgumentError as error:
            raise _refused(error) from None
        except ConflictError:
            raise _conflict() from None
        except OverloadedError:
            raise rate_limited(_MINUTE_S) from None
    if written is None:
        raise model_not_found()
    per = " per 1M tokens"
    row = _row(written, model)
    usd = {name: value + per for name, value in row.items() if name.endswith("_usd")}
    return reply({"status": status, **row, **usd})


async def _delete(
    plane: ControlPlane, reports: ReportsClient, request: Request, account_id: str
) -> Reply:
    model = text(await read_object(request), "model")
    deleted = 0
    for build in _builds(plane, model, known=False):
        request_id = _request_id(request, account_id, build)
        try:
            await reports.delete_price(
                DeletePriceRequest(request_id=request_id, account_id=account_id, build=build)
            )
        except NotFoundError:
            continue
        except InvalidArgumentError as error:
            raise _refused(error) from None
        except ConflictError:
            raise _conflict() from None
        deleted += 1
    if not deleted:
        raise ApiError(404, "not_found", "there is no own price of this model")
    return reply({"status": "deleted", "model": model})


def _builds(plane: ControlPlane, model: str, *, known: bool) -> list[str]:
    """Return the builds behind a name: all of an alias, so that its rows stay equal.

    Raises:
        ApiError: 404 where a provider names nothing that is served; 503 without a catalog.
    """
    catalog = plane.shelf.catalog
    if catalog is None:
        raise unavailable("the model catalog is not here yet")
    named = {row.name: row for row in catalog.listed(include_builds=True)}.get(model)
    if named is not None:
        return list(named.builds)
    if known:
        raise model_not_found()
    return [model]


def _message(body: Body, build: str, account_id: str, request_id: str) -> SetPriceRequest:
    message = SetPriceRequest(
        request_id=request_id,
        account_id=account_id,
        build=build,
        input_micros=integer(body, "input_price", least=1, most=_MAX_PRICE),
        output_micros=integer(body, "output_price", least=1, most=_MAX_PRICE),
    )
    if body.get("cache_read_price") is not None:
        message.cache_read_micros = integer(
            body, "cache_read_price", least=0, most=message.input_micros
        )
    return message


def _request_id(request: Request, account_id: str, build: str) -> str:
    """Return an id that makes a repeated call the same one, if the caller asks for that."""
    key = request.headers.get("idempotency-key", "")
    if key and _KEY.fullmatch(key) is None:
        raise bad_request("Idempotency-Key must be 1 to 128 printable characters")
    # Hashed, so that a long name cannot push the account out of what tells two callers apart.
    named = "\n".join((account_id, build, key or uuid4().hex))
    return f"price:{hashlib.sha256(named.encode()).hexdigest()}"


def _refused(error: InvalidArgumentError) -> ApiError:
    field = (error.field or "model").replace("_micros", "_price")
    field = "model" if field == "build" else field
    if error.reason != ErrorReason.ERROR_REASON_PRICE_TOO_HIGH:
        return bad_request(f"{field} is not valid", param=field)
    limit = int(error.metadata[_LIMIT_KEY])
    return ApiError(
        400,
        "invalid_request_error",
        f"{field} is at most {limit}, four times the platform's price",
        code="price_too_high",
        param=field,
        facts={"limit": limit},
    )


def _conflict() -> ApiError:
    return ApiError(409, "conflict", "this Idempotency-Key came before with another request")


def _row(row: Price | PriceRow, model: str) -> dict[str, Any]:
    return {
        "model": model,
        "input_price": row.input_micros,
        "output_price": row.output_micros,
        "cache_read_price": row.cache_read_micros,
        "input_usd": _usd(row.input_micros),
        "output_usd": _usd(row.output_micros),
        "cache_read_usd": _usd(row.cache_read_micros),
    }


def _usd(micros: int) -> str:
    return f"${Decimal(micros) / _MICRO:.4f}"
