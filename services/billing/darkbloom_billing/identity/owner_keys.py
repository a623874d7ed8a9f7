"""API keys as their owners manage them."""

from collections.abc import Mapping
from datetime import datetime

from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import InvalidArgumentError, NotFoundError

from darkbloom_billing.identity.model import KeyPatch, KeyView
from darkbloom_billing.identity.ports import OwnerKeyStore


class OwnerKeys:
    """Rules around the keys of an account; another account's key does not exist here."""

    def __init__(self, store: OwnerKeyStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def list(self, account_id: str) -> list[KeyView]:
        """Return the keys of an account, oldest first."""
        return await self._store.keys(account_id, now=self._clock.now())

    async def get(self, account_id: str, key_id: str) -> KeyView:
        """Return one key.

        Raises:
            NotFoundError: The account has no such key.
        """
        found = await self._store.keys(account_id, now=self._clock.now(), key_id=key_id)
        if not found:
            raise NotFoundError("no such key")
        return found[0]

    async def update(self, account_id: str, key_id: str, patch: KeyPatch) -> KeyView:
        """Change the fields that are named and return the key.

        Raises:
            NotFoundError: The account has no such key.
            InvalidArgumentError: It would expire in the past.
        """
        now = self._clock.now()
        expires_at = patch.get("expires_at")
        if isinstance(expires_at, datetime) and expires_at <= now:
            raise InvalidArgumentError("must be in the future", "expire_time")
        if not await self._store.update(account_id, key_id, patch, now=now):
            raise NotFoundError("no such key")
        return await self.get(account_id, key_id)

    async def delete(self, account_id: str, key_id: str, key_hash: bytes) -> None:
        """Revoke a key, named by its id or its hash.

        Raises:
            NotFoundError: The account has no such key.
        """
        now = self._clock.now()
        if not await self._store.delete(account_id, key_id, key_hash, now=now):
            raise NotFoundError("no such key")

    async def rotate(self, account_id: str, key_id: str, key_hash: bytes, label: str) -> KeyView:
        """Replace the secret; spend, limits and everything else stay.

        Raises:
            NotFoundError: The account has no such key.
        """
        if not await self._store.rotate(account_id, key_id, key_hash, label):
            raise NotFoundError("no such key")
        return await self.get(account_id, key_id)

    async def record_uses(self, uses: Mapping[str, datetime]) -> None:
        """Keep when keys were last used; a time to come counts as now."""
        now = self._clock.now()
        await self._store.record_uses({key: min(at, now) for key, at in uses.items()})
