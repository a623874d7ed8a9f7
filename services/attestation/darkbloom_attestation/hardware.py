"""Taking in device evidence and granting `hardware`; every call is part of a running transaction.

The rules are in `ladder`, the reading in `examine`; here is the order in which things are written,
because that order is what makes a tombstone win over a grant that races it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import final

from darkbloom_edge.challenge import Challenge
from darkbloom_edge.verdict import MAX_LIFETIME

from darkbloom_attestation import ladder
from darkbloom_attestation.evidence import DeviceEvidence, Grounds, TrustReason
from darkbloom_attestation.examine import COUNTER_REPLAY, Examiner
from darkbloom_attestation.issue import Issuer
from darkbloom_attestation.model import IssuedVerdict, Registration
from darkbloom_attestation.ports import Transaction

SEEN_WINDOW = timedelta(seconds=90)
"""A claim on a serial whose session was not seen for so long stands in nobody's way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Whether a session may be `hardware` now, and why."""

    grounds: Grounds | None
    reasons: tuple[TrustReason, ...]
    """The most important first."""
    findings: tuple[str, ...] = ()
    contradiction: str = ""
    """Not empty: the device itself says that the registration lied."""
    ask_posture: bool = False
    """Whether the device should be asked how it stands: its posture is missing, or ends soon."""


@final
class Hardware:
    """The last rung of the ladder."""

    def __init__(self, examiner: Examiner, issuer: Issuer) -> None:
        self._examiner = examiner
        self._issuer = issuer

    async def begin(
        self, change: Transaction, registration: Registration, *, release_known: bool
    ) -> None:
        """Decide for a new session from when on device evidence counts."""
        presented, now = registration.presented, registration.create_time
        before = None
        if registration.accepted and registration.identity_key:
            before = await change.lives.before(registration.identity_key)
        beginning = ladder.begin(
            now,
            serial_hash=registration.serial_hash,
            runtime_hash=presented.measured.runtime_hash,
            binary_hash=registration.binary_hash,
            before=before,
            release_known=release_known,
        )
        await change.lives.begin(
            presented.provider_id,
            posture_since=beginning.posture_since,
            continues=beginning.reason.value if beginning.reason else "",
            seen_time=now,
        )

    async def take(
        self,
        change: Transaction,
        registration: Registration,
        challenge: Challenge,
        shown: DeviceEvidence | None,
        now: datetime,
    ) -> Claim:
        """Keep what is good of the evidence shown with an answer; say what can be claimed now."""
        findings: tuple[str, ...] = ()
        if shown is not None:
            findings, contradiction = await self._keep(change, registration, challenge, shown, now)
            if contradiction:
                return Claim(
                    grounds=None,
                    reasons=(TrustReason.POSTURE_MISMATCH,),
                    findings=findings,
                    contradiction=contradiction,
                )

        provider_id = registration.presented.provider_id
        proof = await change.evidence.proof_of(provider_id, now)
        postures = (
            await change.evidence.postures_of(proof.identity_key, proof.serial_hash)
            if proof is not None
            else ()
        )
        since, continues = await change.lives.posture_since(provider_id)
        found = ladder.climb(proof, postures, posture_since=since, now=now)
        if isinstance(found, TrustReason):
            mismatch = found is TrustReason.POSTURE_MISMATCH
            return Claim(
                grounds=None,
                reasons=_why(found, findings),
                findings=findings,
                contradiction=TrustReason.POSTURE_MISMATCH.value if mismatch else "",
                # Whoever shows no key proof cannot make a Mac busy by naming its serial.
                ask_posture=proof is not None and not mismatch,
            )

        reasons = [TrustReason.HARDWARE_PROVEN]
        if continues:
            reasons.append(TrustReason(continues))
        return Claim(
            grounds=found,
            reasons=tuple(reasons),
            findings=findings,
            ask_posture=found.posture.expire_time - now < ladder.RENEW_BEFORE,
        )

    async def grant(
        self,
        change: Transaction,
        grounds: Grounds,
        sign: Callable[[datetime], IssuedVerdict],
        now: datetime,
    ) -> IssuedVerdict | TrustReason:
        """Write a `hardware` verdict, or say what stands in its way.

        Args:
            change: the running transaction; it holds the session.
            grounds: what the verdict stands on.
            sign: makes the verdict that ends at this time.
            now: the present.
        """
        proof = grounds.proof
        await change.evidence.subjects(proof.identity_key, proof.serial_hash)
        rivals = await change.evidence.rivals(
            proof.identity_key, proof.serial_hash, now, now - SEEN_WINDOW
        )
        if any(not ladder.outranks(grounds.posture.kind, kind) for _, kind in rivals):
            return TrustReason.SERIAL_IN_USE

        verdict = sign(ladder.expiry(grounds, now + MAX_LIFETIME))
        if not await change.evidence.grant(verdict, grounds):
            return TrustReason.DURABLY_REVOKED
        await change.verdicts.revoke(
            [
                self._issuer.revocation(verdict_id, TrustReason.SERIAL_TAKEN.value, now)
                for verdict_id, _ in rivals
            ]
        )
        await change.lives.proven(proof.provider_id, now)

        return verdict

    async def bury(
        self,
        change: Transaction,
        registration: Registration,
        reason: str,
        now: datetime,
        *,
        serial_hash: bytes | None = None,
    ) -> None:
        """Take `hardware` from a machine for good, wherever it is connected.

        Evidence that came before counts no more.

        Args:
            change: the running transaction.
            registration: whose machine it is.
            reason: closed word.
            now: the present.
            serial_hash: what the device itself said; otherwise the serial is buried only where
                this session has proven it, for naming a serial must not take trust from its owner.
        """
        if not registration.identity_key:
            return
        if serial_hash is None:
            proof = await change.evidence.proof_of(registration.presented.provider_id, now)
            serial_hash = proof.serial_hash if proof else b""
        live = await change.evidence.bury(registration.identity_key, serial_hash, reason, now)
        await change.verdicts.revoke(
            [self._issuer.revocation(verdict_id, reason, now) for verdict_id in live]
        )

    async def _keep(
        self,
        change: Transaction,
        registration: Registration,
        challenge: Challenge,
        shown: DeviceEvidence,
        now: datetime,
    ) -> tuple[tuple[str, ...], str]:
        known = None
        if shown.app_attest is not None:
            known = await change.evidence.key(shown.app_attest.key_id)
        found = self._examiner.examine(shown, registration, challenge, known, now)
        if found.posture is not None:
            await change.evidence.add_posture(found.posture)
        if found.proof is None:
            return found.findings, found.contradiction

        sound = True
        if found.new_key is not None:
            sound = await change.evidence.add_key(found.new_key)
        elif found.counter is not None:
            sound = await change.evidence.count_up(*found.counter)
        if not sound:
            return (*found.findings, COUNTER_REPLAY), found.contradiction
        await change.evidence.add_proof(found.proof)

        return found.findings, found.contradiction


def _why(missing: TrustReason, findings: tuple[str, ...]) -> tuple[TrustReason, ...]:
    """Say that something was shown and refused, where that is why it is missing."""
    device = any(word.startswith("mda_") for word in findings)
    app = len(findings) > sum(word.startswith("mda_") for word in findings)
    if missing is TrustReason.KEY_PROOF_MISSING and app:
        return (TrustReason.KEY_PROOF_REJECTED, TrustReason.CHALLENGE_PASSED)
    if missing in {TrustReason.POSTURE_MISSING, TrustReason.POSTURE_STALE} and device:
        return (TrustReason.POSTURE_REJECTED, missing, TrustReason.CHALLENGE_PASSED)

    return (missing, TrustReason.CHALLENGE_PASSED)
