"""Attestation over bytes: registration blobs, canonical status, challenges. Pure, clock passed in.

Used by the attestation service, which judges, and by the provider, which answers.
"""

from darkbloom_edge.challenge import (
    Challenge,
    ChallengeFault,
    ChallengeFinding,
    ChallengeOutcome,
    Expected,
    Severity,
    StatusReport,
    answer_challenge,
    challenge_status,
    new_challenge,
    verify_challenge,
)
from darkbloom_edge.registration import (
    POSTURE_FAULTS,
    FaultKind,
    RegistrationBlob,
    RegistrationFault,
    RegistrationFinding,
    RegistrationOutcome,
    build_registration,
    verify_registration,
)
from darkbloom_edge.status import canonical_status

__all__ = [
    "POSTURE_FAULTS",
    "Challenge",
    "ChallengeFault",
    "ChallengeFinding",
    "ChallengeOutcome",
    "Expected",
    "FaultKind",
    "RegistrationBlob",
    "RegistrationFault",
    "RegistrationFinding",
    "RegistrationOutcome",
    "Severity",
    "StatusReport",
    "answer_challenge",
    "build_registration",
    "canonical_status",
    "challenge_status",
    "new_challenge",
    "verify_challenge",
    "verify_registration",
]
