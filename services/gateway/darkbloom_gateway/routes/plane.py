"""What the control plane's routes share."""

import hmac
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import orjson
from darkbloom.router.v1.fleet_pb2 import BuildCapacity, Provider
from fastapi import Request, Response

from darkbloom_gateway.auth import Authenticator
from darkbloom_gateway.cached import Cached
from darkbloom_gateway.errors import ApiError, forbidden
from darkbloom_gateway.exhibits import Exhibits
from darkbloom_gateway.gate import Gate
from darkbloom_gateway.guards import Guards
from darkbloom_gateway.install import Manifests
from darkbloom_gateway.keys import Credential, Kind
from darkbloom_gateway.model import ADMIN_ACCOUNT, Caller, ProviderToken
from darkbloom_gateway.owners import Owners
from darkbloom_gateway.ports import Billing, PriceList, PublicKey
from darkbloom_gateway.self_route import Route, read_route
from darkbloom_gateway.stage import CatalogShelf
from darkbloom_gateway.standings import Standings
from darkbloom_gateway.wire import forwarded_for

Reply: TypeAlias = Response
_UNAUTHENTICATED = 401


class HasAccount(Protocol):
    """Whoever acts for an account."""

    @property
    def account_id(self) -> str:
        """The account."""
        ...


class ControlPlane:
    """Collaborators of the routes; reads of other rooms are cached so that nobody can flood them.

    Attributes:
        health_reason: says why this worker is not ready, or nothing.
    """

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        guards: Guards,
        billing: Billing,
        shelf: CatalogShelf,
        gate: Gate,
        prices: Cached[PriceList],
        providers: Cached[Sequence[Provider]],
        machines: Cached[Sequence[Provider]],
        owners: Owners,
        capacity: Cached[dict[str, BuildCapacity]],
        verdict_keys: Cached[Sequence[PublicKey]],
        receipt_keys: Cached[Sequence[PublicKey]],
        exhibits: Exhibits,
        standings: Standings,
        manifests: Manifests,
        models_url: str,
        source_key: bytes,
        issuer: str,
        version: str,
        commit: str,
    ) -> None:
        self._authenticator = authenticator
        self._guards = guards
        self.billing = billing
        self.shelf = shelf
        self.gate = gate
        self.prices = prices
        self.providers = providers
        self.machines = machines
        self._owners = owners
        self.capacity = capacity
        self.verdict_keys = verdict_keys
        self.receipt_keys = receipt_keys
        self.exhibits = exhibits
        self.standings = standings
        self.manifests = manifests
        self.models_url = models_url
        self._source_key = source_key
        self.issuer = issuer
        self.version = version
        self.commit = commit

    async def caller(self, request: Request) -> Caller:
        """Label `key`: any API key, login, or the operator's key.

        Raises:
            ApiError: 401 without a usable one, 403 for an account in deletion, 503.
        """
        return await self._authenticator.identify(self._presented(request))

    async def account(self, request: Request) -> Caller:
        """Label `user`: an API key or a login, so that there is an account.

        Raises:
            ApiError: As `caller`; 401 `auth_error` for the operator's key.
        """
        caller = await self.caller(request)
        if caller.account_id == ADMIN_ACCOUNT:
            raise ApiError(401, "auth_error", "the admin key belongs to no account")
        return caller

    async def login(self, request: Request) -> Caller:
        """Label `login`: a person; a leaked key must not manage keys or move money.

        Raises:
            ApiError: 401 without credentials or for a bad login token, 403 for any other kind.
        """
        presented = self._presented(request)
        if presented.kind is not Kind.LOGIN:
            raise forbidden("sign in to do this: an api key cannot")
        return await self._authenticator.identify(presented)

    async def admin(self, request: Request) -> Caller:
        """Label `admin`: the operator's key, or a login whose e-mail the operator lists.

        Raises:
            ApiError: 403 for everybody else, 503.
        """
        caller = await self._administrator(request)
        if not caller.is_admin:
            raise _not_admin()
        return caller

    async def admin_key(self, request: Request) -> Caller:
        """Label `admin-key`: the operator's key and nothing else.

        Raises:
            ApiError: 403 for everybody else.
        """
        caller = await self.admin(request)
        if caller.account_id != ADMIN_ACCOUNT:
            raise _not_admin()
        return caller

    async def provider(self, request: Request) -> ProviderToken:
        """A provider token and nothing else: links, own earnings, log reports, its own end.

        Raises:
            ApiError: 401 without credentials or for an unknown token, 403 for any other kind and
                for an account in deletion, 503.
        """
        presented = self._presented(request)
        if presented.kind is not Kind.PROVIDER_TOKEN:
            raise forbidden("this takes a provider token: run darkbloom login on the machine")
        return await self._authenticator.provider(presented)

    async def earner(self, request: Request) -> HasAccount:
        """Whoever may read what an account earns: as `account`, or its provider token."""
        if self._presented(request).kind is Kind.PROVIDER_TOKEN:
            return await self.provider(request)
        return await self.account(request)

    def source(self, request: Request) -> bytes:
        """Return a keyed digest of the caller's network: for limits, useless to anybody else."""
        peer = request.client.host if request.client is not None else ""
        network = self._guards.network(peer, forwarded_for(request.scope))
        return hmac.digest(self._source_key, network.encode(), "sha256")

    async def _administrator(self, request: Request) -> Caller:
        try:
            return await self.caller(request)
        except ApiError as error:
            if error.http_status == _UNAUTHENTICATED:
                raise _not_admin() from None
            raise

    def _presented(self, request: Request) -> Credential:
        given = request.headers.get("authorization")
        return self._authenticator.read(given.encode("latin-1") if given is not None else None)

    async def financial(self, caller: HasAccount, *, revokes: bool = False) -> None:
        """Claim one change of money or keys, at most 0.2 a second and account, whatever its role.

        The operator's key is not limited.

        Args:
            caller: whose account changes.
            revokes: the change only takes something away, such as a leaked key; then it is possible
                while the shared buckets are away.

        Raises:
            ApiError: 429 with Retry-After; 503 where the shared buckets do not answer.
        """
        if caller.account_id == ADMIN_ACCOUNT:
            return
        await self._guards.financial(caller.account_id, revokes=revokes)

    async def stranger(self, request: Request) -> None:
        """Claim one call of a caller without a credential, per network address.

        Raises:
            ApiError: 429 with Retry-After.
        """
        peer = request.client.host if request.client is not None else ""
        await self._guards.address(peer, forwarded_for(request.scope))

    async def own_builds(self, request: Request, caller: Caller) -> frozenset[str] | None:
        """Return what the caller's own machines serve; None where he does not ask for those alone.

        Raises:
            ApiError: 400 for odd self-route headers, 503 without billing or router.
        """
        only = caller.key is not None and caller.key.self_route_only
        route, machine = read_route(request.headers.raw, self_route_only=only)
        if route is not Route.SELF:
            return None
        own = await self._owners.machines(caller.account_id)
        if not own:
            return frozenset()
        return frozenset(
            model.id
            for row in await self.machines.get()
            if row.status == "online"
            and row.identity_key in own
            and machine in ("", row.provider_id)
            for model in row.models
        )

    async def capacity_or_nothing(self) -> Mapping[str, BuildCapacity]:
        """Return live capacity; empty while the router is away, because lists must still work."""
        try:
            return await self.capacity.get()
        except ApiError:
            return {}

    async def fleet_or_nothing(self) -> Sequence[Provider]:
        """Return the public fleet; empty while the router is away."""
        try:
            return await self.providers.get()
        except ApiError:
            return ()


def _not_admin() -> ApiError:
    return forbidden("only an administrator may do this")


def reply(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """Return a JSON response."""
    return Response(
        orjson.dumps(content),
        status_code=status,
        headers=dict(headers or {}),
        media_type="application/json",
    )
