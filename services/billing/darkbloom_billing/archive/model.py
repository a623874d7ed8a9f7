"""The nouns of the archive."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from darkbloom_billing.model import Receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Receipts under one root."""

    batch_id: str
    root: bytes
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """Where a receipt is: its place in a batch, and the batch's entry in the log."""

    batch_id: str
    place: int
    leaves: Sequence[bytes]
    """Of the whole batch, 32 bytes each."""
    log_index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Archived:
    """A receipt as it is kept."""

    receipt: Receipt
    recorded_at: datetime
    anchor: Anchor | None
    """None until its batch is in the log."""
