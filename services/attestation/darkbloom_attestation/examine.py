"""Reading device evidence: what a provider showed becomes rows, or findings in closed words.

Everything here is a function of bytes, the challenge, what is known of the key, and the time. What
follows from a row is decided in `ladder`.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, final

from darkbloom_edge.challenge import Challenge
from darkbloom_edge.device_statement import client_data_hash, verify_statement

from darkbloom_attestation.evidence import (
    AttestedKey,
    DeviceEvidence,
    KeyProof,
    KeyProofKind,
    Posture,
    PostureKind,
    serial_hash,
)
from darkbloom_attestation.issue import Issuer
from darkbloom_attestation.ladder import KEY_PROOF_LIFETIME, POSTURE_LIFETIME
from darkbloom_attestation.model import Registration

OWNER_MISMATCH = "app_attest_key_of_another_account"
KEY_UNKNOWN = "app_attest_key_unknown"
KEY_REVOKED = "app_attest_key_revoked"
COUNTER_REPLAY = "app_attest_counter_replay"
SERIAL_NOT_CLAIMED = "serial_not_in_blob"
SERIAL_MISMATCH = "mda_serial_mismatch"


class RefusedError(Exception):
    """Apple's evidence did not verify; `word` is the verifier's closed word."""

    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.word = word


@dataclass(frozen=True, slots=True, kw_only=True)
class Certified:
    """What an attestation object says about a key."""

    public_key: bytes
    """65 bytes."""
    environment: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """What a device attestation chain says, for the enclave key that it is fresh for."""

    serial: str
    sip_enabled: bool
    full_security: bool
    made_time: datetime
    end_time: datetime


class AppleVerifier(Protocol):
    """Apple's formats against pinned roots. Every method raises `RefusedError` only."""

    def attestation(
        self, data: bytes, key_id: bytes, client_data: bytes, now: datetime
    ) -> Certified:
        """Check an App Attest attestation object."""
        ...

    def assertion(self, data: bytes, public_key: bytes, client_data: bytes, counter: int) -> int:
        """Check an App Attest assertion whose counter must be above this one; return it."""
        ...

    def device_chain(
        self, chain: tuple[bytes, ...], identity_key: bytes, now: datetime
    ) -> DeviceFacts:
        """Check a Managed Device Attestation chain made for this enclave key."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """What became of the evidence that came with one answer."""

    findings: tuple[str, ...] = ()
    """What was refused, closed words."""
    new_key: AttestedKey | None = None
    """To be kept first, where the key was not known."""
    counter: tuple[bytes, int, str] | None = None
    """Key id, the counter that it must be raised to, and for whom, or the proof does not count."""
    proof: KeyProof | None = None
    posture: Posture | None = None
    contradiction: str = ""
    """Not empty: the device itself says that the registration lied."""


@final
class Examiner:
    """Turns what was shown into rows.

    Args:
        apple: Verifier with pinned roots.
        issuer: Makes ids.
    """

    def __init__(self, apple: AppleVerifier, issuer: Issuer) -> None:
        self._apple = apple
        self._issuer = issuer

    def examine(
        self,
        shown: DeviceEvidence,
        registration: Registration,
        challenge: Challenge,
        known: AttestedKey | None,
        now: datetime,
    ) -> Examined:
        """Check evidence against one challenge; never raises on bad evidence.

        Args:
            shown: as it came.
            registration: of the session; it names the keys and, in its blob, the serial.
            challenge: that was answered.
            known: the attested key that `shown` names, where it is known.
            now: the present.
        """
        if not registration.serial_hash or serial_hash(shown.serial) != registration.serial_hash:
            return Examined(findings=(SERIAL_NOT_CLAIMED,))

        device = self._device(shown, registration, now)
        if shown.app_attest is None:
            return device
        outcome = verify_statement(
            shown.statement,
            challenge=challenge,
            identity_key=registration.identity_key,
            encryption_key=registration.presented.encryption_key,
            serial=shown.serial,
            salt=shown.salt,
        )
        if outcome.fault is not None:
            return _with(device, findings=(outcome.fault.value,))
        try:
            return self._proof(shown, registration, known, now, device)
        except RefusedError as error:
            return _with(device, findings=(error.word,))

    def chain(self, chain: tuple[bytes, ...], registration: Registration, now: datetime) -> Posture:
        """Read a device attestation chain made for the enclave key of a session.

        Raises:
            RefusedError: it does not verify, or is about another device than the blob names.
        """
        facts = self._apple.device_chain(chain, registration.identity_key, now)
        if serial_hash(facts.serial) != registration.serial_hash:
            raise RefusedError(SERIAL_MISMATCH)

        document = b"".join(chain)
        return Posture(
            evidence_id=self._issuer.new_id("mda"),
            kind=PostureKind.MDA,
            serial_hash=registration.serial_hash,
            identity_key=registration.identity_key,
            fingerprint=hashlib.sha256(document).digest(),
            sip_enabled=facts.sip_enabled,
            full_security=facts.full_security,
            document=document,
            observe_time=facts.made_time,
            expire_time=min(facts.end_time, facts.made_time + POSTURE_LIFETIME),
        )

    def _proof(
        self,
        shown: DeviceEvidence,
        registration: Registration,
        known: AttestedKey | None,
        now: datetime,
        device: Examined,
    ) -> Examined:
        attest = shown.app_attest
        if attest is None:
            return device
        owner = registration.presented.owner_account_id
        client_data = client_data_hash(shown.statement)
        new_key, counter = None, None
        if known is None:
            if not attest.attestation:
                raise RefusedError(KEY_UNKNOWN)
            certified = self._apple.attestation(attest.attestation, attest.key_id, client_data, now)
            new_key = AttestedKey(
                key_id=attest.key_id,
                public_key=certified.public_key,
                environment=certified.environment,
                owner_account_id=owner,
                counter=0,
                document=shown.statement,
                attestation=attest.attestation,
                create_time=now,
            )
        else:
            if known.revoked:
                raise RefusedError(KEY_REVOKED)
            # A machine may be linked after its key was attested, never to a second account.
            if owner and known.owner_account_id not in {"", owner}:
                raise RefusedError(OWNER_MISMATCH)
            risen = self._apple.assertion(
                attest.assertion, known.public_key, client_data, known.counter
            )
            counter = (attest.key_id, risen, owner)

        proof = KeyProof(
            evidence_id=self._issuer.new_id("app"),
            kind=KeyProofKind.APP_ATTEST,
            provider_id=registration.presented.provider_id,
            identity_key=registration.identity_key,
            encryption_key=registration.presented.encryption_key,
            serial_hash=registration.serial_hash,
            document=shown.statement,
            signature=b"" if known is None else attest.assertion,
            key_id=attest.key_id,
            observe_time=now,
            expire_time=now + KEY_PROOF_LIFETIME,
        )
        return _with(device, new_key=new_key, counter=counter, proof=proof)

    def _device(self, shown: DeviceEvidence, registration: Registration, now: datetime) -> Examined:
        if not shown.mda_chain:
            return Examined()
        try:
            return Examined(posture=self.chain(shown.mda_chain, registration, now))
        except RefusedError as error:
            lied = SERIAL_MISMATCH if error.word == SERIAL_MISMATCH else ""
            return Examined(findings=(error.word,), contradiction=lied)


def _with(
    device: Examined,
    *,
    findings: tuple[str, ...] = (),
    new_key: AttestedKey | None = None,
    counter: tuple[bytes, int, str] | None = None,
    proof: KeyProof | None = None,
) -> Examined:
    return Examined(
        findings=device.findings + findings,
        new_key=new_key,
        counter=counter,
        proof=proof,
        posture=device.posture,
        contradiction=device.contradiction,
    )
