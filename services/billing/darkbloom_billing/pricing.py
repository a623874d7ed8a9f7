"""What requests cost, and which price row counts when. Integers only; each term rounds down."""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
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
WHOLESALE_MINIMUM_MICROS = 1
"""Smallest charge of a service account: something, where anything was delivered."""
MAX_OWN_RATIO = 4
"""A provider's own rates are at most this many times the platform's."""
OFFER_SLACK = timedelta(minutes=2)
"""An offer may carry a row that was read this long before the hold: price lists are cached."""

FALLBACK_ID = "price_fallback"
_PLATFORM = ""
_WHOLESALE = ":wholesale"
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


def affordable_tokens(price: PriceRow, *, prompt_bound: int, available_micros: int) -> int:
    """Return the largest output bound whose worst case beside this prompt money covers.

    0 where it covers not even the minimum charge, or not the prompt and one token.
    """
    prompt = prompt_bound * price.input_micros // TOKENS_PER_UNIT
    left = available_micros - prompt
    if left < 0 or available_micros < price.minimum_charge_micros:
        return 0
    return min(MAX_TOKENS, ((left + 1) * TOKENS_PER_UNIT - 1) // price.output_micros)


def wholesale(price: PriceRow) -> PriceRow:
    """Return the row as a service account pays it: without the minimum, but never nothing."""
    return replace(
        price,
        price_id=price.price_id + _WHOLESALE,
        minimum_charge_micros=WHOLESALE_MINIMUM_MICROS,
    )


def is_wholesale(price: PriceRow) -> bool:
    """Say whether this is a service account's row, which no provider's own price replaces."""
    return price.price_id.endswith(_WHOLESALE)


def too_high(price: PriceRow, platform: PriceRow) -> tuple[str, int] | None:
    """Return the first rate of an own price that is above its limit, and the limit."""
    for rate in ("input_micros", "output_micros", "cache_read_micros"):
        limit = getattr(platform, rate) * MAX_OWN_RATIO
        if getattr(price, rate) > limit:
            return rate, limit
    return None


Key = tuple[str, str]
"""Account and build; the platform's account is empty."""


class PriceBook:
    """The price rows that may still matter, by owner, build and time. Immutable.

    Args:
        versions: Rows of the platform and of providers.
        service_accounts: Who pays the platform's price without its minimum.
    """

    def __init__(
        self, versions: Iterable[PriceVersion] = (), service_accounts: Collection[str] = ()
    ) -> None:
        self._versions: dict[Key, list[PriceVersion]] = {}
        self._owners: dict[str, Key] = {}
        self._service_accounts = frozenset(service_accounts)
        for version in sorted(versions, key=lambda v: (v.effective_at, v.sequence)):
            key = (version.row.account_id, version.row.build)
            self._versions.setdefault(key, []).append(version)
            self._owners[version.row.price_id] = key

    def in_force(self, build: str, at: datetime) -> PriceRow:
        """Return the platform's row of a build at a time; the fallback where there is none."""
        return self._row((_PLATFORM, build), at) or fallback(build)

    def for_payer(self, account_id: str, build: str, at: datetime) -> PriceRow:
        """Return what a hold of this account assumes, before any provider is known."""
        row = self.in_force(build, at)
        return wholesale(row) if account_id in self._service_accounts else row

    def own(self, account_id: str, build: str, at: datetime) -> PriceRow | None:
        """Return an account's own row at a time, while it keeps to the platform's limit.

        The platform may have become cheaper since the row was set.
        """
        row = self._row((account_id, build), at) if account_id else None
        if row is None or too_high(row, self.in_force(build, at)) is not None:
            return None
        return row

    def all_own(self, at: datetime) -> dict[Key, PriceRow]:
        """Return every own row in force at a time, by account and build."""
        rows = {key: self.own(*key, at) for key in self._versions if key[0] != _PLATFORM}
        return {key: row for key, row in rows.items() if row is not None}

    def current(self, at: datetime) -> Sequence[PriceRow]:
        """Return the platform's rows in force at a time, one for each build that has one."""
        builds = sorted(build for owner, build in self._versions if owner == _PLATFORM)
        rows = (self._row((_PLATFORM, build), at) for build in builds)
        return [row for row in rows if row is not None]

    def offered(
        self, price_id: str, build: str, *, since: datetime, until: datetime
    ) -> PriceRow | None:
        """Return a row by id, whoever's it is, if it was in force at some time between.

        Args:
            price_id: Id that an offer named.
            build: Build that was served.
            since: When the hold was placed; offers may be `OFFER_SLACK` older.
            until: Now.
        """
        start = since - OFFER_SLACK
        owner, priced = self._owners.get(price_id, (_PLATFORM, build))
        if priced != build:
            return None
        platform = self._rows((_PLATFORM, build), start, until)
        if owner == _PLATFORM:
            return next((row for row in platform if row.price_id == price_id), None)
        own = (row for row in self._rows((owner, build), start, until) if row.price_id == price_id)
        row = next(own, None)
        kept = row is not None and any(too_high(row, limit) is None for limit in platform)
        return row if kept else None

    def _row(self, key: Key, at: datetime) -> PriceRow | None:
        versions = self._versions.get(key, [])
        index = bisect_right(versions, at, key=lambda version: version.effective_at)
        last = versions[index - 1] if index else None
        return None if last is None or last.ended else last.row

    def _rows(self, key: Key, start: datetime, until: datetime) -> list[PriceRow]:
        """Return the rows that were in force at some time between, the fallback included."""
        first = self._row(key, start)
        if first is None and key[0] == _PLATFORM:
            first = fallback(key[1])
        later = [
            version.row
            for version in self._versions.get(key, [])
            if start < version.effective_at <= until and not version.ended
        ]
        return later if first is None else [first, *later]
