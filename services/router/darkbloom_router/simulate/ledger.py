"""What became of every request, and what every machine earned."""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum, auto

GRACE_S = 0.05
"""A word that is this late is not called late: timers have a resolution in production."""


SIZES = (("1k", 1024), ("4k", 4096))


class Fate(StrEnum):
    """How a request ended."""

    OPEN = auto()
    COMPLETE = auto()
    REFUSED = auto()
    BROKEN = auto()


@dataclass(slots=True, eq=False)
class Asked:
    """One request as its consumer sees it."""

    request_id: str
    build: str
    prompt: int
    output: int
    bound: int
    at: float
    deadline: float
    fate: Fate = Fate.OPEN
    first_at: float | None = None
    http_status: int = 0
    reason: str = ""
    machine_failed: bool = False
    """A machine that carried it left, hung or failed: then a broken answer is not the router's."""
    stream: int = 0
    tried: list[int] = field(default_factory=list)
    """Every attempt."""
    live: set[int] = field(default_factory=set)
    """Attempts that have been offered and have not ended."""


class Ledger:
    """Sums over all requests; single ones are forgotten when they end."""

    def __init__(self) -> None:
        self.received = 0
        self.sizes: Counter[str] = Counter()
        """Requests received by how much they ask for."""
        self.complete_sizes: Counter[str] = Counter()
        self.complete = 0
        self.down = 0
        self.hedges = 0
        self.late = 0
        self.lost_by_router = 0
        self.broken = 0
        self.refusals: Counter[str] = Counter()
        self.prompt_tokens = 0
        """Of all requests."""
        self.output_tokens = 0
        """Of complete answers."""
        self.open_s = 0.0
        """How long complete requests were open, together."""
        self.ttft_s: list[float] = []
        self.earned: Counter[str] = Counter()
        """Output tokens by machine."""

    def opened(self, asked: Asked) -> None:
        """Take a request that was sent."""
        self.received += 1
        self.sizes[size_of(asked)] += 1
        self.prompt_tokens += asked.prompt

    def began(self, asked: Asked, now: float) -> None:
        """Take the first content."""
        if asked.first_at is None:
            asked.first_at = now
            self.ttft_s.append(now - asked.at)
            self._in_time(asked, now)

    def completed(self, asked: Asked, machine: str, now: float) -> None:
        """Take the end of an answer."""
        asked.fate = Fate.COMPLETE
        self.complete += 1
        self.complete_sizes[size_of(asked)] += 1
        self.earned[machine] += asked.output
        self.output_tokens += asked.output
        self.open_s += now - asked.at

    def refused(self, asked: Asked, http_status: int, reason: str, now: float) -> None:
        """Take an error before the first content."""
        asked.fate, asked.http_status, asked.reason = Fate.REFUSED, http_status, reason
        self.refusals[reason] += 1
        if http_status >= 500:  # noqa: PLR2004 - as an aggregator counts
            self.down += 1
        self._in_time(asked, now)

    def broke(self, asked: Asked) -> None:
        """Take an answer that broke off."""
        asked.fate = Fate.BROKEN
        self.broken += 1
        self.down += 1
        if not asked.machine_failed:
            self.lost_by_router += 1

    def never_ended(self, count: int) -> None:
        """Take requests that nobody answered: an aggregator's time-out."""
        self.down += count
        self.late += count

    def _in_time(self, asked: Asked, now: float) -> None:
        if now > asked.deadline + GRACE_S:
            self.late += 1


def size_of(asked: Asked) -> str:
    """Return the class of a request by the tokens that it asks for, prompt and answer."""
    tokens = asked.prompt + asked.bound
    return next((name for name, most in SIZES if tokens <= most), "more")


def percentile(values: list[float], share: float) -> float:
    """Return the value below which a share of them lies; 0 of nothing."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def gini(values: list[float]) -> float:
    """Return how unequal values are: 0 is the same for all, 1 is all for one."""
    total, count = sum(values), len(values)
    if not total:
        return 0.0
    ordered = sorted(values)
    weighted = sum(place * value for place, value in enumerate(ordered, start=1))
    return 2 * weighted / (count * total) - (count + 1) / count
