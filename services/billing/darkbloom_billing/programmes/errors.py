"""Why an invite or a referral is refused; the word travels as `darkbloom-refusal`."""

from enum import StrEnum

from darkbloom.common.v1.error_reason_pb2 import ErrorReason
from darkbloom_mesh.errors import PreconditionError

REFUSAL_KEY = "darkbloom-refusal"


class Refusal(StrEnum):
    """The closed list."""

    INVITE_INACTIVE = "invite_inactive"
    INVITE_EXPIRED = "invite_expired"
    INVITE_EXHAUSTED = "invite_exhausted"
    INVITE_REDEEMED = "invite_redeemed"
    BUDGET_SHORT = "budget_short"
    CODE_TAKEN = "code_taken"
    SELF_REFERRAL = "self_referral"
    REFERRER_FIXED = "referrer_fixed"


_MESSAGES = {
    Refusal.INVITE_INACTIVE: "invite is not active",
    Refusal.INVITE_EXPIRED: "invite has expired",
    Refusal.INVITE_EXHAUSTED: "invite is used up",
    Refusal.INVITE_REDEEMED: "this account has redeemed the invite before",
    Refusal.BUDGET_SHORT: "the programme's budget is used up",
    Refusal.CODE_TAKEN: "another account has this code",
    Refusal.SELF_REFERRAL: "an account cannot refer itself",
    Refusal.REFERRER_FIXED: "the account has another referrer, for ever",
}


class ProgrammeRefusedError(PreconditionError):
    """The programme's rules do not allow it."""

    reason = ErrorReason.ERROR_REASON_PROGRAMME_REFUSED

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(_MESSAGES[refusal], metadata={REFUSAL_KEY: refusal.value})
        self.refusal = refusal
