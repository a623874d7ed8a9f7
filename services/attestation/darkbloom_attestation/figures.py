"""How machines on a release do beside the others, and when that holds an offer. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

WINDOW: Final = timedelta(days=1)
"""Nothing older counts, however long a step lasts."""
WATCHED: Final = timedelta(days=7)
"""How long after the beginning of a step it can still be held by itself."""
SETTLED: Final = timedelta(minutes=10)
"""A session without a verdict by then gets no traffic."""
RESTARTS: Final = 4
"""Sessions of one machine within an hour that say it keeps dying."""
MIN_BAD: Final = 2
"""One machine may be broken by itself."""
ONE_IN: Final = 10
"""Of the machines on it, so many are bad at least."""
TIMES_WORSE: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Which machines are compared."""

    code_release: str
    version: str
    """Counts what agents say: a build that measures as nothing blessed has no other name."""
    others: Sequence[str]
    """Other active releases."""
    other_versions: Sequence[str]
    older_versions: Sequence[str]
    """Those of them from which the release is an update."""
    since: datetime
    known_before: datetime
    """Only machines that were seen before count: a stranger who comes for it decides nothing."""
    now: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Machines; one may be bad in several ways."""

    machines: int = 0
    bad: int = 0
    refused: int = 0
    untrusted: int = 0
    unrouted: int = 0
    restarting: int = 0
    returned: int = 0


def why_held(ring: Figures, rest: Figures) -> str:
    """Return why an offer is to be held; empty where its machines do no worse than the rest.

    Trouble of the whole fleet is no trouble of a release: the shares are compared.
    """
    some = ring.bad >= MIN_BAD and ring.bad * ONE_IN >= ring.machines
    # Shares, multiplied out: whole numbers are exact.
    worse = ring.bad * rest.machines >= TIMES_WORSE * rest.bad * ring.machines
    if not (some and worse):
        return ""
    ways = ("refused", "untrusted", "unrouted", "restarting", "returned")
    told = ", ".join(f"{getattr(ring, way)} {way}" for way in ways if getattr(ring, way))
    return (
        f"{ring.bad} of {ring.machines} machines do badly ({told}),"
        f" of the others {rest.bad} of {rest.machines}"
    )
