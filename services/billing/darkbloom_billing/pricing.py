"""What requests cost, and which price row counts when. Integers only; each term rounds down."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from darkbloom_billing.model import PriceRow, PriceVersion

TOKENS_PER_UNIT = 1_000_000
"""Prices are per this many tokens."""
MAX_TOKENS = 1 << 24
"""Largest bound of a request, in tokens."""
MAX_PRICE_MICROS = 10_000_000_000
"""Dearest price: with the largest bounds a cost stays far below 2^63."""
MINIMUM_CHARGE_MICROS = 100
"""Smallest charge for a request that delivered anything."""
OFFER_SLACK = timedelta(minutes=2)
"""An offer may carry a row that was read this long before the hold: price lists are cached."""

FALLBACK_ID = "price_fallback"
_FALLBACK_INPUT_MICROS = 50_000
_FALLBACK_OUTPUT_MICROS = 200_000


def fallback(build: str) -> PriceRow:
    """Return the price of a build that has no row."""
    return PriceRow(
        price_id=FALLBACK_ID,
        build=build,
        input_micros=_FALLBACK_INPUT_MICROS,
        output_micros=_FALLBACK_OUTPUT_MICROS,
        cache_read_micros=default_cache_read(_FALLBACK_INPUT_MICROS),
        minimum_charge_micros=MINIMUM_CHARGE_MICROS,
    )


def default_cache_read(input_micros: int) -> int:
    """Return the price of cached input where none is set: half of the input price."""
    return input_micros * 50 // 100


def cost(price: PriceRow, *, prompt: int, cached: int, completion: int) -> int:
    """Return the price of tokens that were delivered, in micro-USD, the minimum included.

    Counts below 0 count as 0 and `cached` is a part of `prompt`, so no report can lower a bill
    below what its plain counts cost at the cache price.
    """
    prompt, completion = max(0, prompt), max(0, completion)
    cached = min(max(0, cached), prompt)
    raw = (
        (prompt - cached) * price.input_micros // TOKENS_PER_UNIT
        + cached * price.cache_read_micros // TOKENS_PER_UNIT
        + completion * price.output_micros // TOKENS_PER_UNIT
    )
    return max(raw, price.minimum_charge_micros)


def worst_case(price: PriceRow, *, prompt_bound: int, output_bound: int) -> int:
    """Return what a request may cost at most; no `cost` within the bounds is above it."""
    return cost(price, prompt=prompt_bound, cached=0, completion=output_bound)


class PriceBook:
    """All platform price rows, by build and time. Immutable: a change makes a new book."""

    def __init__(self, versions: Iterable[PriceVersion] = ()) -> None:
        self._by_build: dict[str, list[PriceVersion]] = {}
        for version in sorted(versions, key=lambda v: (v.effective_at, v.sequence)):
            self._by_build.setdefault(version.row.build, []).append(version)

    def in_force(self, build: str, at: datetime) -> PriceRow:
        """Return the row that prices a build at a time; the fallback where none does."""
        versions = self._by_build.get(build, [])
        index = bisect_right(versions, at, key=lambda version: version.effective_at)
        return versions[index - 1].row if index else fallback(build)

    def current(self, at: datetime) -> Sequence[PriceRow]:
        """Return the rows in force at a time, one for each build that has one, by build."""
        rows = (self.in_force(build, at) for build in sorted(self._by_build))
        return [row for row in rows if row.price_id != FALLBACK_ID]

    def offered(
        self, price_id: str, build: str, *, since: datetime, until: datetime
    ) -> PriceRow | None:
        """Return a row by id if it was in force at some time between, else None.

        Args:
            price_id: Id that an offer named.
            build: Build that was served.
            since: When the hold was placed; offers may be `OFFER_SLACK` older.
            until: Now.
        """
        start = since - OFFER_SLACK
        first = self.in_force(build, start)
        later = (
            version.row
            for version in self._by_build.get(build, [])
            if start < version.effective_at <= until
        )
        return next((row for row in (first, *later) if row.price_id == price_id), None)
