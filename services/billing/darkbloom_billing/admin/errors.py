"""Why an operator's command is refused; the word travels as `darkbloom-refusal`."""

from enum import StrEnum

from darkbloom.common.v1.error_reason_pb2 import ErrorReason
from darkbloom_mesh.errors import PreconditionError, UnauthenticatedError

REFUSAL_KEY = "darkbloom-refusal"


class OperatorRefusal(StrEnum):
    """The closed list."""

    NOT_REGISTERED = "not_registered"
    SAME_OPERATOR = "same_operator"
    CAPITAL_SHORT = "capital_short"
    BUDGET_SHORT = "budget_short"
    TOKEN_WRONG = "token_wrong"  # noqa: S105 - a word of the contract, not a credential
    NOT_PLANNED = "not_planned"
    NOT_PENDING = "not_pending"
    ERASURE_OPEN = "erasure_open"
    ALREADY_ERASED = "already_erased"
    ACCOUNT_CLOSING = "account_closing"
    MONEY_MOVING = "money_moving"
    BALANCE_LEFT = "balance_left"
    NOT_MANUAL = "not_manual"


_MESSAGES = {
    OperatorRefusal.NOT_REGISTERED: "budgets need the token of a registered operator",
    OperatorRefusal.SAME_OPERATOR: "a second operator has to approve",
    OperatorRefusal.CAPITAL_SHORT: "the owner's capital does not cover it",
    OperatorRefusal.BUDGET_SHORT: "the budget does not cover it",
    OperatorRefusal.TOKEN_WRONG: "the confirm token is not that of the plan",
    OperatorRefusal.NOT_PLANNED: "there is no plan to confirm",
    OperatorRefusal.NOT_PENDING: "there is no erasure to take back",
    OperatorRefusal.ERASURE_OPEN: "an erasure of this account is under way",
    OperatorRefusal.ALREADY_ERASED: "the account is erased",
    OperatorRefusal.ACCOUNT_CLOSING: "the account is being deleted, or is erased",
    OperatorRefusal.MONEY_MOVING: "a hold, a withdrawal or a dispute is open",
    OperatorRefusal.NOT_MANUAL: "the withdrawal does not wait for a person",
    OperatorRefusal.BALANCE_LEFT: "the account has money left; pay it out, or forfeit it",
}


class OperatorRefusedError(PreconditionError):
    """A rule for operators forbids it."""

    reason = ErrorReason.ERROR_REASON_OPERATOR_REFUSED

    def __init__(self, refusal: OperatorRefusal) -> None:
        super().__init__(_MESSAGES[refusal], metadata={REFUSAL_KEY: refusal.value})
        self.refusal = refusal


class OperatorUnknownError(UnauthenticatedError):
    """No operator has this token, or it is revoked."""
