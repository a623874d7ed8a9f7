"""Attestation on a loopback socket over a real store, and the providers that it judges."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import grpc
from darkbloom.attestation.v1 import attestation_pb2
from darkbloom.attestation.v1 import attestation_service_pb2 as pb
from darkbloom.attestation.v1.attestation_service_pb2_grpc import (
    AttestationServiceStub,
    add_AttestationServiceServicer_to_server,
)
from darkbloom.attestation.v1.log_service_pb2_grpc import (
    LogServiceStub,
    add_LogServiceServicer_to_server,
)
from darkbloom_attestation.apns.budget import PushBudget
from darkbloom_attestation.apns.ports import Pusher
from darkbloom_attestation.apns.service import CodeIdentity
from darkbloom_attestation.apple import PinnedVerifier
from darkbloom_attestation.examine import AppleVerifier, Examiner
from darkbloom_attestation.feed import RevocationFeed
from darkbloom_attestation.hardware import Hardware
from darkbloom_attestation.issue import Issuer
from darkbloom_attestation.judging import Judging
from darkbloom_attestation.model import PublicKey
from darkbloom_attestation.offering import Offering
from darkbloom_attestation.postures import Postures
from darkbloom_attestation.releases import Releases
from darkbloom_attestation.server import AttestationServer
from darkbloom_attestation.store import PostgresStore
from darkbloom_attestation.transparency.log import TransparencyLog
from darkbloom_attestation.transparency.server import LogServer
from darkbloom_attestation.transparency.tables import PostgresLog
from darkbloom_edge.apple.app_attest import AppAttestPolicy
from darkbloom_edge.apple.roots import apple_roots
from darkbloom_edge.attestation import (
    Challenge,
    RegistrationBlob,
    StatusReport,
    answer_challenge,
    build_registration,
)
from darkbloom_edge.documents import rfc3339
from darkbloom_edge.envelope import new_key_pair
from darkbloom_edge.ids import new_id
from darkbloom_edge.signatures import Ed25519Signer, P256Signer, to_base64
from darkbloom_edge.verdict import Verdict, verify_verdict
from darkbloom_mesh.backoff import Backoff
from darkbloom_mesh.channel import channel
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import MeshError, from_rpc_error
from darkbloom_mesh.postgres import Database
from darkbloom_mesh.telemetry import Metrics
from darkbloom_mesh.testing import FakeClock, serve_ephemeral

TIMEOUT_S = 10
APP_ID = "0123456789.io.darkbloom.provider"
APP = AppAttestPolicy.for_app(APP_ID)
SIGNER = Ed25519Signer.generate()
KEYS = {SIGNER.key_id: SIGNER.public}
WEIGHTS = {"org/one": "a" * 64}
RUNTIME = hashlib.sha256(b"runtime").hexdigest()
PYTHON = hashlib.sha256(b"python").hexdigest()


class Attestation:
    """The client that a router would write."""

    def __init__(self, stub: Any, log: Any, feed: RevocationFeed, clock: FakeClock) -> None:
        self.stub = stub
        self._log = log
        self.target = ""
        """Where it listens."""
        self.offering: Offering | None = None
        self.feed = feed
        self.clock = clock

    async def call(self, method: str, request: Any) -> Any:
        """Call, and raise what the server raised."""
        return await _call(self.stub, method, request)

    async def log(self, method: str, request: Any) -> Any:
        """Call the transparency log."""
        return await _call(self._log, method, request)

    async def refused(self, method: str, request: Any) -> MeshError:
        """Call what must be refused and return the error."""
        try:
            answer = await self.call(method, request)
        except MeshError as error:
            return error
        raise AssertionError(f"{method} answered {answer}")

    async def bless(self, **changes: Any) -> Any:
        """Bless the release that honest providers run."""
        return await self.call("RegisterCodeRelease", release_request(**changes))

    async def register(self, provider: "Provider", **changes: Any) -> Any:
        """Register a provider."""
        return await self.call("EvaluateRegistration", provider.registration(self.clock, **changes))

    async def challenge(self, provider: "Provider") -> Challenge:
        """Make a challenge."""
        made = await self.call(
            "CreateChallenge", pb.CreateChallengeRequest(provider_id=provider.provider_id)
        )
        return Challenge(made.nonce, made.timestamp, provider.provider_id)

    async def answer(
        self,
        provider: "Provider",
        challenge: Challenge,
        *,
        nonce: str | None = None,
        hashes: Mapping[str, str] = WEIGHTS,
        evidence: bytes = b"",
        **changes: Any,
    ) -> Any:
        """Answer a challenge as the provider would, but for the changes."""
        status, signature = provider.answer(challenge, **changes)
        request = verify_request(provider, nonce or challenge.nonce, status, signature, hashes)
        request.device_evidence = evidence
        return await self.call("VerifyChallenge", request)

    async def passed(self, provider: "Provider", **changes: Any) -> Any:
        """Challenge a provider and answer."""
        return await self.answer(provider, await self.challenge(provider), **changes)

    async def verdict(self, provider: "Provider") -> tuple[Any, Verdict]:
        """Challenge a provider that will pass and read its verdict."""
        response = await self.passed(provider)
        assert response.passed
        return response, read_verdict(response, self.clock)

    def watch(self, after: int = 0) -> Any:
        """Open a watch; read it with `next_event`."""
        return self.stub.WatchRevocations(pb.WatchRevocationsRequest(after_generation=after))


class Provider:
    """A provider with a software key; everything that it says can be changed."""

    def __init__(self, **claims: Any) -> None:
        self.signer = P256Signer.generate()
        self.k = new_key_pair().public
        self.provider_id = new_id("prov")
        self.claims = claims

    def reconnect(self) -> None:
        """Begin another session with the same keys."""
        self.provider_id = new_id("prov")

    def registration(self, clock: Clock, **changes: Any) -> pb.EvaluateRegistrationRequest:
        """What it presents at registration."""
        claims = {
            "authenticated_root_enabled": False,
            "chip_name": "x86",
            "encryption_public_key": to_base64(self.k),
            "hardware_model": "linux",
            "os_version": "6",
            "public_key": to_base64(self.signer.public),
            "rdma_disabled": False,
            "secure_boot_enabled": False,
            "secure_enclave_available": False,
            "sip_enabled": False,
            "timestamp": rfc3339(clock.now()),
            **self.claims,
        }
        blob, signature = build_registration(RegistrationBlob(**claims), self.signer)
        return pb.EvaluateRegistrationRequest(
            **{
                "provider_id": self.provider_id,
                "attestation_blob": blob,
                "attestation_signature": signature,
                "encryption_key": self.k,
                "python_hash": PYTHON,
                "runtime_hash": RUNTIME,
                **changes,
            }
        )

    def answer(
        self, challenge: Challenge, *, signer: P256Signer | None = None, **changes: Any
    ) -> tuple[bytes, bytes]:
        """Status and signature that answer a challenge."""
        report = {
            "public_key": to_base64(self.k),
            "sip_enabled": self.claims.get("sip_enabled", False),
            "secure_boot_enabled": self.claims.get("secure_boot_enabled", False),
            "rdma_disabled": False,
            "python_hash": PYTHON,
            "runtime_hash": RUNTIME,
            "model_hashes": dict(WEIGHTS),
            "binary_hash": self.claims.get("binary_hash"),
            **changes,
        }
        return answer_challenge(challenge, StatusReport(**report), signer or self.signer)


def boastful() -> Provider:
    """A provider whose software key claims all that a Mac could claim."""
    return Provider(
        secure_enclave_available=True,
        sip_enabled=True,
        secure_boot_enabled=True,
        authenticated_root_enabled=True,
        serial_number="C02XYZ123456",
    )


def verify_request(
    provider: Provider,
    nonce: str,
    status: bytes,
    signature: bytes,
    hashes: Mapping[str, str] = WEIGHTS,
) -> pb.VerifyChallengeRequest:
    """What a router hands in."""
    return pb.VerifyChallengeRequest(
        provider_id=provider.provider_id,
        nonce=nonce,
        status=status,
        status_signature=signature,
        expected_model_hashes=hashes,
    )


def release_request(
    runtime: str = RUNTIME, python: str = PYTHON, *, development: bool = False, **changes: Any
) -> pb.RegisterCodeReleaseRequest:
    """A release to bless."""
    return pb.RegisterCodeReleaseRequest(
        release=attestation_pb2.CodeRelease(
            **{
                "code_release": f"sha256:{runtime}",
                "version": "1.0.0",
                "platform": "any",
                "python_hash": python,
                "runtime_hash": runtime,
                "development": development,
                **changes,
            }
        )
    )


def violation(provider: Provider, report_id: str = "report-1", kind: str = "unopenable"):
    """What a router reports."""
    return pb.ReportViolationRequest(
        report_id=report_id, provider_id=provider.provider_id, attempt_id="att_1", kind=kind
    )


def read_verdict(response: Any, clock: Clock) -> Verdict:
    """Check a response's verdict as a gateway would."""
    signed = response.verdict
    return verify_verdict(signed.document, signed.signature, signed.key_id, KEYS, clock.now())


async def next_event(watch: Any) -> pb.WatchRevocationsResponse:
    """Return the next event of a watch, within bounds."""
    async with asyncio.timeout(TIMEOUT_S):
        event = await watch.read()
    assert isinstance(event, pb.WatchRevocationsResponse)
    return event


async def next_revocation(watch: Any) -> pb.WatchRevocationsResponse:
    """Return the next revocation of a watch."""
    while True:
        event = await next_event(watch)
        if event.HasField("revocation"):
            return event


async def _call(stub: Any, method: str, request: Any) -> Any:
    try:
        return await getattr(stub, method)(request, timeout=TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from None


@asynccontextmanager
async def served(
    database: Database,
    clock: FakeClock,
    *,
    development: bool = True,
    release_keys: Mapping[str, bytes] | None = None,
    apple: AppleVerifier | None = None,
    pusher: Pusher | None = None,
) -> AsyncIterator[Attestation]:
    """Serve attestation whose feed follows the store."""
    store, issuer = PostgresStore(database), Issuer(SIGNER)
    examiner = Examiner(apple or PinnedVerifier(apple_roots(), APP), issuer)
    hardware = Hardware(examiner, issuer)
    feed = RevocationFeed(store, clock, Backoff(lambda: 0.5))
    await feed.load()
    codes = CodeIdentity(
        store,
        issuer,
        clock,
        pusher=pusher,
        budget=PushBudget(600, lambda: 0.0),
        development=development,
    )
    offering = Offering(store, clock)
    server = AttestationServer(
        judging=Judging(store, issuer, hardware, clock, development=development),
        postures=Postures(store, issuer, examiner, hardware, clock),
        codes=codes,
        releases=Releases(store, issuer, clock, development=development, release_keys=release_keys),
        offering=offering,
        store=store,
        feed=feed,
        verdict_keys=[
            PublicKey(key_id=SIGNER.key_id, public_key=SIGNER.public, create_time=clock.now())
        ],
        clock=clock,
        metrics=Metrics(version="test"),
    )
    log = TransparencyLog(PostgresLog(database), store, SIGNER, clock)
    async with asyncio.TaskGroup() as tasks:
        follower = tasks.create_task(feed.follow())
        sender = tasks.create_task(codes.run())
        async with (
            serve_ephemeral(
                partial(add_AttestationServiceServicer_to_server, server),
                partial(add_LogServiceServicer_to_server, LogServer(log)),
            ) as target,
            channel(target, mesh_token=None, room="test") as dialled,
        ):
            attestation = Attestation(
                AttestationServiceStub(dialled), LogServiceStub(dialled), feed, clock
            )
            attestation.target = target
            attestation.offering = offering
            yield attestation
            await feed.close()
        follower.cancel()
        sender.cancel()
