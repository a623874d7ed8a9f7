"""What a passed challenge is worth: a level, an admission, a verdict, or a contradiction."""

from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import final

from darkbloom_edge.attestation import Challenge, ChallengeOutcome, StatusReport
from darkbloom_edge.release import code_release_id
from darkbloom_edge.verdict import TrustLevel

from darkbloom_attestation import policy
from darkbloom_attestation.evidence import DeviceEvidence, Grounds, TrustReason
from darkbloom_attestation.hardware import Claim, Hardware
from darkbloom_attestation.issue import Issuer
from darkbloom_attestation.judgement import Judgement
from darkbloom_attestation.model import (
    IssuedChallenge,
    IssuedRevocation,
    IssuedVerdict,
    Measured,
    Registration,
    Session,
)
from darkbloom_attestation.ports import Transaction
from darkbloom_attestation.runtime import check_runtime


@dataclass(frozen=True, slots=True, kw_only=True)
class _Issue:
    """What every verdict of one passed challenge has in common."""

    registration: Registration
    challenge_id: str
    code_release: str
    runtime_verified: bool


@final
class Passing:
    """Turns passed challenges into verdicts, inside the transaction that judges them."""

    def __init__(self, issuer: Issuer, hardware: Hardware, *, development: bool) -> None:
        self._issuer = issuer
        self._hardware = hardware
        self._development = development

    async def take(
        self,
        change: Transaction,
        session: Session,
        challenge: IssuedChallenge,
        report: StatusReport,
        outcome: ChallengeOutcome,
        shown: DeviceEvidence | None,
        now: datetime,
    ) -> Judgement:
        """Give a session what its passed challenge and its device evidence prove.

        Args:
            change: the running transaction; it holds the session.
            session: that answered.
            challenge: that was passed.
            report: the signed status.
            outcome: of its verification.
            shown: device evidence that came with it.
            now: the present.
        """
        registration = session.registration
        standing = policy.after_pass(session.standing)
        level = policy.proven_level(registration.trust_level, posture_clean=outcome.posture_clean)
        claim = Claim(grounds=None, reasons=(TrustReason.POSTURE_NOT_CLAIMED,))
        if level == "self_signed" and not standing.untrusted:
            asked = Challenge(challenge.nonce, challenge.timestamp, challenge.provider_id)
            claim = await self._hardware.take(change, registration, asked, shown, now)
            if claim.contradiction:
                return await self._contradicted(change, session, claim, now)
        await change.sessions.stand(challenge.provider_id, standing)

        measured = _measured(report)
        findings = check_runtime(
            measured, await change.releases.active(development=self._development)
        )
        issue = _Issue(
            registration=registration,
            challenge_id=challenge.challenge_id,
            code_release=code_release_id(measured.runtime_hash),
            runtime_verified=not findings,
        )
        reasons = claim.reasons if not findings else (TrustReason.CODE_UNKNOWN, *claim.reasons)
        verdict = None
        if claim.grounds is not None and not findings:
            granted = await self._hardware.grant(
                change, claim.grounds, partial(self._sign, issue, claim.grounds, now), now
            )
            if isinstance(granted, TrustReason):
                reasons = (granted, TrustReason.CHALLENGE_PASSED)
            else:
                verdict, level = granted, granted.trust_level
        if verdict is None and not standing.untrusted:
            verdict = self._lower(issue, level, now)
            if verdict is not None:
                await change.verdicts.add(verdict)

        return Judgement(
            passed=not standing.untrusted,
            failure=standing.untrusted,
            untrust=bool(standing.untrusted),
            trust_level=level,
            verdict=verdict,
            runtime_findings=findings,
            reasons=() if standing.untrusted else reasons,
            evidence_findings=claim.findings,
            ask_posture=claim.ask_posture and not standing.untrusted,
        )

    def _lower(self, issue: "_Issue", level: TrustLevel, now: datetime) -> IssuedVerdict | None:
        """Sign what a software key may have; None where it admits nobody."""
        admission = policy.admit(
            level,
            development=self._development,
            owner_account_id=issue.registration.presented.owner_account_id,
            runtime_verified=issue.runtime_verified,
        )
        if admission is None:
            return None

        return self._issuer.verdict(
            issue.registration,
            evidence=(issue.challenge_id,),
            trust_level=level,
            admission=admission,
            code_release=issue.code_release,
            now=now,
        )

    def _sign(
        self, issue: "_Issue", grounds: Grounds, now: datetime, ends: datetime
    ) -> IssuedVerdict:
        return self._issuer.verdict(
            issue.registration,
            evidence=(
                issue.challenge_id,
                grounds.proof.evidence_id,
                grounds.posture.evidence_id,
            ),
            trust_level="hardware",
            admission="public",
            code_release=issue.code_release,
            now=now,
            ends=ends,
        )

    async def _contradicted(
        self, change: Transaction, session: Session, claim: Claim, now: datetime
    ) -> Judgement:
        """Untrust for good a session whose own device says that it lied."""
        registration = session.registration
        provider_id = registration.presented.provider_id
        standing = policy.after_contradiction(session.standing, claim.contradiction)
        await change.sessions.stand(provider_id, standing)
        await self._hardware.bury(change, registration, claim.contradiction, now)
        await revoke_session(change, self._issuer, provider_id, claim.contradiction, now)

        return Judgement(
            passed=False,
            failure=standing.untrusted,
            untrust=True,
            trust_level="none",
            verdict=None,
            runtime_findings=(),
            reasons=claim.reasons,
            evidence_findings=claim.findings,
        )


async def revoke_session(
    change: Transaction, issuer: Issuer, provider_id: str, reason: str, now: datetime
) -> list[IssuedRevocation]:
    """Revoke every verdict of a session that is in force; return the revocations."""
    revocations = [
        issuer.revocation(verdict_id, reason, now)
        for verdict_id in await change.verdicts.live_of_session(provider_id, now)
    ]
    await change.verdicts.revoke(revocations)

    return revocations


def _measured(report: StatusReport) -> Measured:
    return Measured(
        python_hash=report.python_hash or "",
        runtime_hash=report.runtime_hash or "",
        template_hashes=report.template_hashes or {},
    )
