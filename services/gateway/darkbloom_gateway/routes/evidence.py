"""What a stranger can check: `GET /v1/providers/attestation` and `GET /v1/receipts/keys`."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, final

import orjson
from darkbloom.router.v1.fleet_pb2 import Provider
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
    router, order = APIRouter(), _Order()

    @router.get("/v1/providers/attestation")
    async def list_providers(
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = _DEFAULT_PAGE,
        page_token: Annotated[str, Query(max_length=128)] = "",
        provider_id: Annotated[str, Query(max_length=128)] = "",
    ) -> Reply:
        """Return connected providers with what a stranger can check of each."""
        names, rows = order.of(await plane.providers.get())
        begin, end = bisect_right(names, page_token), len(names)
        if provider_id:
            begin = max(begin, bisect_left(names, provider_id))
            end = min(end, bisect_right(names, provider_id))
        page = rows[begin : min(end, begin + limit)]
        evidence = await plane.exhibits.of([row.provider_id for row in page])
        shown = list(_within_bounds(shape_of(row, evidence) for row in page))
        content: dict[str, Any] = {"providers": [orjson.Fragment(entry) for entry in shown]}
        if len(shown) < end - begin:
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


@final
class _Order:
    """The fleet by provider id, sorted once for each time it was read."""

    def __init__(self) -> None:
        self._read: Sequence[Provider] = ()
        self._sorted: tuple[list[str], list[Provider]] = ([], [])

    def of(self, fleet: Sequence[Provider]) -> tuple[list[str], list[Provider]]:
        """Return ids and rows, both in the order of the ids."""
        if fleet is not self._read:
            rows = sorted(fleet, key=lambda row: row.provider_id)
            self._read, self._sorted = fleet, ([row.provider_id for row in rows], rows)
        return self._sorted


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
