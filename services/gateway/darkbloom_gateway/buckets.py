"""Token buckets: the rule, and a local stand-in for the shared ones.

A meter is what one account, API key or address may do: up to three buckets, one per dimension. A
charge takes from all buckets of all its meters or from none.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias


class Dimension(IntEnum):
    """What a bucket counts; the number is its place in `Meter.rates` and `Charge.amounts`."""

    REQUESTS = 0
    INPUT_TOKENS = 1
    OUTPUT_TOKENS = 2


@dataclass(frozen=True, slots=True)
class Rate:
    """Refill and size of one bucket."""

    per_s: float
    """Above 0."""
    burst: int


@dataclass(frozen=True, slots=True)
class Meter:
    """The buckets of one thing that is limited; a dimension without a rate is not."""

    name: str
    """Under which the levels are kept, such as `acct_1` or `acct_1:key_2`."""
    rates: tuple[Rate | None, Rate | None, Rate | None]
    owner: str = "account"
    """Whose limit it is, for metrics and messages: `account`, `key`, `financial` or `address`."""


@dataclass(frozen=True, slots=True)
class Charge:
    """One claim on meters; the first meter that cannot pay refuses it."""

    meters: tuple[Meter, ...]
    amounts: tuple[int, int, int]
    """Per dimension; negative gives back."""
    forced: bool = False
    """A correction of what was claimed before: applied whatever the levels are, down to below 0."""
    shared_only: bool = False
    """Without the shared store nobody may answer this one."""


@dataclass(frozen=True, slots=True)
class Gauge:
    """One bucket after a claim."""

    owner: str
    dimension: Dimension
    limit: int
    remaining: int
    wait_s: float
    """Until the claim could be met; 0 where it was."""
    reset_s: float
    """Until the bucket is full."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of a claim."""

    gauges: tuple[Gauge, ...]
    """Of each limited dimension the bucket that matters: what refused, else the emptiest."""
    refused: Gauge | None = None

    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """Return the `x-ratelimit-*` triples of the limited dimensions."""
        found: list[tuple[bytes, bytes]] = []
        for gauge in self.gauges:
            limit, remaining, reset = _HEADERS[gauge.dimension]
            found.append((limit, b"%d" % gauge.limit))
            found.append((remaining, b"%d" % gauge.remaining))
            found.append((reset, _duration(gauge.reset_s)))
        return tuple(found)


Levels: TypeAlias = Sequence[float]
"""Tokens per dimension; anything where the dimension has no rate."""


def decide(charge: Charge, levels: Sequence[Levels], refused: tuple[int, int] | None) -> Decision:
    """Describe the meters of a charge.

    Args:
        charge: the claim.
        levels: of each meter, after the claim.
        refused: (meter, dimension) of the bucket that could not pay; None where all could.
    """
    found: list[Gauge] = []
    culprit: Gauge | None = None
    for dimension in Dimension:
        amount, worst = charge.amounts[dimension], None
        for place, meter in enumerate(charge.meters):
            rate = meter.rates[dimension]
            if rate is None:
                continue
            level = levels[place][dimension]
            remaining = max(0, math.floor(level))
            if refused == (place, dimension):
                wait_s = max(0.0, (amount - level) / rate.per_s)
            elif worst is not None and worst.remaining <= remaining:
                continue
            else:
                wait_s = 0.0
            reset_s = max(0.0, rate.burst - level) / rate.per_s
            worst = Gauge(meter.owner, dimension, rate.burst, remaining, wait_s, reset_s)
            if refused == (place, dimension):
                culprit = worst
                break
        if worst is not None:
            found.append(worst)
    return Decision(tuple(found), culprit)


class LocalBuckets:
    """The same buckets inside one process, for as long as the shared store is away.

    Each worker then allows the full rate by itself; that is the price of staying up, and the hold
    still guards the money.
    """

    def __init__(self, *, max_entries: int = 65_536) -> None:
        self._max = max_entries
        self._kept: OrderedDict[str, tuple[float, list[float]]] = OrderedDict()

    def take(self, charge: Charge, now: float) -> Decision:
        """Take from every bucket, or from none."""
        levels = [self._levels(meter, now) for meter in charge.meters]
        refused = None if charge.forced else _first_short(charge, levels)
        if refused is None:
            for meter, level in zip(charge.meters, levels, strict=True):
                for dimension, rate in enumerate(meter.rates):
                    if rate is not None:
                        left = level[dimension] - charge.amounts[dimension]
                        level[dimension] = min(float(rate.burst), left)
                self._keep(meter.name, now, level)
        return decide(charge, levels, refused)

    def _levels(self, meter: Meter, now: float) -> list[float]:
        then, kept = self._kept.get(meter.name, (now, None))
        found = []
        for dimension, rate in enumerate(meter.rates):
            if rate is None:
                found.append(math.inf)
            elif kept is None:
                found.append(float(rate.burst))
            else:
                found.append(min(float(rate.burst), kept[dimension] + (now - then) * rate.per_s))
        return found

    def _keep(self, name: str, now: float, levels: list[float]) -> None:
        self._kept[name] = (now, levels)
        self._kept.move_to_end(name)
        while len(self._kept) > self._max:
            self._kept.popitem(last=False)


def _first_short(charge: Charge, levels: Sequence[Levels]) -> tuple[int, int] | None:
    for dimension in Dimension:
        amount = charge.amounts[dimension]
        if amount <= 0:
            continue
        for place, meter in enumerate(charge.meters):
            if meter.rates[dimension] is not None and levels[place][dimension] < amount:
                return place, dimension
    return None


def _names(dimension: str) -> tuple[bytes, bytes, bytes]:
    limit, remaining, reset = (
        f"x-ratelimit-{word}-{dimension}".encode("ascii")
        for word in ("limit", "remaining", "reset")
    )
    return limit, remaining, reset


_HEADERS = (_names("requests"), _names("input-tokens"), _names("output-tokens"))


def _duration(seconds: float) -> bytes:
    """Write a duration as OpenAI does: `250ms`, `6s`."""
    if seconds < 1:
        return b"%dms" % math.ceil(seconds * 1000)
    return b"%ds" % math.ceil(seconds)
