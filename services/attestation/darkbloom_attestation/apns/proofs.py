"""When a stored code proof allows to ask over the stream instead of pushing (security §10).

A stored proof authorises the question, never the grant: whatever is decided here, the provider
still has to open a nonce with K and sign it.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

PROOF_LIFE = timedelta(minutes=30)
"""How long a proof allows the question."""
MAX_GAP = timedelta(seconds=120)
"""Longest gap in which one process counts as continuously verified."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeProof:
    """A push that was answered."""

    identity_key: bytes
    """65 bytes."""
    encryption_key: bytes
    """K that opened it."""
    push_token_hash: str
    version: str
    """Version of the agent that answered."""
    prove_time: datetime
    """When the push was answered."""
    last_seen_time: datetime
    """When this process last passed a challenge; our clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The session that is to prove itself."""

    identity_key: bytes
    encryption_key: bytes
    push_token_hash: str
    version: str


class Resume(StrEnum):
    """What a stored proof allows."""

    SAME_PROCESS = "same_process"
    """Same keys, token and version, proven less than 30 minutes ago."""
    CONTINUITY = "continuity"
    """The same process, seen all the time with no gap above 120 s."""
    APPROVED_RELEASE_TRANSITION = "approved_release_transition"
    """Another blessed version, proven less than 30 minutes ago."""
    PUSH = "push"
    """Nothing: it must be pushed."""


def may_resume(
    proof: CodeProof | None, asked: Asked, now: datetime, *, transition_approved: bool
) -> Resume:
    """Say whether a proof allows the question over the stream.

    Args:
        proof: the newest one of this identity key; None for none.
        asked: the session as it is now.
        now: the present.
        transition_approved: whether both versions are blessed releases.
    """
    if proof is None or proof.prove_time > now or proof.identity_key != asked.identity_key:
        return Resume.PUSH
    if proof.push_token_hash != asked.push_token_hash:
        return Resume.PUSH

    fresh = now - proof.prove_time < PROOF_LIFE
    same_process = proof.encryption_key == asked.encryption_key
    same_version = proof.version == asked.version
    if same_process and same_version:
        if fresh:
            return Resume.SAME_PROCESS
        seen = timedelta() <= now - proof.last_seen_time <= MAX_GAP
        return Resume.CONTINUITY if seen else Resume.PUSH
    # A new version is a new process, so K has changed with it.
    if not same_version and fresh and transition_approved:
        return Resume.APPROVED_RELEASE_TRANSITION

    return Resume.PUSH
