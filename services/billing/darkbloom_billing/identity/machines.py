"""What a provider token is good for: a machine proves its key and is linked to the account."""

import hashlib
from collections.abc import Callable, Sequence
from datetime import timedelta

from darkbloom_edge.errors import SignatureRejected
from darkbloom_edge.link import LINK_KIND, link_statement
from darkbloom_edge.signatures import verify_p256
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import NotFoundError

from darkbloom_billing.accounts import Accounts
from darkbloom_billing.identity.errors import (
    AccountClosingError,
    ChallengeUnknownError,
    ProofRejectedError,
    SlowDownError,
    TokenUnknownError,
)
from darkbloom_billing.identity.model import ProviderToken
from darkbloom_billing.identity.ports import TokenStore
from darkbloom_billing.model import ProviderLink

CHALLENGE_S = 300
NONCE_BYTES = 32


class Machines:
    """Provider tokens, and the links that they may make.

    Args:
        store: tokens and nonces.
        accounts: links.
        clock: time.
        entropy: random bytes for nonces.
    """

    def __init__(
        self,
        store: TokenStore,
        accounts: Accounts,
        clock: Clock,
        entropy: Callable[[int], bytes],
    ) -> None:
        self._store = store
        self._accounts = accounts
        self._clock = clock
        self._entropy = entropy

    async def resolve(self, token_hash: bytes) -> ProviderToken:
        """Return the token behind a secret.

        Raises:
            TokenUnknownError: None in force has this hash.
            AccountClosingError: Its account is being deleted.
        """
        token = await self._store.token(token_hash)
        if token is None:
            raise TokenUnknownError("no such provider token")
        if token.closing:
            raise AccountClosingError("account is being deleted")
        return token

    async def tokens(self, account_id: str) -> Sequence[ProviderToken]:
        """Return the tokens in force of an account, oldest first."""
        return await self._store.tokens(account_id)

    async def revoke(self, account_id: str, token_id: str) -> None:
        """Revoke a token; links that it made stay.

        Raises:
            NotFoundError: The account has no such token.
        """
        if not await self._store.revoke(account_id, token_id, now=self._clock.now()):
            raise NotFoundError("no such provider token")

    async def challenge(self, account_id: str, identity_key: bytes) -> bytes:
        """Return a nonce that the machine must sign.

        Raises:
            SlowDownError: The account has too many open.
        """
        nonce = self._entropy(NONCE_BYTES)
        now = self._clock.now()
        until = now + timedelta(seconds=CHALLENGE_S)
        if not await self._store.add_challenge(
            hashlib.sha256(nonce).digest(), account_id, identity_key, now=now, until=until
        ):
            raise SlowDownError("too many links are being made", retry_after_s=60)
        return nonce

    async def link(
        self,
        account_id: str,
        identity_key: bytes,
        nonce: bytes,
        signature: bytes,
        name: str,
    ) -> ProviderLink:
        """Link a machine that proves its key; the nonce is used up whatever comes of it.

        Raises:
            ChallengeUnknownError: The nonce is not one of this account and key, or is over.
            ProofRejectedError: The signature is not of this key.
            ConflictError: The machine is linked to another account.
        """
        if not await self._store.use_challenge(
            hashlib.sha256(nonce).digest(), account_id, identity_key, now=self._clock.now()
        ):
            raise ChallengeUnknownError("nonce is unknown, used or expired")
        try:
            verify_p256(
                identity_key, LINK_KIND, link_statement(account_id, identity_key, nonce), signature
            )
        except SignatureRejected:
            raise ProofRejectedError("signature does not prove the key") from None
        return await self._accounts.link(identity_key, account_id, name)

    async def unlink(self, account_id: str, identity_key: bytes) -> None:
        """Take a machine away from its account; what it was asked before is still paid to it.

        Raises:
            NotFoundError: The account has no such machine.
        """
        if not await self._store.unlink(account_id, identity_key, now=self._clock.now()):
            raise NotFoundError("no such machine")
