"""Macs with evidence that a throw-away Apple mints, and what they can get wrong."""

import base64
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from darkbloom.attestation.v1.attestation_pb2 import AppAttestProof, DeviceEvidence, TrustReason
from darkbloom_attestation.apns.ports import Pusher
from darkbloom_attestation.apple import PinnedVerifier
from darkbloom_edge.apple.mda import key_freshness
from darkbloom_edge.attestation import Challenge
from darkbloom_edge.device_statement import (
    DeviceStatement,
    build_statement,
    client_data_hash,
    serial_commitment,
)
from darkbloom_edge.signatures import P256Signer, to_base64
from darkbloom_mesh.postgres import Database
from darkbloom_mesh.testing import FakeClock

from tests.component.attestation.harness import APP, APP_ID, Attestation, Provider, served
from tests.fakes.apple_ca import Profile
from tests.fakes.apple_service import AppleService, MintedKey

SERIALS = itertools.count()
"""Each Mac has its own, so that tests can share a database."""
SALT = bytes(range(32))
APPLE = AppleService()
"""Whom the attestation under test trusts."""
STRANGER = AppleService()
"""The same forms under roots that nobody trusts."""


class Mac(Provider):
    """A Mac with a Secure Enclave and the app; `apple` mints what it shows."""

    def __init__(
        self, clock: FakeClock, serial: str = "", apple: AppleService = APPLE, **claims: Any
    ) -> None:
        serial = serial or f"C02XYZ{next(SERIALS):06}"
        super().__init__(
            **{
                "secure_enclave_available": True,
                "sip_enabled": True,
                "secure_boot_enabled": True,
                "authenticated_root_enabled": True,
                "serial_number": serial,
                **claims,
            }
        )
        self.clock = clock
        self.serial = serial
        self.apple = apple
        self.key: MintedKey | None = None
        self.counter = 0

    def statement(self, challenge: Challenge, **changes: Any) -> bytes:
        """What the app says of itself."""
        fields: dict[str, Any] = {
            "provider_id": challenge.provider_id,
            "nonce": challenge.nonce,
            "timestamp": challenge.timestamp,
            "identity_key": to_base64(self.signer.public),
            "encryption_key": to_base64(self.k),
            "serial_commitment": serial_commitment(self.serial, SALT),
            "app_version": "1.0.0",
            "os_version": "27.0",
        }
        return build_statement(DeviceStatement(**{**fields, **changes}))

    def proof(self, statement: bytes) -> AppAttestProof:
        """Attest the app's key with its first statement, sign later ones with it."""
        digest = client_data_hash(statement)
        if self.key is None:
            self.key = self.apple.attest(APP_ID, client_data_hash=digest, at=self.clock.now())
            return self.proof_of(self.key, attestation=self.key.attestation)
        self.counter += 1
        return self.proof_of(self.key, assertion=self.key.assertion(digest, counter=self.counter))

    @staticmethod
    def proof_of(key: MintedKey, **fields: bytes) -> AppAttestProof:
        return AppAttestProof(key_id=base64.b64decode(key.key_id), **fields)

    def chain(self, *, signer: P256Signer | None = None, **changes: Any) -> list[bytes]:
        """What Apple says of the device, made now for this enclave key."""
        public = (signer or self.signer).public
        made = self.clock.now()
        fields: dict[str, Any] = {
            "serial": self.serial,
            "freshness": min(key_freshness(public)),
            "profile": Profile(not_before=made, not_after=made + timedelta(days=89)),
        }
        return self.apple.device(**{**fields, **changes})

    def evidence(
        self,
        challenge: Challenge,
        *,
        app: bool = True,
        chain: list[bytes] | None = None,
        **changes: Any,
    ) -> bytes:
        """All that it has to show for one challenge."""
        statement = self.statement(challenge, **changes)
        return DeviceEvidence(
            statement=statement,
            serial_number=self.serial,
            serial_salt=SALT,
            app_attest=self.proof(statement) if app else None,
            mda_chain=chain or [],
        ).SerializeToString()


class Home:
    """Attestation that trusts the throw-away Apple, and what a router does with Macs."""

    def __init__(self, attestation: Attestation) -> None:
        self.attestation = attestation
        self.clock = attestation.clock

    def mac(self, **claims: Any) -> Mac:
        return Mac(self.clock, **claims)

    async def join(self, mac: Mac, **changes: Any) -> Any:
        """Register a Mac."""
        found = await self.attestation.register(mac, **changes)
        assert found.accepted, found.findings
        return found

    async def show(
        self,
        mac: Mac,
        *,
        app: bool = True,
        chain: list[bytes] | None = None,
        statement: dict[str, Any] | None = None,
        **answer: Any,
    ) -> Any:
        """Challenge a Mac; it answers with evidence."""
        challenge = await self.attestation.challenge(mac)
        shown = mac.evidence(challenge, app=app, chain=chain, **(statement or {}))
        return await self.attestation.answer(mac, challenge, evidence=shown, **answer)

    async def proven(self, mac: Mac | None = None) -> tuple[Mac, Any]:
        """A Mac that has just been found to be hardware."""
        mac = mac or self.mac()
        await self.join(mac)
        response = await self.show(mac, chain=mac.chain())
        assert response.trust_level == "hardware", (response.evidence_findings, why(response))
        return mac, response


def why(response: Any) -> list[str]:
    """Return the trust reasons of a response as words."""
    return [
        TrustReason.Name(reason).removeprefix("TRUST_REASON_").lower()
        for reason in response.trust_reasons
    ]


@asynccontextmanager
async def home(
    database: Database,
    clock: FakeClock,
    *,
    development: bool = False,
    pusher: Pusher | None = None,
) -> AsyncIterator[Home]:
    """Serve attestation that trusts the throw-away Apple and has blessed what Macs run."""
    apple = PinnedVerifier(APPLE.roots, APP)
    async with served(
        database, clock, development=development, apple=apple, pusher=pusher
    ) as attestation:
        await attestation.bless()
        yield Home(attestation)
