"""What sign-in needs from the world. Stores raise StoreUnavailableError; repeating is safe."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from darkbloom_billing.identity.model import (
    Claims,
    CodeState,
    KeyPatch,
    KeyView,
    Poll,
    ProviderToken,
    TypedCode,
    User,
)


class FetchError(Exception):
    """A document could not be fetched; says nothing of its content."""


class KeySetSource(Protocol):
    """Where issuers publish their keys."""

    async def fetch(self, url: str) -> bytes:
        """Return the document.

        Raises:
            FetchError: It did not come, or is too large.
        """
        ...


class UserStore(Protocol):
    """Users and their accounts."""

    async def sign_in(
        self, claims: Claims, *, user_id: str, account_id: str, now: datetime
    ) -> tuple[User, int]:
        """Return the user, made with these ids on first use, and the generation read before."""
        ...

    async def user(self, user_id: str) -> User | None:
        """Return a user."""
        ...

    async def close_account(self, account_id: str, *, now: datetime) -> bool:
        """Mark an account for deletion; False: no such account."""
        ...


class OwnerKeyStore(Protocol):
    """Keys, as their owners manage them. Revoked ones are not seen."""

    async def keys(
        self, account_id: str, *, now: datetime, key_id: str | None = None
    ) -> list[KeyView]:
        """Return the keys of an account, oldest first, or the one that is asked for."""
        ...

    async def update(self, account_id: str, key_id: str, patch: KeyPatch, *, now: datetime) -> bool:
        """Change fields; False: no such key."""
        ...

    async def delete(self, account_id: str, key_id: str, key_hash: bytes, *, now: datetime) -> bool:
        """Revoke the key with this id, or where it is empty with this hash; False: none."""
        ...

    async def rotate(self, account_id: str, key_id: str, key_hash: bytes, label: str) -> bool:
        """Replace the secret; False: no such key.

        Raises:
            ConflictError: Another key has this hash.
        """
        ...

    async def record_uses(self, uses: Mapping[str, datetime]) -> None:
        """Keep when keys were last used; unknown ones are ignored, older times too."""
        ...


class DeviceStore(Protocol):
    """Device codes and the tokens that they end in."""

    async def open_code(
        self,
        code_hash: bytes,
        user_code: str,
        machine_name: str,
        source: bytes,
        *,
        now: datetime,
        until: datetime,
        next_poll: datetime,
    ) -> str:
        """Return `opened`, `taken` (the user code) or `full`."""
        ...

    async def poll(
        self,
        code_hash: bytes,
        token_id: str,
        token_hash: bytes,
        *,
        now: datetime,
        next_poll: datetime,
    ) -> Poll:
        """Poll once; an approved code is consumed and the token made, in one transaction."""
        ...

    async def judge(
        self, user_code: str, account_id: str, decision: CodeState | None, *, now: datetime
    ) -> TypedCode:
        """Look at a code, or decide on it."""
        ...

    async def purge(self, *, now: datetime) -> None:
        """Forget what has ended."""
        ...


class TokenStore(Protocol):
    """Provider tokens and link challenges."""

    async def token(self, token_hash: bytes) -> ProviderToken | None:
        """Return the token in force with this hash."""
        ...

    async def tokens(self, account_id: str) -> Sequence[ProviderToken]:
        """Return those in force, oldest first."""
        ...

    async def revoke(self, account_id: str, token_id: str, *, now: datetime) -> bool:
        """Revoke one; False: none in force."""
        ...

    async def add_challenge(
        self,
        nonce_hash: bytes,
        account_id: str,
        identity_key: bytes,
        *,
        now: datetime,
        until: datetime,
    ) -> bool:
        """Keep a nonce; False: the account has too many open."""
        ...

    async def use_challenge(
        self, nonce_hash: bytes, account_id: str, identity_key: bytes, *, now: datetime
    ) -> bool:
        """Use a nonce up; True: it was for this account and key, and in time."""
        ...

    async def unlink(self, account_id: str, identity_key: bytes, *, now: datetime) -> bool:
        """End a link; False: the account has no such machine."""
        ...
