"""Accounts, keys and links: who may spend and who earns."""

import secrets
from collections.abc import Sequence

from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import ConflictError, InvalidArgumentError, NotFoundError

from darkbloom_billing.errors import KeyRevokedError, KeyUnknownError, UnlinkedError
from darkbloom_billing.identity.errors import AccountClosingError
from darkbloom_billing.model import Account, ApiKey, Balance, NewKey, ProviderLink
from darkbloom_billing.ports import AccountStore


class Accounts:
    """Rules around accounts; ids of keys are made here, secrets are never seen."""

    def __init__(self, store: AccountStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def create(self, account_id: str, name: str) -> Account:
        """Create an account; one that is there is returned as it is."""
        return await self._store.create_account(account_id, name, now=self._clock.now())

    async def create_key(self, new: NewKey) -> ApiKey:
        """Create a key, once per hash.

        Raises:
            NotFoundError: No such account.
            ConflictError: The hash belongs to a key with other contents.
            InvalidArgumentError: It would expire in the past.
        """
        await self._require(new.account_id)
        if new.expires_at is not None and new.expires_at <= self._clock.now():
            raise InvalidArgumentError("must be in the future", "expire_time")
        key_id = f"key_{secrets.token_hex(16)}"
        key = await self._store.create_key(new, key_id, now=self._clock.now())
        if key.new != new:
            raise ConflictError("the same secret came before with other contents")
        return key

    async def revoke_key(self, key_id: str) -> ApiKey:
        """Revoke a key for ever.

        Raises:
            NotFoundError: No such key.
        """
        key = await self._store.revoke_key(key_id, now=self._clock.now())
        if key is None:
            raise NotFoundError("no such key")
        return key

    async def resolve_key(self, key_hash: bytes) -> tuple[ApiKey, int]:
        """Return a usable key and the generation at which it was read.

        Raises:
            KeyUnknownError: No key has this hash.
            KeyRevokedError: It was revoked, is disabled or has expired.
            AccountClosingError: Its account is being deleted.
        """
        key, generation = await self._store.resolve_key(key_hash)
        if key is None:
            raise KeyUnknownError("no such key")
        expires_at = key.new.expires_at
        if key.closing:
            raise AccountClosingError("account is being deleted")
        if (
            key.disabled
            or key.revoked
            or (expires_at is not None and expires_at <= self._clock.now())
        ):
            raise KeyRevokedError("key is revoked, disabled or has expired")
        return key, generation

    async def balance(self, account_id: str) -> Balance:
        """Return the money of an account.

        Raises:
            NotFoundError: No such account.
        """
        balance = await self._store.balance(account_id)
        if balance is None:
            raise NotFoundError("no such account")
        return balance

    async def link(self, identity_key: bytes, account_id: str, name: str) -> ProviderLink:
        """Link a machine to the account that it earns for; a machine has one account.

        Raises:
            NotFoundError: No such account.
            ConflictError: It is linked to another account.
        """
        await self._require(account_id)
        link = await self._store.link_provider(
            identity_key, account_id, name, now=self._clock.now()
        )
        if link.account_id != account_id:
            raise ConflictError("identity key is linked to another account")
        return link

    async def provider_links(
        self, account_id: str, *, limit: int, after: bytes
    ) -> Sequence[ProviderLink]:
        """Return machines of an account after a key, in order of their keys."""
        return await self._store.provider_links(account_id, limit=limit, after=after)

    async def provider_link(self, identity_key: bytes) -> ProviderLink:
        """Return the link of a machine.

        Raises:
            UnlinkedError: It is linked to no account.
        """
        link = await self._store.provider_link(identity_key)
        if link is None:
            raise UnlinkedError("identity key is linked to no account")
        return link

    async def _require(self, account_id: str) -> None:
        if not await self._store.account_exists(account_id):
            raise NotFoundError("no such account")
