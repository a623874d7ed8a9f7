"""Sessions from registration to untrust: each call is one transaction, decided by pure rules."""

import re
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import final

from darkbloom_edge.attestation import (
    Challenge,
    ChallengeOutcome,
    Expected,
    RegistrationBlob,
    RegistrationFault,
    Severity,
    StatusReport,
    new_challenge,
    verify_challenge,
    verify_registration,
)
from darkbloom_edge.boxes import KEY_BYTES
from darkbloom_edge.documents import rfc3339
from darkbloom_edge.release import code_release_id
from darkbloom_edge.verdict import TrustLevel
from darkbloom_mesh.clock import Clock

from darkbloom_attestation import policy
from darkbloom_attestation.errors import (
    ChallengeUnknownError,
    ReportConflictError,
    SessionConflictError,
    SessionNotFoundError,
    SessionUntrustedError,
)
from darkbloom_attestation.evidence import DeviceEvidence, Grounds, TrustReason, serial_hash
from darkbloom_attestation.hardware import Claim, Hardware
from darkbloom_attestation.issue import Issuer
from darkbloom_attestation.model import (
    ChallengeState,
    IssuedChallenge,
    IssuedRevocation,
    IssuedVerdict,
    Judged,
    Measured,
    Presented,
    Registration,
    RuntimeFinding,
    Session,
    Standing,
    Violation,
)
from darkbloom_attestation.ports import Store, Transaction
from darkbloom_attestation.runtime import check_runtime

_SERIAL = re.compile(r"[A-Z0-9]{8,14}\Z")
NONCE_BYTES = 32
"""Random bytes of a challenge."""


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


@final
class Judging:
    """Decides about sessions.

    All state is in the store, so any replica can judge what another one began. A session's row is
    locked by every change, so a verdict cannot slip past an untrust that runs beside it.
    """

    def __init__(
        self,
        store: Store,
        issuer: Issuer,
        hardware: Hardware,
        clock: Clock,
        *,
        development: bool,
    ) -> None:
        self._store = store
        self._issuer = issuer
        self._hardware = hardware
        self._clock = clock
        self._development = development

    async def register(
        self, presented: Presented
    ) -> tuple[Registration, tuple[RuntimeFinding, ...]]:
        """Judge a registration and keep it; the same again gives the same answer.

        Raises:
            SessionConflictError: the provider id has registered other evidence before.
        """
        registration = self._examine(presented, self._clock.now())

        async with self._store.transaction() as change:
            blessed = await change.releases.active(development=self._development)
            findings = check_runtime(presented.measured, blessed)
            if await change.sessions.add(registration):
                await self._hardware.begin(change, registration, release_known=not findings)
            else:
                known = (await _locked(change, presented.provider_id)).registration
                if known.presented != presented:
                    raise SessionConflictError("this provider id has registered other evidence")
                registration = known

        return registration, findings

    async def challenge(self, provider_id: str) -> IssuedChallenge:
        """Make a challenge; an earlier one of this session can no longer be answered.

        Raises:
            SessionNotFoundError: no such session.
            SessionUntrustedError: it is not to be challenged any more.
        """
        now = self._clock.now()
        async with self._store.transaction() as change:
            session = await _locked(change, provider_id)
            if not session.registration.accepted or session.standing.untrusted:
                raise SessionUntrustedError("the session is untrusted")

            made = new_challenge(self._issuer.entropy(NONCE_BYTES), rfc3339(now), provider_id)
            challenge = IssuedChallenge(
                challenge_id=self._issuer.new_id("chal"),
                provider_id=provider_id,
                nonce=made.nonce,
                timestamp=made.timestamp,
                create_time=now,
                expire_time=now + policy.ANSWER_TIME,
            )
            await change.sessions.add_challenge(challenge)

        return challenge

    async def judge(
        self,
        provider_id: str,
        nonce: str,
        status: bytes,
        signature: bytes,
        model_hashes: dict[str, str],
        evidence: DeviceEvidence | None = None,
    ) -> Judgement:
        """Judge an answer; a pass that admits anything yields a verdict.

        Device evidence that came with it counts only where the answer itself passes.

        Raises:
            SessionNotFoundError: no such session.
            ChallengeUnknownError: no such challenge, or it was judged before, or is over.
        """
        now = self._clock.now()
        async with self._store.transaction() as change:
            session = await _locked(change, provider_id)
            challenge = await change.sessions.challenge(provider_id, nonce)
            if challenge is None or challenge.state is not ChallengeState.PENDING:
                raise ChallengeUnknownError("no such challenge is pending")
            if now <= challenge.expire_time + policy.GRACE:
                outcome = verify_challenge(
                    status, signature, _expected(session, challenge, model_hashes), now
                )
                state = ChallengeState.PASSED if outcome.passed else ChallengeState.FAILED
                findings = tuple(finding.code.value for finding in outcome.findings)
                judged = Judged(
                    state=state, time=now, status=status, signature=signature, findings=findings
                )
                await change.sessions.judge(challenge.challenge_id, judged)
                if outcome.report is not None and outcome.passed:
                    return await self._pass(
                        change, session, challenge, outcome.report, outcome, evidence
                    )
                return await self._fail(change, session, outcome, now)

            await change.sessions.judge(
                challenge.challenge_id, Judged(state=ChallengeState.EXPIRED, time=now)
            )
        raise ChallengeUnknownError("the challenge is over")

    async def time_out(self, provider_id: str, nonce: str) -> Standing:
        """Count a challenge that nobody answered, once; return how the session stands.

        Raises:
            SessionNotFoundError: no such session.
            ChallengeUnknownError: no such challenge, or it was answered.
        """
        now = self._clock.now()
        async with self._store.transaction() as change:
            session = await _locked(change, provider_id)
            challenge = await change.sessions.challenge(provider_id, nonce)
            if challenge is None or challenge.state not in _UNANSWERED:
                raise ChallengeUnknownError("no such challenge is unanswered")
            if challenge.state is ChallengeState.TIMEOUT:
                return session.standing

            standing = policy.after_timeout(session.standing)
            await change.sessions.judge(
                challenge.challenge_id, Judged(state=ChallengeState.TIMEOUT, time=now)
            )
            await change.sessions.stand(provider_id, standing)
            if policy.is_suspended(standing):
                await self._revoke(change, provider_id, "challenges_unanswered", now)

        return standing

    async def report(self, violation: Violation) -> IssuedRevocation | None:
        """Untrust a session for good and revoke its verdicts; a repeated report changes nothing.

        Returns:
            The last revocation that followed; None when no verdict was in force.

        Raises:
            SessionNotFoundError: no such session.
            ReportConflictError: this report id came before with other contents.
        """
        now = self._clock.now()
        async with self._store.transaction() as change:
            session = await _locked(change, violation.provider_id)
            known = await change.verdicts.violation(violation.report_id)
            if known is not None:
                if known[0] != violation:
                    raise ReportConflictError("this report id came before with other contents")
                return known[1]

            standing = policy.after_violation(session.standing, violation.kind.value)
            await change.sessions.stand(violation.provider_id, standing)
            reason = f"violation_{violation.kind.value}"
            await self._hardware.bury(change, session.registration, reason, now)
            revoked = await self._revoke(change, violation.provider_id, reason, now)
            last = revoked[-1] if revoked else None
            await change.verdicts.add_violation(
                violation, None if last is None else last.revocation_id, now
            )

        return last

    def _examine(self, presented: Presented, now: datetime) -> Registration:
        outcome = verify_registration(
            presented.blob, presented.signature, encryption_key=presented.encryption_key, now=now
        )
        findings = [finding.code.value for finding in outcome.findings]
        accepted = outcome.accepted
        binary_hash = None if outcome.blob is None else outcome.blob.binary_hash
        if len(presented.encryption_key) != KEY_BYTES:
            # A blob may name a K of any size; only one of 32 bytes can be sealed to.
            accepted = False
            findings.append(RegistrationFault.ENCRYPTION_KEY_MISMATCH.value)
        if binary_hash is not None and not binary_hash.isprintable():
            accepted, binary_hash = False, None
            findings.append(RegistrationFault.MALFORMED.value)

        return Registration(
            registration_id=self._issuer.new_id("reg"),
            presented=presented,
            accepted=accepted,
            trust_level=outcome.trust_level if accepted else "none",
            findings=tuple(dict.fromkeys(findings)),
            identity_key=outcome.identity_key,
            binary_hash=binary_hash,
            create_time=now,
            serial_hash=_serial_hash(outcome.blob),
        )

    async def _pass(
        self,
        change: Transaction,
        session: Session,
        challenge: IssuedChallenge,
        report: StatusReport,
        outcome: ChallengeOutcome,
        shown: DeviceEvidence | None,
    ) -> Judgement:
        registration, now = session.registration, self._clock.now()
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
        await self._revoke(change, provider_id, claim.contradiction, now)

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

    async def _fail(
        self, change: Transaction, session: Session, outcome: ChallengeOutcome, now: datetime
    ) -> Judgement:
        failure = next(
            finding.code.value
            for finding in outcome.findings
            if finding.severity is not Severity.RECORDED
        )
        provider_id = session.registration.presented.provider_id
        standing = policy.after_failure(session.standing, failure, untrust=outcome.untrust)
        await change.sessions.stand(provider_id, standing)
        if standing.untrusted and not session.standing.untrusted:
            await self._hardware.bury(change, session.registration, failure, now)
        # A failure makes it unroutable at once, not only when its verdict runs out.
        await self._revoke(change, provider_id, failure, now)

        return Judgement(
            passed=False,
            failure=failure,
            untrust=bool(standing.untrusted),
            trust_level="none",
            verdict=None,
            runtime_findings=(),
        )

    async def _revoke(
        self, change: Transaction, provider_id: str, reason: str, now: datetime
    ) -> list[IssuedRevocation]:
        revocations = [
            self._issuer.revocation(verdict_id, reason, now)
            for verdict_id in await change.verdicts.live_of_session(provider_id, now)
        ]
        await change.verdicts.revoke(revocations)

        return revocations


@dataclass(frozen=True, slots=True, kw_only=True)
class _Issue:
    """What every verdict of one passed challenge has in common."""

    registration: Registration
    challenge_id: str
    code_release: str
    runtime_verified: bool


_UNANSWERED = frozenset({ChallengeState.PENDING, ChallengeState.EXPIRED, ChallengeState.TIMEOUT})


async def _locked(change: Transaction, provider_id: str) -> Session:
    session = await change.sessions.lock(provider_id)
    if session is None:
        raise SessionNotFoundError("no such session")

    return session


def _expected(
    session: Session, challenge: IssuedChallenge, model_hashes: dict[str, str]
) -> Expected:
    registration = session.registration
    return Expected(
        challenge=Challenge(challenge.nonce, challenge.timestamp, challenge.provider_id),
        identity_key=registration.identity_key,
        encryption_key=registration.presented.encryption_key,
        posture_required=registration.trust_level != "none",
        binary_hash=registration.binary_hash,
        model_hashes=model_hashes,
    )


def _measured(report: StatusReport) -> Measured:
    return Measured(
        python_hash=report.python_hash or "",
        runtime_hash=report.runtime_hash or "",
        template_hashes=report.template_hashes or {},
    )


def _serial_hash(blob: RegistrationBlob | None) -> bytes:
    serial = None if blob is None else blob.serial_number
    return serial_hash(serial) if serial and _SERIAL.match(serial) else b""
