"""The real agent on a Mac that does not exist: its evidence is minted, all else is real.

Orders (see `Mischief`): `bare` shows no evidence, `sip_off` what Apple says of an open device,
`brief` shows a posture that ends soon.
"""

import base64
import secrets
import sys
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import darkbloom_provider.app
from darkbloom.attestation.v1.attestation_pb2 import AppAttestProof, DeviceEvidence
from darkbloom.router.v1.provider_link_pb2 import AttestationChallenge
from darkbloom_edge.apple.mda import key_freshness
from darkbloom_edge.device_statement import (
    DeviceStatement,
    build_statement,
    client_data_hash,
    serial_commitment,
)
from darkbloom_edge.signatures import P256Signer, to_base64
from darkbloom_mesh.clock import SystemClock
from darkbloom_provider.config import ProviderConfig
from darkbloom_provider.identity import load_or_create
from darkbloom_provider.mac.posture import Posture

from tests.fakes.apple_ca import Profile
from tests.fakes.apple_service import AppleService, MintedKey
from tests.mesh.hostile.mischief import Mischief
from tests.mesh.minted.authority import APP_ID, SERIAL, load

LIFE_S = 40
"""How long a `brief` posture lasts."""


@dataclass
class EnclaveKey:
    """A software key that says it is in an enclave: only the minted evidence makes that count."""

    signer: P256Signer
    secure_enclave: bool = True

    @property
    def public(self) -> bytes:
        return self.signer.public

    def sign(self, kind: str, document: bytes) -> bytes:
        return self.signer.sign(kind, document)

    def sign_raw(self, data: bytes) -> bytes:
        return self.signer.sign_raw(data)


@dataclass
class MintedWitness:
    """What a Mac of that Apple would show."""

    apple: AppleService
    mischief: Mischief
    clock: SystemClock
    address: None = None
    launcher: None = None
    signer: P256Signer | None = None
    encryption_key: bytes = b""
    key: MintedKey | None = None
    counter: int = 0
    chains: dict[str, list[bytes]] = field(default_factory=dict)

    async def posture(self) -> Posture:
        """Claim what the evidence will have to prove."""
        return Posture(
            sip_enabled=True,
            secure_boot_enabled=True,
            authenticated_root_enabled=True,
            rdma_disabled=True,
            serial_number=SERIAL,
        )

    async def evidence(self, challenge: AttestationChallenge) -> bytes:
        """Sign a statement, and show what Apple says of the device."""
        if self.mischief.wanted("bare") or self.signer is None:
            return b""
        salt = secrets.token_bytes(32)
        statement = build_statement(
            DeviceStatement(
                provider_id=challenge.provider_id,
                nonce=challenge.nonce,
                timestamp=challenge.timestamp,
                identity_key=to_base64(self.signer.public),
                encryption_key=to_base64(self.encryption_key),
                serial_commitment=serial_commitment(SERIAL, salt),
                app_version="1.0.0",
                os_version="27.0",
            )
        )
        return DeviceEvidence(
            statement=statement,
            serial_number=SERIAL,
            serial_salt=salt,
            app_attest=self._proof(client_data_hash(statement)),
            mda_chain=self._chain(),
        ).SerializeToString()

    async def renew_key(self) -> None:
        """Attest another key with the next statement."""
        self.key = None

    def _proof(self, digest: bytes) -> AppAttestProof:
        if self.key is None:
            self.key, self.counter = (
                self.apple.attest(APP_ID, client_data_hash=digest, at=self.clock.now()),
                0,
            )
            return self._shown(self.key, attestation=self.key.attestation)
        self.counter += 1
        return self._shown(self.key, assertion=self.key.assertion(digest, counter=self.counter))

    @staticmethod
    def _shown(key: MintedKey, **fields: bytes) -> AppAttestProof:
        return AppAttestProof(key_id=base64.b64decode(key.key_id), **fields)

    def _chain(self) -> list[bytes]:
        """Ask Apple once for each way the device can stand."""
        assert self.signer is not None
        way = next((one for one in ("sip_off", "brief") if self.mischief.wanted(one)), "good")
        if way not in self.chains:
            now = self.clock.now()
            life = timedelta(seconds=LIFE_S) if way == "brief" else timedelta(days=89)
            self.chains[way] = self.apple.device(
                serial=SERIAL,
                freshness=min(key_freshness(self.signer.public)),
                sip=1 if way == "sip_off" else 0,
                profile=Profile(not_before=now, not_after=now + life),
            )
        return self.chains[way]


def main() -> int:
    """Give the real command line another key and another witness."""
    witness = MintedWitness(load(), Mischief(), SystemClock())

    def key_of(config: ProviderConfig) -> EnclaveKey:
        witness.signer = load_or_create(config.folders.identity_key)
        return EnclaveKey(witness.signer)

    honest_pair = darkbloom_provider.app.new_key_pair

    def pair() -> Any:
        made = honest_pair()
        witness.encryption_key = made.public
        return made

    patched: Any = darkbloom_provider.app
    patched.open_device_key = key_of
    patched.new_key_pair = pair
    patched.here = lambda _launcher: witness
    from darkbloom_provider.cli import run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
