"""Errors of billing; each is a class of the mesh with its reason."""

from collections.abc import Mapping

from darkbloom.common.v1.error_reason_pb2 import ErrorReason
from darkbloom_mesh.errors import (
    ConflictError,
    InvalidArgumentError,
    MeshError,
    NotFoundError,
    PreconditionError,
    UnauthenticatedError,
    UnavailableError,
)

from darkbloom_billing.model import HoldOutcome, HoldRefusal


class KeyUnknownError(UnauthenticatedError):
    """No API key has this hash."""

    reason = ErrorReason.ERROR_REASON_KEY_UNKNOWN


class KeyRevokedError(UnauthenticatedError):
    """The API key was revoked or has expired."""

    reason = ErrorReason.ERROR_REASON_KEY_REVOKED


class UnlinkedError(NotFoundError):
    """The identity key is linked to no account."""

    reason = ErrorReason.ERROR_REASON_UNLINKED


class HoldEndedError(PreconditionError):
    """The hold was settled, released or swept before."""

    reason = ErrorReason.ERROR_REASON_HOLD_ENDED


class InsufficientFundsError(PreconditionError):
    """Available money is below what the hold needs."""

    reason = ErrorReason.ERROR_REASON_INSUFFICIENT_FUNDS


class KeyCapReachedError(PreconditionError):
    """The key's spend cap is below what the hold needs."""

    reason = ErrorReason.ERROR_REASON_KEY_CAP_REACHED


class PriceTooHighError(InvalidArgumentError):
    """An own price is above what the platform allows for this build."""

    reason = ErrorReason.ERROR_REASON_PRICE_TOO_HIGH


class WithdrawalsStoppedError(PreconditionError):
    """No withdrawal may begin now; metadata `darkbloom-cause`: payable, audit or funds."""

    reason = ErrorReason.ERROR_REASON_WITHDRAWALS_STOPPED

    @classmethod
    def because(cls, cause: str) -> "WithdrawalsStoppedError":
        """Return the error with its cause."""
        return cls("withdrawals are stopped for now", metadata={"darkbloom-cause": cause})


class AccountFrozenError(PreconditionError):
    """The account owes money, or an operator froze it."""

    reason = ErrorReason.ERROR_REASON_ACCOUNT_FROZEN

    @classmethod
    def of(cls, debt_micros: int) -> "AccountFrozenError":
        """Return the error with what is owed."""
        return cls("account is frozen", metadata={"darkbloom-debt-micros": str(debt_micros)})


class BudgetExhaustedError(InsufficientFundsError):
    """A programme's budget has less than is asked of it; metadata `darkbloom-budget`."""

    @classmethod
    def of(cls, budget: str, required: int, available: int) -> "BudgetExhaustedError":
        """Return the error with the budget's name and the money that is needed and there."""
        return cls(
            "the budget has less",
            metadata={
                "darkbloom-budget": budget,
                "darkbloom-required-micros": str(required),
                "darkbloom-available-micros": str(available),
            },
        )


class OpenBusinessError(PreconditionError):
    """The account cannot be emptied while a hold, withdrawal or dispute is open."""

    reason = ErrorReason.ERROR_REASON_OPERATOR_REFUSED

    def __init__(self, message: str) -> None:
        super().__init__(message, metadata={"darkbloom-refusal": "open_business"})


class KeysUnavailableError(UnavailableError):
    """A document names a key that is not known here, and attestation cannot be asked."""


_ERRORS: Mapping[HoldRefusal, tuple[type[MeshError], str]] = {
    HoldRefusal.INSUFFICIENT_FUNDS: (InsufficientFundsError, "not enough money for the hold"),
    HoldRefusal.KEY_CAP_REACHED: (KeyCapReachedError, "key cap is below the hold"),
    HoldRefusal.KEY_REVOKED: (KeyRevokedError, "key is revoked"),
    HoldRefusal.ACCOUNT_FROZEN: (AccountFrozenError, "account is frozen"),
    HoldRefusal.HOLD_ENDED: (HoldEndedError, "hold has ended"),
    HoldRefusal.IDEMPOTENCY_CONFLICT: (ConflictError, "the same id came before, but different"),
    HoldRefusal.NOT_FOUND: (NotFoundError, "no such hold"),
    HoldRefusal.INVALID_ARGUMENT: (InvalidArgumentError, "extensions are numbered without gaps"),
}


def refusal_error(outcome: HoldOutcome) -> MeshError:
    """Return the error of a refused extension, with the money that is needed and there."""
    kind, message = _ERRORS[outcome.refusal or HoldRefusal.NOT_FOUND]
    return kind(
        message,
        metadata={
            "darkbloom-required-micros": str(outcome.required_micros),
            "darkbloom-available-micros": str(outcome.available_micros),
        },
    )
