"""The last rung: what `hardware` needs, and when trust of an earlier session may be reused.

Pure rules (spec/security.md §4, our stronger form). `hardware` stands on two legs. **Key
provenance**: an attested app has signed a statement that names this session, K, the enclave key and
the serial. **Posture**: that serial, with that enclave key, has SIP on and full security, seen
since this session began. The first without the second is a good app on an open machine, the second
without the first is somebody else's good machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from darkbloom_attestation.evidence import (
    Continuity,
    Grounds,
    KeyProof,
    Posture,
    PostureKind,
    TrustReason,
)

KEY_PROOF_LIFETIME = timedelta(minutes=16)
"""How long a statement of an attested app counts; it comes with every challenge."""
POSTURE_LIFETIME = timedelta(hours=24)
"""How long a posture counts without being seen again, on a stream that never breaks."""
RENEW_BEFORE = timedelta(hours=1)
"""How long before its end a posture is asked for again."""
REUSE_WINDOW = timedelta(minutes=5)
"""Since the last live proof: how long after it another session may go on with its posture."""
RECONNECT_GAP = timedelta(seconds=90)
"""Since a session was last seen alive: less than a round trip through Recovery takes."""
LEAST_LIFE = timedelta(seconds=30)
"""Evidence that ends sooner than this is not worth a verdict."""

_STRENGTH = {PostureKind.SECURITY_INFO: 1, PostureKind.MDA: 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """From when on a new session's device evidence counts, and why."""

    posture_since: datetime
    reason: TrustReason | None
    """The reuse decision; None where nothing is reused."""


def begin(
    now: datetime,
    *,
    serial_hash: bytes,
    runtime_hash: str,
    binary_hash: str | None,
    before: Continuity | None,
    release_known: bool,
) -> Beginning:
    """Decide whether a new session goes on where the one before it ended.

    Evidence is reused, never a level: what this allows is only that posture seen before this
    session began still counts. A fresh challenge and a fresh statement over the new K stay needed.

    Args:
        now: when the session began.
        serial_hash: of the serial that the blob names; empty where it names none.
        runtime_hash: of the code that it says it runs.
        binary_hash: the same of its binary.
        before: the last session of the same enclave key that proved `hardware` and was not
            untrusted; None where there is none.
        release_known: whether the new code is blessed.
    """
    # What was seen a moment before cannot hide a reboot into Recovery either.
    fresh = Beginning(posture_since=now - RECONNECT_GAP, reason=None)
    if before is None or not serial_hash or before.serial_hash != serial_hash:
        return fresh
    same = before.runtime_hash == runtime_hash and before.binary_hash == binary_hash
    if not same and not release_known:
        return fresh

    if before.proof_time is not None and timedelta(0) <= now - before.proof_time <= REUSE_WINDOW:
        reason = TrustReason.SAME_BINARY if same else TrustReason.APPROVED_RELEASE_TRANSITION
    elif before.seen_time is not None and timedelta(0) <= now - before.seen_time <= RECONNECT_GAP:
        reason = TrustReason.CONTINUITY if same else TrustReason.CONTINUITY_RELEASE_TRANSITION
    else:
        return fresh

    return Beginning(posture_since=before.posture_since, reason=reason)


def climb(
    proof: KeyProof | None,
    postures: Sequence[Posture],
    *,
    posture_since: datetime,
    now: datetime,
) -> Grounds | TrustReason:
    """Return what `hardware` stands on, or the first thing that is missing.

    Args:
        proof: newest key proof of this session.
        postures: postures of the same serial and enclave key, newest first.
        posture_since: from when on they count.
        now: the present.
    """
    if proof is None or proof.expire_time - now < LEAST_LIFE:
        return TrustReason.KEY_PROOF_MISSING

    about = [
        posture
        for posture in postures
        if (posture.serial_hash, posture.identity_key) == (proof.serial_hash, proof.identity_key)
    ]
    if not about:
        return TrustReason.POSTURE_MISSING
    fresh = [
        posture
        for posture in about
        if posture.observe_time >= posture_since and posture.expire_time - now >= LEAST_LIFE
    ]
    if not fresh:
        return TrustReason.POSTURE_STALE
    newest = max(fresh, key=lambda posture: posture.observe_time)
    if not newest.good:
        return TrustReason.POSTURE_MISMATCH

    # Among good ones the one that Apple signed says more than the one that only we saw.
    best = max(
        (posture for posture in fresh if posture.good),
        key=lambda posture: (_STRENGTH[posture.kind], posture.observe_time),
    )
    return Grounds(proof=proof, posture=best)


def outranks(newcomer: PostureKind, incumbent: PostureKind) -> bool:
    """Whether a stream may take a serial from another enclave key: only with better evidence."""
    return _STRENGTH[newcomer] > _STRENGTH[incumbent]


def expiry(grounds: Grounds, latest: datetime) -> datetime:
    """Return when a verdict on these grounds ends: no later than any leg."""
    return min(latest, grounds.proof.expire_time, grounds.posture.expire_time)
