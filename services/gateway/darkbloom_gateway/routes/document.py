"""`GET /openapi.json`: the document of this very application."""

from collections.abc import Callable
from typing import Any

import orjson
from fastapi import APIRouter, Response

ROUTES = frozenset({"/openapi.json"})


def make_router(describe: Callable[[], dict[str, Any]]) -> APIRouter:
    """Return the route.

    Args:
        describe: makes the document; called once, when somebody first asks.
    """
    router = APIRouter()
    made: list[bytes] = []

    @router.get("/openapi.json")
    async def document() -> Response:
        """Return this document."""
        if not made:
            made.append(orjson.dumps(describe()))
        headers = {"cache-control": "public, max-age=300"}
        return Response(made[0], media_type="application/json", headers=headers)

    return router
