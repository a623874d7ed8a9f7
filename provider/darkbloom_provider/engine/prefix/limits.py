"""What the SSD tier may take, and what it counts (spec: provider section 10)."""

from dataclasses import dataclass, replace
from typing import Final

_MIB: Final = 1 << 20
_GIB: Final = 1 << 30
UNKNOWN_BUDGET: Final = 20 * _GIB
"""Where nobody can say how much of the disk is free."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskLimits:
    """What the tier may take (spec: provider section 10)."""

    budget_bytes: int | None = None
    """Of all builds; None: half of what is free at the start."""
    min_free_bytes: int = 20 * _GIB
    """Writes stop below this; reads go on."""
    ttl_s: float = 1800.0
    """From the last use."""
    daily_bytes: int = 750_000_000_000
    floor_tokens: int = 1024
    """Shorter beginnings are not written."""
    staged_bytes: int = 1024 * _MIB
    """Memory for blocks on their way to rows."""
    read_bytes_per_s: float = 1.5e9
    read_s: float = 1.0
    """Longest estimated reading time for one prompt."""
    queue_jobs: int = 2
    queue_bytes: int = 768 * _MIB


@dataclass(slots=True)
class DiskCounts:
    """What the tier did; no identifiers."""

    written: int = 0
    read: int = 0
    bad: int = 0
    """Files that did not open."""
    dropped: int = 0
    """Offers that were not written: queue, space or allowance."""
    evicted: int = 0
    """Files removed for age or space."""


def limits_of(
    *, budget_gb: float | None, ttl_s: float, base: DiskLimits | None = None
) -> DiskLimits:
    """Return the limits that an owner has set; the time to live can only be shortened."""
    base = base or DiskLimits()
    budget = None if budget_gb is None else int(budget_gb * _GIB)
    return replace(base, budget_bytes=budget, ttl_s=min(ttl_s, base.ttl_s))
