"""Cents and fees. Pure integer arithmetic; nothing is rounded in the platform's favour twice."""

from darkbloom_billing.payments.model import (
    CENT_MICROS,
    INSTANT_FEE_BPS,
    INSTANT_FEE_MIN_MICROS,
    Method,
    Quote,
)

CARD_FEE_BPS = 290
CARD_FEE_FIXED_CENTS = 30
_WHOLE = 10_000


def fee_line(amount_micros: int) -> int:
    """Return what must be paid on top, in micro-USD, so that Stripe's fee is covered.

    Stripe takes 2.9 % of the total, its own line included, and 30 cents; rounded up to a cent.
    """
    cents = amount_micros // CENT_MICROS
    total = -(-(cents + CARD_FEE_FIXED_CENTS) * _WHOLE // (_WHOLE - CARD_FEE_BPS))
    return (total - cents) * CENT_MICROS


def without_line(total_micros: int) -> int | None:
    """Return the amount whose total with its line is this; None: there is none.

    The inverse of adding `fee_line`, by bisection: a larger amount always has a larger total.
    """
    low, high = 0, total_micros // CENT_MICROS
    while low < high:
        middle = (low + high) // 2 * CENT_MICROS
        if middle + fee_line(middle) < total_micros:
            low = middle // CENT_MICROS + 1
        else:
            high = middle // CENT_MICROS
    amount = low * CENT_MICROS
    return amount if amount and amount + fee_line(amount) == total_micros else None


def expected_fee(total_micros: int) -> int:
    """Return what Stripe will take of a total, in micro-USD, rounded up to a cent."""
    cents = total_micros // CENT_MICROS
    return (-(-cents * CARD_FEE_BPS // _WHOLE) + CARD_FEE_FIXED_CENTS) * CENT_MICROS


def quote(amount_micros: int, method: Method) -> Quote:
    """Return fee and net of a withdrawal; the net is whole cents, the rest of a cent is fee."""
    fee = 0
    if method is Method.INSTANT:
        fee = max(amount_micros * INSTANT_FEE_BPS // _WHOLE, INSTANT_FEE_MIN_MICROS)
    net = max(amount_micros - fee, 0) // CENT_MICROS * CENT_MICROS
    return Quote(amount_micros=amount_micros, fee_micros=amount_micros - net, net_micros=net)


def line_shares(refunds: list[int], total: int, line: int) -> list[int]:
    """Split refunds of a total so that the line's parts add up to the line exactly.

    Args:
        refunds: amounts in the order in which they were made.
        total: what was paid.
        line: the part of it that covered Stripe's fee.
    """
    shares, before = [], 0
    for amount in refunds:
        after = before + amount
        shares.append(after * line // total - before * line // total)
        before = after
    return shares
