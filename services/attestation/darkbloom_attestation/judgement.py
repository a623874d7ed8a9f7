"""What an answered challenge led to."""

from dataclasses import dataclass

from darkbloom_edge.verdict import TrustLevel

from darkbloom_attestation.evidence import TrustReason
from darkbloom_attestation.model import IssuedVerdict, RuntimeFinding


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What an answered challenge led to."""

    passed: bool
    failure: str
    """Empty after a pass."""
    untrust: bool
    """Untrusted for this connection."""
    trust_level: TrustLevel
    verdict: IssuedVerdict | None
    runtime_findings: tuple[RuntimeFinding, ...]
    reasons: tuple[TrustReason, ...] = ()
    """Why the level is what it is, the most important first."""
    evidence_findings: tuple[str, ...] = ()
    """What was refused of the device evidence."""
    ask_posture: bool = False
    """Whether its device should be asked how it stands."""
