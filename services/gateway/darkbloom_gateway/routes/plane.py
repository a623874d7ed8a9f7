"""What the control plane's routes share."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import orjson
from darkbloom.router.v1.fleet_pb2 import BuildCapacity, Provider
from fastapi import Request, Response

from darkbloom_gateway.auth import Authenticator
from darkbloom_gateway.cached import Cached
from darkbloom_gateway.errors import ApiError
from darkbloom_gateway.gate import Gate
from darkbloom_gateway.model import KeyRecord
from darkbloom_gateway.ports import Billing, PriceList, PublicKey
from darkbloom_gateway.stage import CatalogShelf

Reply: TypeAlias = Response


class ControlPlane:
    """Collaborators of the routes; reads of other rooms are cached so that nobody can flood them.

    Attributes:
        health_reason: says why this worker is not ready, or nothing.
    """

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        billing: Billing,
        shelf: CatalogShelf,
        gate: Gate,
        prices: Cached[PriceList],
        providers: Cached[Sequence[Provider]],
        capacity: Cached[dict[str, BuildCapacity]],
        verdict_keys: Cached[Sequence[PublicKey]],
        receipt_keys: Cached[Sequence[PublicKey]],
        issuer: str,
        version: str,
        commit: str,
    ) -> None:
        self._authenticator = authenticator
        self.billing = billing
        self.shelf = shelf
        self.gate = gate
        self.prices = prices
        self.providers = providers
        self._capacity = capacity
        self.verdict_keys = verdict_keys
        self.receipt_keys = receipt_keys
        self.issuer = issuer
        self.version = version
        self.commit = commit

    async def caller(self, request: Request) -> KeyRecord:
        """Return the key of a request.

        Raises:
            ApiError: 401 or 503.
        """
        given = request.headers.get("authorization")
        return await self._authenticator.authenticate(
            given.encode("latin-1") if given is not None else None
        )

    async def capacity_or_nothing(self) -> Mapping[str, BuildCapacity]:
        """Return live capacity; empty while the router is away, because lists must still work."""
        try:
            return await self._capacity.get()
        except ApiError:
            return {}


def reply(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """Return a JSON response."""
    return Response(
        orjson.dumps(content),
        status_code=status,
        headers=dict(headers or {}),
        media_type="application/json",
    )
