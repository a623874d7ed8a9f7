"""What this machine can show of itself beyond its own word, asked anew for each challenge."""

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import final

import structlog
from darkbloom.attestation.v1.attestation_pb2 import AppAttestProof, DeviceEvidence
from darkbloom.router.v1.provider_link_pb2 import AttestationChallenge
from darkbloom_edge.errors import MalformedError
from darkbloom_edge.signatures import from_base64

from darkbloom_provider.mac.errors import LauncherError
from darkbloom_provider.mac.launcher import Evidence, Launcher, PushAddress
from darkbloom_provider.mac.measuring import measure_posture
from darkbloom_provider.mac.posture import Posture

KEY_REJECTED = "key_proof_rejected"
"""The trust reason for which another key is attested: Apple attests each one only once."""
MAX_EVIDENCE_BYTES = 131_072
"""Most that a challenge's answer may carry."""

_log = structlog.get_logger()


@final
@dataclass(slots=True)
class Witness:
    """Measures the posture, and asks the launcher where there is one."""

    launcher: Launcher | None = None
    measure: Callable[[], Posture] = field(default=Posture)
    """Blocks; off a Mac there is nothing to measure, and nothing is claimed."""

    @property
    def address(self) -> PushAddress | None:
        """Where pushes reach this app; None where they do not."""
        return None if self.launcher is None else self.launcher.address

    async def posture(self) -> Posture:
        """Measure, off the event loop."""
        return await asyncio.to_thread(self.measure)

    async def evidence(self, challenge: AttestationChallenge) -> bytes:
        """Return the serialised evidence over a challenge; empty where there is none.

        A challenge is answered also without it: the answer still proves the identity key.
        """
        if self.launcher is None or self.launcher.hello is None:
            return b""
        try:
            signed = await self.launcher.evidence(
                provider_id=challenge.provider_id,
                nonce=challenge.nonce,
                timestamp=challenge.timestamp,
            )
            message = _evidence(signed)
        except (LauncherError, MalformedError) as error:
            reason = error.reason if isinstance(error, LauncherError) else "malformed_message"
            _log.warning("evidence_missing", reason=reason)
            return b""

        return message if len(message) <= MAX_EVIDENCE_BYTES else b""

    async def renew_key(self) -> None:
        """Forget a key that attestation refuses; the launcher does so once an hour at most."""
        if self.launcher is None or self.launcher.hello is None:
            return
        try:
            await self.launcher.renew_key()
        except LauncherError as error:
            _log.info("key_not_renewed", reason=error.reason)


def here(launcher: Launcher | None) -> Witness:
    """Return the witness of this platform."""
    return Witness(launcher, measure_posture if sys.platform == "darwin" else Posture)


def _evidence(signed: Evidence) -> bytes:
    return DeviceEvidence(
        statement=from_base64(signed.statement),
        serial_number=signed.serial_number,
        serial_salt=from_base64(signed.serial_salt),
        app_attest=AppAttestProof(
            key_id=from_base64(signed.key_id),
            assertion=from_base64(signed.assertion),
            attestation=from_base64(signed.attestation),
        ),
    ).SerializeToString()
