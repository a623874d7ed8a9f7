"""What billing needs from the world, in its own words."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from darkbloom_billing.model import (
    Account,
    ApiKey,
    Balance,
    Cursor,
    EarningRow,
    End,
    EndOutcome,
    HoldFacts,
    HoldOrder,
    HoldOutcome,
    KeyChange,
    NewKey,
    NewPrice,
    PriceRow,
    PriceVersion,
    ProviderLink,
    Receipt,
    SigningKey,
    UsageRow,
)


class LedgerStore(Protocol):
    """Holds and their ends. Every call is one transaction and idempotent.

    Each raises StoreUnavailableError where the store does not answer; repeating is safe.
    """

    async def hold_many(
        self, orders: Sequence[tuple[HoldOrder, PriceRow]], *, now: datetime, lease_until: datetime
    ) -> list[HoldOutcome]:
        """Place holds, each judged alone; a repeat returns the first hold."""
        ...

    async def extend_hold(
        self,
        request_id: str,
        extension: int,
        price: PriceRow,
        *,
        total: int,
        replaces: bool,
        now: datetime,
    ) -> HoldOutcome:
        """Raise a hold to `total` micro-USD and add a price snapshot."""
        ...

    async def holds(self, questions: Sequence[tuple[str, bytes]]) -> list[HoldFacts | None]:
        """Return the facts of holds, asked by (request id, identity key); None: no such hold."""
        ...

    async def resolve_many(self, ends: Sequence[End], *, now: datetime) -> list[EndOutcome | None]:
        """End holds, each judged alone; None: a lease that was renewed is not swept."""
        ...

    async def renew(self, request_ids: Sequence[str], *, until: datetime) -> set[str]:
        """Push leases out, never back; return the ids that are still held."""
        ...

    async def expired(self, *, now: datetime, limit: int) -> list[str]:
        """Return request ids of expired leases, oldest first."""
        ...

    async def overdue(self, *, now: datetime) -> int:
        """Return how many leases have expired."""
        ...


class AccountStore(Protocol):
    """Accounts, keys, links, balances and histories; raises StoreUnavailableError as above."""

    async def create_account(self, account_id: str, name: str, *, now: datetime) -> Account:
        """Create an account or return the one that is there."""
        ...

    async def create_key(self, new: NewKey, key_id: str, *, now: datetime) -> ApiKey:
        """Create a key or return the one with that hash."""
        ...

    async def revoke_key(self, key_id: str, *, now: datetime) -> ApiKey | None:
        """Revoke a key; None: no such key."""
        ...

    async def resolve_key(self, key_hash: bytes) -> tuple[ApiKey | None, int]:
        """Return the key with that hash and the generation at which it was read."""
        ...

    async def key_changes(self, after: int) -> list[KeyChange]:
        """Return changes after a generation, oldest first."""
        ...

    async def key_generation(self) -> int:
        """Return the present generation."""
        ...

    async def account_exists(self, account_id: str) -> bool:
        """Say whether there is such an account."""
        ...

    async def balance(self, account_id: str) -> Balance | None:
        """Return the money of an account; None: no such account."""
        ...

    async def usage(self, account_id: str, *, limit: int, after: Cursor | None) -> list[UsageRow]:
        """Return settled requests of a consumer, newest first."""
        ...

    async def earnings(
        self, account_id: str, *, limit: int, after: Cursor | None
    ) -> list[EarningRow]:
        """Return settled requests of a provider, newest first."""
        ...

    async def link_provider(
        self, identity_key: bytes, account_id: str, name: str, *, now: datetime
    ) -> ProviderLink:
        """Link a machine, or return the link that is there, whoever it belongs to."""
        ...

    async def provider_links(
        self, account_id: str, *, limit: int, after: bytes
    ) -> Sequence[ProviderLink]:
        """Return machines of an account after a key, in order of their keys."""
        ...

    async def provider_link(self, identity_key: bytes) -> ProviderLink | None:
        """Return the link of a machine."""
        ...


class PriceStore(Protocol):
    """Price rows; raises StoreUnavailableError as above."""

    async def versions(self, *, since: datetime) -> list[PriceVersion]:
        """Return every row that was in force at some time since, or will be."""
        ...

    async def wholesale(self) -> frozenset[str]:
        """Return the accounts of role `service`."""
        ...

    async def set_price(self, new: NewPrice, price_id: str, *, now: datetime) -> PriceVersion:
        """Add a row, once per request id."""
        ...

    async def end_price(
        self, request_id: str, account_id: str, build: str, *, now: datetime
    ) -> bool:
        """End an account's own price, once per request id; False: there is none."""
        ...


class ReceiptStore(Protocol):
    """Countersigned records; raises StoreUnavailableError as above."""

    async def record(self, receipts: Sequence[Receipt], *, now: datetime) -> int:
        """Keep records of requests that were held here; return how many were new."""
        ...


class KeySource(Protocol):
    """Where public keys come from."""

    async def fetch(self) -> Mapping[str, SigningKey]:
        """Return all keys by id.

        Raises:
            MeshError: The source did not answer.
        """
        ...


class GrantDesk(Protocol):
    """Pays grants out of a budget."""

    async def grant(self, request_id: str, account_id: str, amount_micros: int, note: str) -> int:
        """Put promotional money on an account, once per request id; return what can be spent."""
        ...
