"""Why the client refuses: a closed list, and the one exception that carries it."""

from enum import StrEnum
from typing import final


class Reason(StrEnum):
    """What did not hold. Nothing is ever taken on weaker terms instead."""

    VERDICT_UNPINNED = "verdict_unpinned"
    """The verdict is signed by a key that is not pinned."""
    VERDICT_FORGED = "verdict_forged"
    """The verdict's signature does not hold, or it is not a verdict."""
    VERDICT_EXPIRED = "verdict_expired"
    """The verdict is not in force by our own clock."""
    KEY_SWAPPED = "key_swapped"
    """The offer names another key or machine than the verdict does."""
    TRUST_TOO_LOW = "trust_too_low"
    """The machine's level is below what the policy requires."""
    EVIDENCE_MISSING = "evidence_missing"
    """What the policy requires is not shown; the operator's word about it does not count."""
    EVIDENCE_FORGED = "evidence_forged"
    """Shown evidence does not hold, or speaks of another machine or key."""
    EVIDENCE_STALE = "evidence_stale"
    """The evidence is older than the policy allows, by our own clock."""
    RELEASE_NOT_ALLOWED = "release_not_allowed"
    """The machine runs code that the policy does not list."""
    RELEASE_NOT_LOGGED = "release_not_logged"
    """The release is not proven to be in the pinned log."""
    RELEASE_WITHDRAWN = "release_withdrawn"
    """The log says that the release was taken back."""
    LOG_UNPINNED = "log_unpinned"
    """The log's head is not signed by a pinned key."""
    LOG_STALE = "log_stale"
    """The log's head is older than the policy allows."""
    LOG_REWRITTEN = "log_rewritten"
    """The log has not grown out of a head that we have seen."""
    OFFER_MALFORMED = "offer_malformed"
    """The gateway's offer cannot be read, or contradicts itself."""
    OFFER_REPLAYED = "offer_replayed"
    """The offer answers another nonce than ours, or one that we had before."""
    BUILD_CHANGED = "build_changed"
    """The offer is for a model that was not asked for."""
    BOUNDS_CHANGED = "bounds_changed"
    """The offer's bounds do not fit what was asked."""
    PRICE_TOO_HIGH = "price_too_high"
    """The offer's price row is above what the policy allows, or what the list says."""
    CHUNK_ALTERED = "chunk_altered"
    """A sealed chunk is not the next one: altered, dropped, repeated or out of order."""
    NONCE_WRONG = "nonce_wrong"
    """The answer does not carry the nonce of this request."""
    COUNTS_FALSE = "counts_false"
    """Token counts that cannot be true, or are not those inside the boxes."""
    ANSWER_TRUNCATED = "answer_truncated"
    """The answer ended before its final chunk."""
    TERMINAL_MISSING = "terminal_missing"
    """The provider's signed last word did not come."""
    TERMINAL_FORGED = "terminal_forged"
    """The signed last word is not the provider's, or does not say what came."""
    RECEIPT_MISSING = "receipt_missing"
    """The gateway's countersigned receipt did not come."""
    RECEIPT_FORGED = "receipt_forged"
    """The receipt does not hold against pinned keys and the log."""
    PLAINTEXT_PATH = "plaintext_path"
    """The request, or the credential, would have left in plaintext."""


@final
class RefusedError(Exception):
    """The policy, or the protocol, is not satisfied; holds no content and no key.

    Args:
        reason: which rule.
        expected: what would have done.
        found: what there was.
    """

    def __init__(self, reason: Reason, *, expected: str, found: str) -> None:
        super().__init__(f"refused, {reason.value}: expected {expected}, found {found}")
        self.reason = reason
        self.expected = expected
        self.found = found

    @property
    def kind(self) -> str:
        """`type` of the event that ends a broken stream."""
        return self.reason.value
