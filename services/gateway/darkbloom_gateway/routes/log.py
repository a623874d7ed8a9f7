"""The transparency log for strangers: `GET /v1/log/…`."""

from typing import Annotated, Any

from darkbloom.attestation.v1 import log_service_pb2 as pb
from darkbloom_edge.documents import decode_document
from darkbloom_edge.log import LogHead
from darkbloom_edge.merkle import MAX_SIZE, leaf_hash
from darkbloom_mesh.errors import InvalidArgumentError, NotFoundError
from fastapi import APIRouter, Query

from darkbloom_gateway.errors import ApiError, bad_request, not_found
from darkbloom_gateway.routes.evidence_shape import base64_text
from darkbloom_gateway.routes.plane import Reply, reply
from darkbloom_gateway.transparency import TransparencyClient

MAX_PAGE = 1000
DEFAULT_PAGE = 100
_BRIEFLY = {"cache-control": "public, max-age=1"}
# A proof between two sizes that the caller names can never change.
_FOR_EVER = {"cache-control": "public, max-age=31536000, immutable"}

Size = Annotated[int, Query(ge=1, le=MAX_SIZE)]
_PARAMETERS = {
    "start_index": "start",
    "page_size": "limit",
    "log_index": "index",
    "tree_size": "size",
    "first_size": "first",
    "second_size": "second",
}


def make_router(log: TransparencyClient) -> APIRouter:
    """Return the routes."""
    router = APIRouter()

    @router.get("/v1/log/head")
    async def head() -> Reply:
        """Return the log as it is now, signed."""
        signed = (await log.head.get()).head
        read = decode_document(signed.document, LogHead)
        return reply(
            {
                "tree_size": read.tree_size,
                "root_hash": read.root_hash,
                "time": read.time,
                "head": {
                    "document": base64_text(signed.document),
                    "signature": base64_text(signed.signature),
                    "key_id": signed.key_id,
                },
            },
            headers=_BRIEFLY,
        )

    @router.get("/v1/log/entries")
    async def entries(
        start: Annotated[int, Query(ge=0, le=MAX_SIZE)] = 0,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = DEFAULT_PAGE,
        kind: Annotated[str, Query(max_length=32)] = "",
        subject: Annotated[str, Query(max_length=1100)] = "",
    ) -> Reply:
        """Return entries from an index on, or those of one kind, or about one subject."""
        request = pb.ListLogEntriesRequest(
            start_index=start, page_size=limit, kind=kind, subject=subject
        )
        try:
            found = await log.entries(request)
        except InvalidArgumentError as error:
            raise _bad(error) from None
        content: dict[str, Any] = {
            "tree_size": found.tree_size,
            "entries": [
                {
                    "index": entry.log_index,
                    "leaf_hash": leaf_hash(entry.body).hex(),
                    "entry": base64_text(entry.body),
                }
                for entry in found.entries
            ],
        }
        if found.HasField("next_index"):
            content["next"] = found.next_index
        return reply(content, headers=_BRIEFLY)

    _add_proofs(router, log)
    return router


def _add_proofs(router: APIRouter, log: TransparencyClient) -> None:
    @router.get("/v1/log/proof/inclusion")
    async def inclusion(
        index: Annotated[int, Query(ge=0, le=MAX_SIZE)], size: Size | None = None
    ) -> Reply:
        """Prove that an entry is in the log of a size, or of now."""
        try:
            proof = await log.inclusion(index, size or 0)
        except NotFoundError:
            raise not_found("the log has no such entry") from None
        except InvalidArgumentError as error:
            raise _bad(error) from None
        return reply(
            {
                "index": proof.log_index,
                "tree_size": proof.tree_size,
                "leaf_hash": proof.leaf_hash.hex(),
                "root_hash": proof.root_hash.hex(),
                "path": [one.hex() for one in proof.path],
            },
            headers=_FOR_EVER if size else _BRIEFLY,
        )

    @router.get("/v1/log/proof/consistency")
    async def consistency(first: Size, second: Size | None = None) -> Reply:
        """Prove that the log has only grown from one size to another, or to now."""
        try:
            proof = await log.consistency(first, second or 0)
        except NotFoundError:
            raise not_found("the log never had these sizes") from None
        except InvalidArgumentError as error:
            raise _bad(error) from None
        return reply(
            {
                "first_size": proof.first_size,
                "second_size": proof.second_size,
                "first_root_hash": proof.first_root_hash.hex(),
                "second_root_hash": proof.second_root_hash.hex(),
                "path": [one.hex() for one in proof.path],
            },
            headers=_FOR_EVER if second else _BRIEFLY,
        )


def _bad(error: InvalidArgumentError) -> ApiError:
    name = _PARAMETERS.get(error.field or "", error.field or "request")
    return bad_request(f"{name} is not valid", param=name)
