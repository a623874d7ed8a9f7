"""What reports need from the world; every call raises StoreUnavailableError where it is away."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Protocol

from darkbloom_billing.model import Cursor, UsageRow
from darkbloom_billing.reports.model import (
    DayWork,
    Dossier,
    HistoryFilter,
    MachineEarning,
    MinuteWork,
    Movement,
    Standing,
    Summary,
    Wallets,
    Window,
)


class ReportStore(Protocol):
    """Histories, roll-ups and public names."""

    async def wallets(self, account_id: str) -> Wallets | None:
        """Return what an account has; None: no such account."""
        ...

    async def usage(
        self, account_id: str, wanted: HistoryFilter, *, limit: int, after: Cursor | None
    ) -> list[UsageRow]:
        """Return charged requests, newest first."""
        ...

    async def usage_count(self, account_id: str, wanted: HistoryFilter, *, limit: int) -> int:
        """Return how many there are, at most `limit`."""
        ...

    async def earnings(
        self, account_id: str, wanted: HistoryFilter, *, limit: int, after: Cursor | None
    ) -> list[MachineEarning]:
        """Return paid requests, newest first."""
        ...

    async def earnings_count(self, account_id: str, wanted: HistoryFilter, *, limit: int) -> int:
        """Return how many there are, at most `limit`."""
        ...

    async def movements(
        self, account_id: str, *, limit: int, below: Mapping[str, int]
    ) -> list[Movement]:
        """Return postings of all wallets, newest first.

        Args:
            account_id: Whose.
            limit: At most so many.
            below: By wallet, only versions below this; a wallet that is missing is read from its
                newest posting.
        """
        ...

    async def summary(self, account_id: str, *, now: datetime) -> Summary:
        """Return the sums of an account."""
        ...

    async def days(
        self, account_id: str, *, since: date, identity_key: bytes, limit: int
    ) -> list[DayWork]:
        """Return work by day, newest first."""
        ...

    async def dossier(self, account_id: str) -> Dossier | None:
        """Return facts of an account; None: no such account."""
        ...

    async def public_name(self, account_id: str) -> tuple[bool, str]:
        """Return (hidden, chosen name or empty)."""
        ...

    async def set_public_name(
        self, account_id: str, name: str | None, folded: str | None, *, now: datetime
    ) -> None:
        """Choose a name, or None to be on no board; ConflictError where it is taken."""
        ...

    async def forget_public_name(self, account_id: str) -> None:
        """Go back to the pseudonym."""
        ...


class FigureStore(Protocol):
    """What public figures are made of."""

    async def count_work(self, limit: int) -> int:
        """Count booked work into the roll-ups; return how much there was."""
        ...

    async def prune(self, *, now: datetime) -> None:
        """Forget roll-ups that no window reaches."""
        ...

    async def standing(self, window: Window, *, now: datetime, best: int) -> Standing:
        """Return the best of each metric, and the sums over everybody."""
        ...

    async def minutes(self, *, now: datetime) -> Sequence[MinuteWork]:
        """Return the last 30 minutes, oldest first."""
        ...

    async def pseudonym_key(self) -> bytes:
        """Return the key of pseudonyms, 32 bytes."""
        ...
