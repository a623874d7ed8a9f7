"""What an error of the SDK proves: that nothing happened, or nothing at all."""

import stripe

from darkbloom_billing.payments.errors import StripeFailedError
from darkbloom_billing.payments.model import Fault

_NO_FUNDS = frozenset({"balance_insufficient", "insufficient_funds"})
_GONE = frozenset({"account_invalid", "resource_missing", "account_closed"})
_MAX_WORD = 64


def classify(error: Exception) -> StripeFailedError:
    """Return our error. Whatever is not a plain refusal leaves open whether it happened."""
    if not isinstance(error, stripe.StripeError):
        return StripeFailedError(Fault.UNKNOWN, "unknown")
    word = _word(error)
    if isinstance(error, stripe.InvalidRequestError | stripe.CardError):
        if word in _NO_FUNDS:
            return StripeFailedError(Fault.NO_FUNDS, word)
        return StripeFailedError(Fault.GONE if word in _GONE else Fault.REFUSED, word)
    if isinstance(error, stripe.PermissionError):
        return StripeFailedError(Fault.GONE, word)
    # An idempotency conflict, a rate limit, a bad key: refused now, but not for good.
    return StripeFailedError(Fault.UNKNOWN, word)


def _word(error: stripe.StripeError) -> str:
    """Return Stripe's code, never its text, which may quote what a person typed."""
    code = error.code
    if isinstance(code, str) and code.isascii() and code.replace("_", "").isalnum():
        return code[:_MAX_WORD]
    return {
        stripe.APIConnectionError: "no_answer",
        stripe.RateLimitError: "rate_limited",
        stripe.AuthenticationError: "bad_key",
        stripe.PermissionError: "account_invalid",
        stripe.IdempotencyError: "idempotency",
    }.get(type(error), "stripe_error")
