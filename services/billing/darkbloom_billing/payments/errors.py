"""Errors of payments; each is a class of the mesh with its reason."""

from enum import StrEnum

from darkbloom.common.v1.error_reason_pb2 import ErrorReason
from darkbloom_mesh.errors import NotFoundError, PreconditionError, UnavailableError

from darkbloom_billing.payments.model import Fault


class NotConfiguredError(PreconditionError):
    """Billing has no Stripe key, or no secret for this webhook."""

    reason = ErrorReason.ERROR_REASON_PAYMENTS_NOT_CONFIGURED


class DepositsStoppedError(PreconditionError):
    """The platform should bear Stripe's fee and its budget is empty."""

    reason = ErrorReason.ERROR_REASON_DEPOSITS_STOPPED


class StripeFailedError(UnavailableError):
    """Stripe refused, failed or did not answer; `fault` says what that proves."""

    reason = ErrorReason.ERROR_REASON_STRIPE_FAILED

    def __init__(self, fault: Fault, word: str) -> None:
        super().__init__("stripe did not do it", metadata={"darkbloom-stripe": word})
        self.fault = fault
        self.word = word
        """One of Stripe's own codes, or ours for silence; never text."""


class CardRefusedError(Exception):
    """The saved card was not charged; its holder has to do something."""

    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.word = word


class Refusal(StrEnum):
    """Why a payout command is not possible."""

    NOT_ONBOARDED = "not_onboarded"
    INSUFFICIENT_WITHDRAWABLE = "insufficient_withdrawable"
    INSTANT_UNAVAILABLE = "instant_unavailable"
    ACCOUNT_GONE = "account_gone"
    ACCOUNT_FROZEN = "account_frozen"
    STOPPED = "stopped"
    NO_CARD = "no_card"
    RECREATE_REQUIRED = "recreate_required"


_MESSAGES = {
    Refusal.NOT_ONBOARDED: "the connected account cannot be paid out to yet",
    Refusal.INSUFFICIENT_WITHDRAWABLE: "not so much is withdrawable",
    Refusal.INSTANT_UNAVAILABLE: "an instant payout needs a debit card",
    Refusal.ACCOUNT_GONE: "the connected account is not there any more",
    Refusal.ACCOUNT_FROZEN: "the account is frozen",
    Refusal.STOPPED: "withdrawals are stopped for now",
    Refusal.NO_CARD: "there is no saved card",
    Refusal.RECREATE_REQUIRED: "the connected account cannot be kept: its country or agreement",
}


class PayoutRefusedError(PreconditionError):
    """A payout command is not possible for this account now."""

    reason = ErrorReason.ERROR_REASON_PAYOUT_REFUSED

    def __init__(self, refusal: Refusal, *, available_micros: int | None = None) -> None:
        facts = {"darkbloom-refusal": refusal.name}
        if available_micros is not None:
            facts["darkbloom-available-micros"] = str(available_micros)
        super().__init__(_MESSAGES[refusal], metadata=facts)
        self.refusal = refusal


class UnmatchedError(NotFoundError):
    """Something at Stripe names a session that is not ours, or not like ours: a person looks."""


class NotYetError(UnavailableError):
    """Stripe has not finished, or an earlier event has not acted; the event comes again."""
