"""The rules of trust: levels, admissions and strikes (spec/security.md §4, §5)."""

import dataclasses
from datetime import timedelta

from darkbloom_edge.verdict import Admission, TrustLevel

from darkbloom_attestation.model import Standing

ANSWER_TIME = timedelta(seconds=30)
"""How long a provider may take."""
GRACE = timedelta(seconds=4)
"""Transport on top of it; together less than what the signed time may lie back."""
FRESHNESS = timedelta(minutes=16)
"""How long an answer counts."""
MAX_FAILURES = 3
"""Failed challenges in a row that untrust for good."""
TRANSIENT_TIMEOUTS = 3
"""Unanswered challenges in a row that suspend until the next pass."""
MAX_TIMEOUTS = 6
"""Unanswered challenges in a row that end the connection."""


def proven_level(registered: TrustLevel, *, posture_clean: bool) -> TrustLevel:
    """Return the level that a passed challenge proves.

    Only self-signed evidence is judged here. It proves possession of a key, not where the key is,
    so nothing above `self_signed` can come out, whatever the blob claims. What leads higher is in
    `ladder`.
    """
    return "self_signed" if registered != "none" and posture_clean else "none"


def admit(
    level: TrustLevel, *, development: bool, owner_account_id: str, runtime_verified: bool
) -> Admission | None:
    """Say whose requests a provider may get; None for nobody's.

    Args:
        level: what was proven.
        development: whether this mesh is one of development, which production never is.
        owner_account_id: account that the identity is linked to; empty for none.
        runtime_verified: whether its code is blessed. Without that nobody's.
    """
    if not runtime_verified:
        return None
    if level == "hardware":
        return "public"
    if development:
        return "development"

    return "owner" if owner_account_id else None


def after_pass(standing: Standing) -> Standing:
    """Forget strikes; what is untrusted for good stays so."""
    return Standing(untrusted=standing.untrusted)


def after_failure(standing: Standing, failure: str, *, untrust: bool) -> Standing:
    """Count a failed answer; untrust at once, or with the third in a row."""
    failures = standing.failures + 1
    hard = untrust or failures >= MAX_FAILURES
    untrusted = standing.untrusted or (failure if hard else "")

    # An answer came, so the line is alive.
    return Standing(failures=failures, untrusted=untrusted)


def after_timeout(standing: Standing) -> Standing:
    """Count a challenge that nobody answered."""
    return dataclasses.replace(standing, timeouts=standing.timeouts + 1)


def after_violation(standing: Standing, kind: str) -> Standing:
    """Untrust for good; the first reason stays."""
    return dataclasses.replace(standing, untrusted=standing.untrusted or f"violation_{kind}")


def after_contradiction(standing: Standing, reason: str) -> Standing:
    """Untrust for good: the device itself said that the registration lied."""
    return dataclasses.replace(standing, untrusted=standing.untrusted or reason)


def is_suspended(standing: Standing) -> bool:
    """Whether it gets no traffic until the next pass."""
    return standing.timeouts >= TRANSIENT_TIMEOUTS


def must_close(standing: Standing) -> bool:
    """Whether the connection is to be ended."""
    return standing.timeouts >= MAX_TIMEOUTS
