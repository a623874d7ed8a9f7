"""`GET /v1/encryption-key`: what sealed requests are sealed to."""

import base64
from typing import Any

from darkbloom_edge.documents import rfc3339
from darkbloom_edge.sealed_request import FRAMED_TYPE, PLAIN_TYPE
from darkbloom_edge.sealing_keys import SealingKey
from fastapi import APIRouter

from darkbloom_gateway.errors import encryption_unavailable
from darkbloom_gateway.routes.plane import Reply, reply
from darkbloom_gateway.sealing_ring import SealingRing

ROUTES = frozenset({"/v1/encryption-key"})
_ALGORITHM = "x25519-nacl-box"
_FIVE_MINUTES = {"cache-control": "public, max-age=300"}


def make_router(ring: SealingRing) -> APIRouter:
    """Return the route."""
    router = APIRouter()

    @router.get("/v1/encryption-key")
    async def encryption_key() -> Reply:
        """Return the key to seal to, and those that are still accepted."""
        current, previous = ring.published()
        if current is None:
            raise encryption_unavailable()
        content = {
            **_shown(current),
            "media_types": [PLAIN_TYPE.decode(), FRAMED_TYPE.decode()],
            "previous": [_shown(key) for key in previous],
        }
        return reply(content, headers=_FIVE_MINUTES)

    return router


def _shown(key: SealingKey) -> dict[str, Any]:
    return {
        "kid": key.kid,
        "public_key": base64.b64encode(key.pair.public).decode("ascii"),
        "algorithm": _ALGORITHM,
        **({"not_after": rfc3339(key.until)} if key.until is not None else {}),
    }
