"""Who asks: credentials looked up at billing, once, and remembered."""

import asyncio
from collections.abc import Callable

from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import MeshError

from darkbloom_gateway.errors import ApiError, closing_account, unauthenticated, unavailable
from darkbloom_gateway.keys import Credential, KeyCache, Kind, read_bearer
from darkbloom_gateway.model import ADMIN_ACCOUNT, Caller, KeyRecord, ProviderToken, Refusal
from darkbloom_gateway.ports import Billing, Identity, KeyEvent

_ADMIN = Caller(account_id=ADMIN_ACCOUNT, is_admin=True)


class Authenticator:
    """Turns an `Authorization` header into whoever presented it.

    Args:
        billing: knows the keys.
        identity: knows the logins.
        cache: remembers both.
        clock: time.
        admin_hash: SHA-256 of the operator's key; None: there is none.
        on_use: told of each inference request's key.
    """

    def __init__(
        self,
        billing: Billing,
        identity: Identity,
        cache: KeyCache,
        clock: Clock,
        *,
        admin_hash: bytes | None = None,
        on_use: Callable[[str], None] = lambda _key_id: None,
    ) -> None:
        self._billing = billing
        self._identity = identity
        self._cache = cache
        self._clock = clock
        self._admin_hash = admin_hash
        self._on_use = on_use
        self._lookups: dict[bytes, asyncio.Future[Caller | Refusal]] = {}

    async def authenticate(self, authorization: bytes | None) -> KeyRecord:
        """Return the key that an inference request runs under; that of a login has no id.

        Raises:
            ApiError: 401 without a usable credential of an account, 403 where the account is
                being deleted, 503 where billing does not answer.
        """
        caller = await self.identify(self.read(authorization))
        if caller.account_id == ADMIN_ACCOUNT:
            raise ApiError(401, "auth_error", "the admin key belongs to no account that could pay")
        if caller.key is not None:
            self._on_use(caller.key.key_id)
        return caller.key or KeyRecord("", caller.account_id, caller.role)

    def read(self, authorization: bytes | None) -> Credential:
        """Return what was presented; see `keys.read_bearer`."""
        return read_bearer(authorization, self._admin_hash)

    async def identify(self, credential: Credential) -> Caller:
        """Return who presents an API key, a login or the admin key.

        Raises:
            ApiError: As `authenticate`.
        """
        if credential.kind is Kind.ADMIN_KEY:
            return _ADMIN
        if credential.kind is Kind.PROVIDER_TOKEN:
            raise unauthenticated("a provider token is not accepted here")
        found = self._cache.get(credential.hash, self._clock.monotonic())
        if found is None:
            found = await self._look_up(credential)
        if found is Refusal.CLOSING:
            raise closing_account()
        if isinstance(found, Refusal):
            what = "login token" if credential.kind is Kind.LOGIN else "api key"
            raise unauthenticated(f"invalid {what}")
        key = found.key
        if key is not None and key.expire_time is not None and key.expire_time <= self._clock.now():
            raise unauthenticated("this api key has expired")
        return found

    async def provider(self, credential: Credential) -> ProviderToken:
        """Return the provider token that was presented; it is asked for each time.

        Raises:
            ApiError: 401 for an unknown one, 403 where the account is being deleted, 503.
        """
        try:
            found = await self._identity.provider_token(credential.hash)
        except MeshError:
            raise unavailable() from None
        if found is Refusal.CLOSING:
            raise closing_account()
        if isinstance(found, Refusal):
            raise unauthenticated("invalid provider token")
        return found

    def take(self, event: KeyEvent) -> None:
        """Forget what an event says has changed."""
        if event.reset:
            self._cache.reset(event.generation)
        elif event.account_id:
            self._cache.account_changed(event.account_id, event.generation)
        elif event.changed is not None:
            self._cache.changed(event.changed, event.generation)

    async def _look_up(self, credential: Credential) -> Caller | Refusal:
        """Ask billing, once for all who ask at the same time."""
        key_hash = credential.hash
        running = self._lookups.get(key_hash)
        if running is not None:
            return await asyncio.shield(running)

        answer: asyncio.Future[Caller | Refusal] = asyncio.get_running_loop().create_future()
        self._lookups[key_hash] = answer
        self._cache.begin(key_hash)
        try:
            found = await self._ask(credential)
        except MeshError:
            self._cache.abandon(key_hash)
            failure = unavailable()
            answer.set_exception(failure)
            # Nobody else may be waiting; then the failure is ours alone to raise.
            answer.exception()
            raise failure from None
        except BaseException:
            self._cache.abandon(key_hash)
            answer.cancel()
            raise
        finally:
            del self._lookups[key_hash]
        answer.set_result(found)
        return found

    async def _ask(self, credential: Credential) -> Caller | Refusal:
        """Ask billing and remember the answer."""
        life_s: float | None = None
        generation: int | None
        found: Caller | Refusal
        if credential.kind is Kind.LOGIN:
            login, generation = await self._identity.verify_login(credential.login)
            if isinstance(login, Refusal):
                found = login
            else:
                found = login.caller
                life_s = (login.expires_at - self._clock.now()).total_seconds()
        else:
            record, generation = await self._billing.resolve_key(credential.hash)
            found = (
                record
                if isinstance(record, Refusal)
                else Caller(record.account_id, role=record.account_role, key=record)
            )
        self._cache.store(
            credential.hash,
            found,
            generation=generation,
            now=self._clock.monotonic(),
            life_s=life_s,
        )
        return found
