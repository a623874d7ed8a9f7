"""What a device manager reports about devices that we asked it about."""

import hashlib
from datetime import datetime
from typing import final

from darkbloom_edge.apple.mdm_webhook import (
    Acknowledged,
    OutstandingCommand,
    RequestType,
    device_attestation_of,
    read_webhook,
    security_info_of,
)
from darkbloom_edge.apple.security_info import MdmRejected, SecureBootLevel
from darkbloom_mesh.clock import Clock

from darkbloom_attestation import policy
from darkbloom_attestation.evidence import Posture, PostureKind, TrustReason
from darkbloom_attestation.examine import Examiner, RefusedError
from darkbloom_attestation.hardware import Hardware
from darkbloom_attestation.issue import Issuer
from darkbloom_attestation.ladder import POSTURE_LIFETIME
from darkbloom_attestation.model import Registration
from darkbloom_attestation.ports import Store, Transaction

NOT_ACKNOWLEDGED = "not_acknowledged"


@final
class Postures:
    """Takes reports in; only one that answers an outstanding command counts, and once."""

    def __init__(
        self, store: Store, issuer: Issuer, examiner: Examiner, hardware: Hardware, clock: Clock
    ) -> None:
        self._store = store
        self._issuer = issuer
        self._examiner = examiner
        self._hardware = hardware
        self._clock = clock

    async def record(self, body: bytes) -> str:
        """Take a webhook in; return why it counted for nothing, empty where it counted."""
        now = self._clock.now()
        try:
            answered = read_webhook(body)
            if answered is None:
                return NOT_ACKNOWLEDGED
            # A report that is refused puts its command back: the right answer may yet come.
            async with self._store.transaction() as change:
                await self._take(change, answered, now)
        except MdmRejected as error:
            return error.reason.value
        except RefusedError as error:
            return error.word

        return ""

    async def _take(self, change: Transaction, answered: Acknowledged, now: datetime) -> None:
        command = await change.commands.consume(answered.command_uuid)
        asked_of = "" if command is None else command.provider_id
        registration = await change.lives.registration(asked_of)
        posture = self._read(answered, command, registration, now)
        if posture is None or registration is None:
            return
        await change.evidence.add_posture(posture)
        if not posture.good:
            await self._mismatch(change, registration, now)

    def _read(
        self,
        answered: Acknowledged,
        command: OutstandingCommand | None,
        registration: Registration | None,
        now: datetime,
    ) -> Posture | None:
        if command is not None and command.request_type is RequestType.DEVICE_INFORMATION:
            chain = device_attestation_of(answered, command, now)
            return None if registration is None else self._examiner.chain(chain, registration, now)

        info = security_info_of(answered, command, now)
        if registration is None:
            return None
        # The command's id makes each report its own, whatever it says.
        fingerprint = hashlib.sha256(f"security_info:{info.command_uuid}".encode()).digest()
        return Posture(
            evidence_id=self._issuer.new_id("sec"),
            kind=PostureKind.SECURITY_INFO,
            serial_hash=registration.serial_hash,
            identity_key=registration.identity_key,
            fingerprint=fingerprint,
            sip_enabled=info.sip_enabled,
            full_security=info.secure_boot is SecureBootLevel.FULL,
            document=b"",
            observe_time=now,
            expire_time=now + POSTURE_LIFETIME,
        )

    async def _mismatch(
        self, change: Transaction, registration: Registration, now: datetime
    ) -> None:
        """Untrust for good every session that claims this device."""
        reason = TrustReason.POSTURE_MISMATCH.value
        for session in await change.lives.lock_holders(
            registration.presented.provider_id, registration.serial_hash, now
        ):
            provider_id = session.registration.presented.provider_id
            standing = policy.after_contradiction(session.standing, reason)
            await change.sessions.stand(provider_id, standing)
            await change.verdicts.revoke(
                [
                    self._issuer.revocation(verdict_id, reason, now)
                    for verdict_id in await change.verdicts.live_of_session(provider_id, now)
                ]
            )
        await self._hardware.bury(
            change, registration, reason, now, serial_hash=registration.serial_hash
        )
