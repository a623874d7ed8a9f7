"""What an account and a key may ask of us: which meters, and how much of them a request takes."""

from collections.abc import Iterable
from dataclasses import dataclass

from darkbloom_gateway.buckets import Charge, Dimension, Meter, Rate
from darkbloom_gateway.errors import above_limit, prompt_above_limit
from darkbloom_gateway.model import ADMIN_ACCOUNT, KeyRecord

SERVICE = "service"
ESTIMATE_PART, ESTIMATE_FLOOR, ESTIMATE_CEILING = 4, 512, 8192
"""A service account may claim a quarter of its bound, within these tokens, and the rest later."""
USUAL_OUTPUT = 1024
"""Tokens that are claimed for an answer whose length nobody bounded."""
_MINUTE_S = 60


@dataclass(frozen=True, slots=True)
class Tier:
    """Limits of every account of one role; None lifts one."""

    requests: Rate | None
    input_tokens: Rate | None
    output_tokens: Rate | None
    estimates_output: bool = False
    """Whether a part of the output bound is claimed, and the rest when it is known."""

    @property
    def rates(self) -> tuple[Rate | None, Rate | None, Rate | None]:
        """The rates by dimension."""
        return self.requests, self.input_tokens, self.output_tokens


class Tiers:
    """The limits by role; the operator has none.

    Args:
        account: of everybody.
        service: of accounts with role `service`.
    """

    def __init__(self, *, account: Tier, service: Tier) -> None:
        self._account = account
        self._service = service

    def claim(
        self,
        key: KeyRecord,
        *,
        prompt_estimate: int,
        output_bound: int,
        asked: bool,
        choices: int = 1,
    ) -> Charge | None:
        """Return what one choice of a request takes; None where nothing limits it.

        Where less than the bound is claimed, the rest is taken once it is known.

        Args:
            key: who asks.
            prompt_estimate: of the prompt, in tokens.
            output_bound: of the answer, in tokens.
            asked: whether the caller named that bound; where nobody did, it is the model's, which
                hardly any answer comes near.
            choices: how many are wanted at once, each with a claim of its own.

        Raises:
            ApiError: 400 or 413: together they are more than a full bucket holds, so waiting is no
                use.
        """
        meters = self._meters(key)
        if not meters:
            return None
        if self._tier(key).estimates_output:
            output_bound = min(output_bound, _estimate(output_bound))
        if not asked:
            output_bound = min(output_bound, _usual(meters, choices))
        charge = Charge(meters, (1, prompt_estimate, output_bound))
        for meter in meters:
            for dimension in Dimension:
                rate, amount = meter.rates[dimension], choices * charge.amounts[dimension]
                if rate is not None and amount > rate.burst:
                    words = dimension.name.lower().replace("_", " ")
                    refuse = (
                        prompt_above_limit if dimension is Dimension.INPUT_TOKENS else above_limit
                    )
                    raise refuse(meter.owner, words, amount, rate.burst)
        return charge

    def _tier(self, key: KeyRecord) -> Tier:
        return self._service if key.account_role == SERVICE else self._account

    def _meters(self, key: KeyRecord) -> tuple[Meter, ...]:
        """Return the key's own meter before its account's: a key narrows, it never widens."""
        if key.account_id == ADMIN_ACCOUNT:
            return ()
        own = (
            _per_minute(key.rpm_limit),
            _per_minute(key.itpm_limit),
            _per_minute(key.otpm_limit),
        )
        rates = self._tier(key).rates
        found = []
        if any(own):
            found.append(Meter(f"{key.account_id}:{key.key_id}", own, "key"))
        if any(rates):
            found.append(Meter(key.account_id, rates))
        return tuple(found)


def _per_minute(limit: int | None) -> Rate | None:
    """Return a key's rate: the limit per minute, all of which may be used at once."""
    if limit is None:
        return None
    return Rate(max(limit, 0) / _MINUTE_S or 1e-9, max(limit, 0))


def _estimate(output_bound: int) -> int:
    part = output_bound // ESTIMATE_PART
    return max(ESTIMATE_FLOOR, min(ESTIMATE_CEILING, part))


def _usual(meters: Iterable[Meter], choices: int) -> int:
    rates = (meter.rates[Dimension.OUTPUT_TOKENS] for meter in meters)
    bursts = [rate.burst // choices for rate in rates if rate is not None]
    return max(1, min(USUAL_OUTPUT, *bursts)) if bursts else USUAL_OUTPUT
