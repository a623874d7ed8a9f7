"""What the gateway needs from the world, in its own words. All calls carry their own deadline.

Every method raises `darkbloom_mesh.errors.MeshError` when the other side fails.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from darkbloom_gateway.buckets import Charge, Decision
from darkbloom_gateway.model import (
    Caller,
    Hold,
    HoldOrder,
    HoldRefusal,
    KeyRecord,
    Price,
    ProviderToken,
    Refusal,
    SignedBytes,
)


@dataclass(frozen=True, slots=True)
class KeyEvent:
    """Something happened to keys."""

    generation: int
    changed: bytes | None = None
    """Hash of the key that changed."""
    reset: bool = False
    """Forget all of them."""
    account_id: str = ""
    """Forget everything of this account."""


@dataclass(frozen=True, slots=True)
class Login:
    """A login token that billing has verified."""

    caller: Caller
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Balance:
    """Money of an account, in micro-USD."""

    balance_micros: int
    withdrawable_micros: int
    debt_micros: int = 0


@dataclass(frozen=True, slots=True)
class UsageRow:
    """One charged request."""

    job_id: str
    model: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    cost_micros: int
    settled_at: datetime


@dataclass(frozen=True, slots=True)
class PriceList:
    """Rows in force, and what a build without one costs."""

    rows: tuple[Price, ...]
    fallback: Price


@dataclass(frozen=True, slots=True)
class ReceiptRecord:
    """A countersigned record for billing."""

    request_id: str
    countersign: SignedBytes
    terminal: SignedBytes | None = None
    """The provider's word; None after a break."""
    verdict: SignedBytes | None = None
    """What the request was sealed under."""
    identity_key: bytes = b""
    free_account_id: str = ""
    """Whose, where nobody pays, so that no hold says it."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """An Ed25519 key and its life."""

    key_id: str
    public_key: bytes
    created_at: datetime
    retired_at: datetime | None = None


class Billing(Protocol):
    """Keys, holds and books."""

    async def resolve_key(self, key_hash: bytes) -> tuple[KeyRecord | Refusal, int | None]:
        """Return (record or refusal, generation at which it was read, where known)."""
        ...

    def watch_keys(self, after_generation: int) -> AsyncIterator[KeyEvent]:
        """Yield changes; silence is broken by events without a change."""
        ...

    async def hold(self, orders: Sequence[HoldOrder]) -> Sequence[Hold | HoldRefusal]:
        """Place holds; results in the same order."""
        ...

    async def extend_hold(
        self, request_id: str, extension: int, price: Price, *, replaces: bool
    ) -> int:
        """Raise a hold to a dearer row, return what it is now; PreconditionError: no money.

        One that `replaces` those before it gives back what only they needed.
        """
        ...

    async def release(self, releases: Sequence[tuple[str, str]]) -> None:
        """Give holds back: (request id, reason without its prefix)."""
        ...

    async def record_receipts(self, records: Sequence[ReceiptRecord]) -> None:
        """Hand in countersigned records."""
        ...

    async def machines(self, account_id: str) -> Sequence[bytes]:
        """Read the identity keys of an account's machines."""
        ...

    async def balance(self, account_id: str) -> Balance:
        """Read an account's money."""
        ...

    async def usage(
        self, account_id: str, page_size: int, page_token: str
    ) -> tuple[Sequence[UsageRow], str]:
        """Return a page, newest first, and the token of the next one."""
        ...

    async def prices(self) -> PriceList:
        """Read the rows in force."""
        ...


class Identity(Protocol):
    """Logins."""

    async def verify_login(self, token: str) -> tuple[Login | Refusal, int | None]:
        """Return (login or refusal, generation at which it was read, where known)."""
        ...

    async def provider_token(self, token_hash: bytes) -> ProviderToken | Refusal:
        """Return the token behind a secret, or why it does not count."""
        ...


class Attestation(Protocol):
    """Keys of signers, and revocations."""

    async def verdict_keys(self) -> Sequence[PublicKey]:
        """Read the keys that sign verdicts and revocations."""
        ...

    async def receipt_keys(self) -> Sequence[PublicKey]:
        """Read the keys that countersign receipts."""
        ...

    async def register_receipt_key(self, key: PublicKey, gateway: str) -> None:
        """Publish this worker's key."""
        ...

    def watch_revocations(
        self, after_generation: int
    ) -> AsyncIterator[tuple[int, SignedBytes | None]]:
        """Yield (generation, revocation or None for a sign of life)."""
        ...


class BucketStore(Protocol):
    """The shared token buckets."""

    async def take(self, charges: Sequence[Charge]) -> Sequence[Decision]:
        """Decide on each charge, in order, all in one step."""
        ...
