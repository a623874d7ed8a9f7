"""`GET /v1/models[/{id}]`."""

from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, TypeAlias

from darkbloom.router.v1.fleet_pb2 import BuildCapacity, Provider
from fastapi import APIRouter, Query, Request

from darkbloom_gateway.catalog import Build, Catalog, Resolution
from darkbloom_gateway.errors import model_not_allowed, model_not_found, unavailable
from darkbloom_gateway.model import Price
from darkbloom_gateway.ports import PriceList
from darkbloom_gateway.routes import fleet_figures
from darkbloom_gateway.routes.plane import ControlPlane, Reply, reply

SAMPLING = (
    "temperature",
    "top_p",
    "top_k",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
    "stop",
    "seed",
    "max_tokens",
)
_FEATURES = ("tools", "json_mode", "structured_outputs", "logprobs", "web_search", "reasoning")
_OWNER = "darkbloom"
_PER_MILLION = Decimal(1_000_000)
_MICRO = Decimal(1_000_000)
_Live: TypeAlias = tuple[Mapping[str, BuildCapacity], Sequence[Provider]]


def make_router(plane: ControlPlane) -> APIRouter:
    """Return the routes."""
    router = APIRouter()

    @router.get("/v1/models")
    async def list_models(request: Request, include_builds: Annotated[str, Query()] = "") -> Reply:
        """List what the key may call; with self-route what the caller's machines serve."""
        caller = await plane.caller(request)
        own = await plane.own_builds(request, caller)
        catalog = catalog_of(plane)
        rows = [
            row
            for row in catalog.listed(include_builds=include_builds in ("1", "true"))
            if caller.allows(row.name) and _served(row, own)
        ]
        prices, live = await plane.prices.get(), await _live(plane)
        return reply({"object": "list", "data": [_entry(row, prices, live) for row in rows]})

    @router.get("/v1/models/{model_id:path}")
    async def get_model(request: Request, model_id: str) -> Reply:
        """Return one entry, exactly as the list has it."""
        caller = await plane.caller(request)
        if not caller.allows(model_id):
            raise model_not_allowed()
        own = await plane.own_builds(request, caller)
        catalog = catalog_of(plane)
        named = [*catalog.for_marketplaces(), *catalog.listed(include_builds=True)]
        known = {row.name: row for row in named}
        if model_id not in known or not _served(known[model_id], own):
            raise model_not_found()
        prices, live = await plane.prices.get(), await _live(plane)
        return reply(_entry(known[model_id], prices, live))

    return router


def _served(row: Resolution, own: Collection[str] | None) -> bool:
    """Say whether a model is among those asked for; None: all of them."""
    return own is None or row.build.build_id in own or row.fallback_build in own


def catalog_of(plane: ControlPlane) -> Catalog:
    """Return the catalog.

    Raises:
        ApiError: 503 before the first one has come.
    """
    if plane.shelf.catalog is None:
        raise unavailable("the model catalog is not here yet")
    return plane.shelf.catalog


def _per_token(micros: int) -> str:
    """Write a price per 1M tokens in micro-USD as USD per token, in plain decimals."""
    return f"{(Decimal(micros) / _MICRO / _PER_MILLION).normalize():f}"


async def _live(plane: ControlPlane) -> _Live:
    """Return capacity and the machines online; nothing while the router is away."""
    return await plane.capacity_or_nothing(), fleet_figures.online(await plane.fleet_or_nothing())


def price_of(build: Build, prices: PriceList) -> Price:
    """Return what a build costs: its own row, or the fallback."""
    return next((p for p in prices.rows if p.build == build.build_id), prices.fallback)


def pricing(price: Price) -> dict[str, str]:
    """Return USD per token as decimal texts."""
    return {
        "prompt": _per_token(price.input_micros),
        "completion": _per_token(price.output_micros),
        "image": "0",
        "request": "0",
        "input_cache_read": _per_token(price.cache_read_micros),
    }


def modalities(build: Build) -> list[str]:
    """Return what a build reads, in the words of the model list."""
    return ["text", "image"] if "vision" in build.capabilities else ["text"]


def can_accept(row: Resolution, live: Mapping[str, BuildCapacity]) -> bool:
    """Say whether any build behind a name takes a request now."""
    return any(live.get(build, BuildCapacity()).can_accept for build in row.builds)


def features(build: Build) -> list[str]:
    """Return what a build can do beyond text, in the words of the model list."""
    return [name for name in _FEATURES if name in build.capabilities]


def _entry(row: Resolution, prices: PriceList, now: _Live) -> dict[str, Any]:
    build, (capacity, fleet) = row.build, now
    live = capacity.get(build.build_id, BuildCapacity())
    return {
        "id": row.name,
        "object": "model",
        "created": build.created,
        "owned_by": _OWNER,
        "name": row.display_name,
        "hugging_face_id": row.hugging_face_id,
        "description": build.description,
        "input_modalities": modalities(build),
        "output_modalities": ["text"],
        "quantization": build.quantization,
        "context_length": build.max_context_length,
        "max_output_length": build.max_output_length,
        "pricing": pricing(price_of(build, prices)),
        "supported_sampling_parameters": list(SAMPLING),
        "supported_features": features(build),
        **({"deprecation_date": build.deprecation_date} if build.deprecation_date else {}),
        "metadata": {
            "model_type": build.model_type,
            "quantization": build.quantization,
            "display_name": row.display_name,
            "build": build.build_id,
            **fleet_figures.serving(row.builds, fleet),
            "routable_providers": live.routable_providers,
            "warm_providers": live.warm_providers,
            "can_accept": can_accept(row, capacity),
        },
    }
