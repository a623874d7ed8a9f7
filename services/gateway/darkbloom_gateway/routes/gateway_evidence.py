"""`GET /v1/gateway/evidence`: what backs the word that the gateway keeps nothing."""

from collections.abc import Mapping
from typing import Annotated, Any

import orjson
from darkbloom_edge.signatures import to_base64
from fastapi import APIRouter, Query, Request

from darkbloom_gateway.confidential.desk import Evidence, EvidenceDesk
from darkbloom_gateway.confidential.quotes import Quote
from darkbloom_gateway.routes.plane import ControlPlane, Reply, reply

ROUTES = frozenset({"/v1/gateway/evidence"})
NEVER_PROVEN: Mapping[str, str] = {
    "key_custody": "the private half of the encryption key comes from a file that the operator "
    "mounts on every gateway: no quote shows that it exists nowhere else",
    "nothing_kept": "that no prompt is written, logged or passed on follows from the code that "
    "runs, never from this answer",
    "other_gateways": "this is the answer of one process: the next request may reach another one",
    "tls_end": "whoever ends your TLS connection is not named here",
}
"""Holds with a quote and without one."""
WITHOUT_QUOTE: Mapping[str, str] = {
    "memory": "whoever runs the machine can read the gateway's memory",
    "software": "version, commit and image digest are the operator's word",
}
WITH_QUOTE: Mapping[str, str] = {
    "quote_signature": "the gateway passes the quote on unread: check its signature and its "
    "platform's state against the maker's roots",
    "measurement": "the quote's launch measurement means something only beside a build of the "
    "machine's image that you have made or trust; version, commit and image digest are the "
    "operator's word",
}
_NO_STORE = {"cache-control": "no-store"}


def make_router(plane: ControlPlane, desk: EvidenceDesk) -> APIRouter:
    """Return the route."""
    router = APIRouter()

    @router.get("/v1/gateway/evidence")
    async def gateway_evidence(
        request: Request, nonce: Annotated[str | None, Query(pattern="^[0-9a-f]{64}$")] = None
    ) -> Reply:
        """Return what this gateway states of itself, and hardware's quote over it or none.

        With a nonce of your own (32 bytes, hex) the answer was made after you asked; without one
        it may be a minute old.
        """
        await plane.stranger(request)
        return reply(_shown(await desk.evidence(nonce)), headers=_NO_STORE)

    return router


def _shown(evidence: Evidence) -> dict[str, Any]:
    signed, quote = evidence.signed, evidence.quote
    open_points = {**(WITHOUT_QUOTE if quote is None else WITH_QUOTE), **NEVER_PROVEN}
    return {
        "statement": orjson.Fragment(signed.document),
        "signed": {
            "document": to_base64(signed.document),
            "signature": to_base64(signed.signature),
            "key_id": signed.key_id,
        },
        "report_data": evidence.report_data.hex(),
        "backing": "none" if quote is None else "platform_quote",
        "quote": None if quote is None else _quoted(quote),
        **({"why_none": evidence.why_none.value} if evidence.why_none is not None else {}),
        "not_proven": [{"what": what, "why": why} for what, why in open_points.items()],
    }


def _quoted(quote: Quote) -> dict[str, Any]:
    return {
        "kind": quote.kind,
        "report": to_base64(quote.report),
        **({"auxiliary": to_base64(quote.auxiliary)} if quote.auxiliary else {}),
    }
