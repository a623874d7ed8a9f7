"""Receipts that were made: `GET /v1/receipts/{id}`, for 90 days, for the account that asked."""

from typing import Any

import orjson
from darkbloom.billing.v1 import receipt_service_pb2 as pb
from darkbloom_edge.receipt import build_receipt
from darkbloom_mesh.errors import InvalidArgumentError, NotFoundError
from fastapi import APIRouter, Request

from darkbloom_gateway.errors import not_found
from darkbloom_gateway.routes import tables
from darkbloom_gateway.routes.plane import ControlPlane, Reply, reply
from darkbloom_gateway.transparency import TransparencyClient

_PRIVATE = {"cache-control": "private, no-store"}


def make_router(plane: ControlPlane, receipts: TransparencyClient) -> APIRouter:
    """Return the routes."""
    router = APIRouter()

    @router.get("/v1/receipts/{name}")
    async def read_receipt(request: Request, name: str) -> Reply:
        """Return a receipt of the caller by its request or attempt, without the receipt key.

        The key came with the answer and was kept nowhere.
        """
        caller = await plane.account(request)
        try:
            found = await receipts.receipt(caller.account_id, name)
        except (NotFoundError, InvalidArgumentError):
            raise not_found("there is no such receipt") from None
        record = found.record
        receipt = build_receipt(
            receipt_key=None,
            terminal=record.terminal.document,
            terminal_signature=record.terminal.signature,
            identity_key=record.identity_key,
            verdict=record.verdict.document,
            verdict_signature=record.verdict.signature,
            verdict_key_id=record.verdict.key_id,
            countersign=record.countersign.document,
            countersign_signature=record.countersign.signature,
            gateway_key_id=record.countersign.key_id,
        )
        content = {
            "request_id": record.request_id,
            "recorded_at": tables.instant(found.record_time),
            "expires_at": tables.instant(found.expire_time),
            "receipt": orjson.Fragment(receipt),
            "anchor": _anchor(found.anchor) if found.HasField("anchor") else None,
        }
        return reply(content, headers=_PRIVATE)

    return router


def _anchor(anchor: pb.ReceiptAnchor) -> dict[str, Any]:
    return {
        "batch": anchor.batch_id,
        "index": anchor.index,
        "size": anchor.size,
        "path": [one.hex() for one in anchor.path],
        "root_hash": anchor.root_hash.hex(),
        "log_index": anchor.log_index,
    }
