"""Sessions from registration to untrust: each call is one transaction, decided by pure rules."""

from datetime import datetime
from typing import final

from darkbloom_edge.attestation import (
    Challenge,
    ChallengeOutcome,
    Expected,
    Severity,
    new_challenge,
    verify_challenge,
)
from darkbloom_edge.documents import rfc3339
from darkbloom_mesh.clock import Clock

from darkbloom_attestation import policy
from darkbloom_attestation.errors import (
    ChallengeUnknownError,
    ReportConflictError,
    SessionConflictError,
    SessionNotFoundError,
    SessionUntrustedError,
)
from darkbloom_attestation.evidence import DeviceEvidence
from darkbloom_attestation.hardware import Hardware
from darkbloom_attestation.issue import Issuer
from darkbloom_attestation.judgement import Judgement
from darkbloom_attestation.model import (
    ChallengeState,
    IssuedChallenge,
    IssuedRevocation,
    Judged,
    Presented,
    Registration,
    RuntimeFinding,
    Session,
    Standing,
    Violation,
)
from darkbloom_attestation.passing import Passing, revoke_session
from darkbloom_attestation.ports import Store, Transaction
from darkbloom_attestation.registering import examine_registration
from darkbloom_attestation.runtime import check_runtime

NONCE_BYTES = 32
"""Random bytes of a challenge."""


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
        self._passing = Passing(issuer, hardware, development=development)
        self._clock = clock
        self._development = development

    async def register(
        self, presented: Presented
    ) -> tuple[Registration, tuple[RuntimeFinding, ...]]:
        """Judge a registration and keep it; the same again gives the same answer.

        Raises:
            SessionConflictError: the provider id has registered other evidence before.
        """
        registration = examine_registration(presented, self._issuer, self._clock.now())

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
                    return await self._passing.take(
                        change, session, challenge, outcome.report, outcome, evidence, now
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
                await revoke_session(
                    change, self._issuer, provider_id, "challenges_unanswered", now
                )

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
            revoked = await revoke_session(change, self._issuer, violation.provider_id, reason, now)
            last = revoked[-1] if revoked else None
            await change.verdicts.add_violation(
                violation, None if last is None else last.revocation_id, now
            )

        return last

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
        await revoke_session(change, self._issuer, provider_id, failure, now)

        return Judgement(
            passed=False,
            failure=failure,
            untrust=bool(standing.untrusted),
            trust_level="none",
            verdict=None,
            runtime_findings=(),
        )


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
