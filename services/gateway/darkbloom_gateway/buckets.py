"""Token buckets: the rule, and a local stand-in for the shared ones."""

import math
from collections import OrderedDict
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bucket:
    """Size and refill of one bucket."""

    name: str
    """Of the thing limited, such as an account id."""
    rate: float
    """Tokens per second."""
    burst: int


@dataclass(frozen=True, slots=True)
class Charge:
    """One request's claim on its key's bucket, where there is one, and on its account's."""

    account: Bucket
    key: Bucket | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether the claim was met."""

    allowed: bool
    dimension: str
    """`key` or `account`: the bucket that is reported."""
    limit: int
    remaining: int
    wait_s: float
    """Until the next token; 0 where there is one now."""
    reset_s: float
    """Until the bucket is full."""

    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """Return the `x-ratelimit-*` triple."""
        return (
            (b"x-ratelimit-limit-requests", b"%d" % self.limit),
            (b"x-ratelimit-remaining-requests", b"%d" % self.remaining),
            (b"x-ratelimit-reset-requests", _duration(self.reset_s)),
        )


def decide(*, allowed: bool, dimension: str, bucket: Bucket, tokens: float) -> Decision:
    """Describe a bucket that holds `tokens` after the claim."""
    missing = max(0.0, bucket.burst - tokens)
    return Decision(
        allowed=allowed,
        dimension=dimension,
        limit=bucket.burst,
        remaining=max(0, math.floor(tokens)),
        wait_s=max(0.0, (1.0 - tokens) / bucket.rate),
        reset_s=missing / bucket.rate,
    )


class LocalBuckets:
    """The same buckets inside one process, for as long as the shared store is away.

    Each worker then allows the full rate by itself; that is the price of staying up, and the hold
    still guards the money.
    """

    def __init__(self, *, max_entries: int = 65_536) -> None:
        self._max = max_entries
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, charge: Charge, now: float) -> Decision:
        """Take one token from each bucket, or from none."""
        if charge.key is not None:
            tokens = self._level(charge.key, now)
            if tokens < 1:
                return decide(allowed=False, dimension="key", bucket=charge.key, tokens=tokens)

        tokens = self._level(charge.account, now)
        if tokens < 1:
            return decide(allowed=False, dimension="account", bucket=charge.account, tokens=tokens)
        if charge.key is not None:
            self._put(charge.key, self._level(charge.key, now) - 1, now)
        self._put(charge.account, tokens - 1, now)
        return decide(allowed=True, dimension="account", bucket=charge.account, tokens=tokens - 1)

    def _level(self, bucket: Bucket, now: float) -> float:
        tokens, then = self._levels.get(bucket.name, (float(bucket.burst), now))
        return min(float(bucket.burst), tokens + (now - then) * bucket.rate)

    def _put(self, bucket: Bucket, tokens: float, now: float) -> None:
        self._levels[bucket.name] = (tokens, now)
        self._levels.move_to_end(bucket.name)
        while len(self._levels) > self._max:
            self._levels.popitem(last=False)


def _duration(seconds: float) -> bytes:
    """Write a duration as OpenAI does: `250ms`, `6s`."""
    if seconds < 1:
        return b"%dms" % math.ceil(seconds * 1000)
    return b"%ds" % math.ceil(seconds)
