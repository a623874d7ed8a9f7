"""What a stranger can check: `GET /v1/providers/attestation` and `GET /v1/receipts/keys`."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query

from darkbloom_gateway.ports import PublicKey
from darkbloom_gateway.routes.evidence_shape import base64_text, shape_of
from darkbloom_gateway.routes.plane import ControlPlane, Reply, reply

MAX_PAGE = 200
MAX_PAGE_BYTES = 4 * 1024 * 1024
"""A page ends before it grows beyond this; one machine alone is always shown."""
_DEFAULT_PAGE = 100
_NO_STORE = {"cache-control": "no-store"}
_BRIEFLY = {"cache-control": "public, max-age=5"}


def make_router(plane: ControlPlane) -> APIRouter:
    """Return the routes."""
    router = APIRouter()

    @router.get("/v1/providers/attestation")
    async def list_providers(
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = _DEFAULT_PAGE,
        page_token: Annotated[str, Query(max_length=128)] = "",
        provider_id: Annotated[str, Query(max_length=128)] = "",
    ) -> Reply:
        """Return connected providers with what a stranger can check of each."""
        everybody = sorted(await plane.providers.get(), key=lambda row: row.provider_id)
        wanted = [
            row
            for row in everybody
            if row.provider_id > page_token and provider_id in ("", row.provider_id)
        ]
        page = wanted[:limit]
        evidence = await plane.exhibits.of([row.provider_id for row in page])
        shown = list(_within_bounds(shape_of(row, evidence) for row in page))
        content: dict[str, Any] = {"providers": [orjson.Fragment(entry) for entry in shown]}
        if len(shown) < len(wanted):
            content["next_page_token"] = page[len(shown) - 1].provider_id
        return reply(content, headers=_BRIEFLY)

    @router.get("/v1/receipts/keys")
    async def list_keys() -> Reply:
        """Return the keys against which receipts and verdicts are checked."""
        return reply(
            {
                "issuer": plane.issuer,
                "receipt_keys": _keys(await plane.receipt_keys.get()),
                "verdict_keys": _keys(await plane.verdict_keys.get()),
            },
            headers=_NO_STORE,
        )

    return router


def _within_bounds(entries: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    size = 0
    for entry in entries:
        written = orjson.dumps(entry)
        size += len(written)
        if size > MAX_PAGE_BYTES and size > len(written):
            return
        yield written


def _keys(keys: Sequence[PublicKey]) -> list[dict[str, Any]]:
    return [
        {
            "key_id": key.key_id,
            "algorithm": "Ed25519",
            "public_key": base64_text(key.public_key),
            "created_at": key.created_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            **(
                {"retired_at": key.retired_at.strftime("%Y-%m-%dT%H:%M:%SZ")}
                if key.retired_at is not None
                else {}
            ),
        }
        for key in keys
    ]
