"""`GET /v1/models/capacity` for everybody, and the feed of model marketplaces."""

from typing import Any

from darkbloom.router.v1.fleet_pb2 import BuildCapacity
from fastapi import APIRouter, Request

from darkbloom_gateway.catalog import Resolution
from darkbloom_gateway.ports import PriceList
from darkbloom_gateway.routes import fleet_figures
from darkbloom_gateway.routes.models import (
    SAMPLING,
    can_accept,
    catalog_of,
    features,
    modalities,
    price_of,
    pricing,
)
from darkbloom_gateway.routes.plane import ControlPlane, Reply, reply

ROUTES = frozenset({"/v1/models/capacity", "/v1/models/openrouter"})
_BRIEFLY = {"cache-control": "public, max-age=2"}


def make_router(plane: ControlPlane) -> APIRouter:
    """Return the routes."""
    router = APIRouter()

    @router.get("/v1/models/capacity")
    async def capacity() -> Reply:
        """Return what each model can take at the moment."""
        catalog = catalog_of(plane)
        live = await plane.capacity.get()
        fleet = fleet_figures.online(await plane.providers.get())
        rows = [
            fleet_figures.capacity_row(
                row.name,
                row.build.build_id,
                live.get(row.build.build_id, BuildCapacity()),
                fleet,
            )
            for row in catalog.listed()
        ]
        return reply({"models": rows}, headers=_BRIEFLY)

    @router.get("/v1/models/openrouter")
    async def feed(request: Request) -> Reply:
        """List the models as marketplaces read them."""
        caller = await plane.caller(request)
        catalog = catalog_of(plane)
        named = [*catalog.listed(), *catalog.for_marketplaces()]
        rows = [row for row in named if caller.allows(row.name)]
        prices, live = await plane.prices.get(), await plane.capacity_or_nothing()
        return reply({"data": [_entry(row, prices, ready=can_accept(row, live)) for row in rows]})

    return router


def _entry(row: Resolution, prices: PriceList, *, ready: bool) -> dict[str, Any]:
    build = row.build
    optional: dict[str, Any] = {
        "hugging_face_id": row.hugging_face_id,
        "openrouter": {"slug": row.marketplace_slug} if row.marketplace_slug else None,
        "quantization": build.quantization,
        "description": build.description,
        "deprecation_date": build.deprecation_date,
    }
    return {
        "id": row.name,
        "name": row.display_name,
        "created": build.created,
        "input_modalities": modalities(build),
        "output_modalities": ["text"],
        "context_length": build.max_context_length,
        "max_output_length": build.max_output_length,
        "pricing": pricing(price_of(build, prices)),
        "supported_sampling_parameters": list(SAMPLING),
        "supported_features": features(build),
        "is_ready": ready,
        "datacenters": [],
        **{name: value for name, value in optional.items() if value},
    }
