"""A stand-in for attestation: judges as it is told, signs verdicts and revocations for real."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import grpc
from darkbloom.attestation.v1 import attestation_pb2
from darkbloom.attestation.v1 import attestation_service_pb2 as rpc
from darkbloom.attestation.v1.attestation_service_pb2_grpc import AttestationServiceServicer
from darkbloom.common.v1.error_reason_pb2 import ErrorReason
from darkbloom.common.v1.price_pb2 import SignedDocument
from darkbloom_edge.ids import new_id
from darkbloom_edge.revocation import Revocation, sign_revocation
from darkbloom_edge.signatures import Ed25519Signer, to_base64
from darkbloom_edge.verdict import Verdict, sign_verdict
from darkbloom_mesh.clock import Clock, SystemClock
from darkbloom_mesh.errors import PreconditionError
from darkbloom_mesh.serve import Context


class FakeAttestation(AttestationServiceServicer):
    """Records calls; every public attribute may be changed while it serves."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or SystemClock()
        self.signer = Ed25519Signer.generate()
        self.accepted = True
        self.findings: list[str] = []
        self.runtime_verified = True
        self.trust_level = "none"
        self.admission = "development"
        self.lifetime = timedelta(minutes=15)
        self.failure = ""
        self.trust_reasons: list[attestation_pb2.TrustReason.ValueType] = []
        self.untrust = False
        self.transient_untrust = False
        self.close = False
        self.away = False
        self.asks_nothing = False
        """As once a session is untrusted: no more challenges."""
        self.registrations: dict[str, rpc.EvaluateRegistrationRequest] = {}
        self.answers: list[rpc.VerifyChallengeRequest] = []
        self.alive: list[str] = []
        self.code_challenge = b""
        self.code_answers: list[rpc.AnswerCodeChallengeRequest] = []
        self.timeouts: list[rpc.ReportChallengeTimeoutRequest] = []
        self.violations: list[rpc.ReportViolationRequest] = []
        self.receipt_keys: dict[str, attestation_pb2.SigningKey] = {}
        self.evidence: dict[str, rpc.ProviderEvidence] = {}
        self.evidence_asked: list[list[str]] = []
        self.verdicts: dict[str, str] = {}
        """Verdict id in force by provider id."""
        self._events: list[SignedDocument] = []
        self._changed = asyncio.Condition()

    # What tests do with it

    async def revoke(self, verdict_id: str | None = None, identity_key: bytes = b"") -> None:
        """Publish a revocation to every watcher."""
        document, signature = sign_revocation(
            Revocation(
                revocation_id=new_id("rev"),
                verdict_id=verdict_id,
                identity_key=to_base64(identity_key) if identity_key else None,
                reason="test",
                issued_at=_instant(self.clock.now()),
            ),
            self.signer,
        )
        signed = SignedDocument(document=document, signature=signature, key_id=self.signer.key_id)
        async with self._changed:
            self._events.append(signed)
            self._changed.notify_all()

    def issue(self, provider_id: str) -> tuple[Verdict, SignedDocument]:
        """Sign a verdict for a registered provider."""
        now = self.clock.now()
        registered = self.registrations[provider_id]
        verdict = Verdict(
            verdict_id=new_id("ver"),
            provider_id=provider_id,
            identity_key=to_base64(identity_of(registered.attestation_blob)),
            encryption_key=to_base64(registered.encryption_key),
            trust_level=self.trust_level,  # type: ignore[arg-type]
            admission=self.admission,  # type: ignore[arg-type]
            evidence=["test"],
            code_release="sha256:" + "0" * 64,
            issued_at=_instant(now),
            expires_at=_instant(now + self.lifetime),
        )
        document, signature = sign_verdict(verdict, self.signer)
        self.verdicts[provider_id] = verdict.verdict_id
        return verdict, SignedDocument(
            document=document, signature=signature, key_id=self.signer.key_id
        )

    @property
    def keys(self) -> dict[str, bytes]:
        return {self.signer.key_id: self.signer.public}

    # What it serves

    async def EvaluateRegistration(
        self, request: rpc.EvaluateRegistrationRequest, context: Context
    ) -> rpc.EvaluateRegistrationResponse:
        await self._present(context)
        self.registrations[request.provider_id] = request
        return rpc.EvaluateRegistrationResponse(
            accepted=self.accepted,
            trust_level=self.trust_level,
            findings=self.findings,
            identity_key=identity_of(request.attestation_blob),
            runtime_verified=self.runtime_verified,
        )

    async def CreateChallenge(
        self, request: rpc.CreateChallengeRequest, context: Context
    ) -> rpc.CreateChallengeResponse:
        await self._present(context)
        if self.asks_nothing:
            raise PreconditionError(
                "session is untrusted", reason=ErrorReason.ERROR_REASON_EVIDENCE_REJECTED
            )
        return rpc.CreateChallengeResponse(
            nonce=new_id("nonce"), timestamp=_instant(self.clock.now())
        )

    async def VerifyChallenge(
        self, request: rpc.VerifyChallengeRequest, context: Context
    ) -> rpc.VerifyChallengeResponse:
        await self._present(context)
        self.answers.append(request)
        if self.failure:
            return rpc.VerifyChallengeResponse(
                passed=False, failure=self.failure, untrust=self.untrust
            )
        response = rpc.VerifyChallengeResponse(
            passed=True,
            trust_reasons=self.trust_reasons,
            trust_level=self.trust_level,
            admission=self.admission,
            runtime_verified=self.runtime_verified,
            code_challenge=self.code_challenge,
        )
        verdict, signed = self.issue(request.provider_id)
        response.verdict.CopyFrom(signed)
        response.verdict_id = verdict.verdict_id
        response.expire_time.FromDatetime(self.clock.now() + self.lifetime)
        return response

    async def AnswerCodeChallenge(
        self, request: rpc.AnswerCodeChallengeRequest, context: Context
    ) -> rpc.AnswerCodeChallengeResponse:
        await self._present(context)
        self.code_answers.append(request)
        return rpc.AnswerCodeChallengeResponse(accepted=True)

    async def ReportChallengeTimeout(
        self, request: rpc.ReportChallengeTimeoutRequest, context: Context
    ) -> rpc.ReportChallengeTimeoutResponse:
        await self._present(context)
        self.timeouts.append(request)
        return rpc.ReportChallengeTimeoutResponse(
            consecutive_timeouts=len(self.timeouts),
            transient_untrust=self.transient_untrust,
            close=self.close,
        )

    async def ReportViolation(
        self, request: rpc.ReportViolationRequest, context: Context
    ) -> rpc.ReportViolationResponse:
        await self._present(context)
        self.violations.append(request)
        return rpc.ReportViolationResponse()

    async def TouchSessions(
        self, request: rpc.TouchSessionsRequest, context: Context
    ) -> rpc.TouchSessionsResponse:
        await self._present(context)
        self.alive = list(request.provider_ids)
        return rpc.TouchSessionsResponse()

    async def WatchRevocations(
        self, request: rpc.WatchRevocationsRequest, context: Context
    ) -> AsyncIterator[rpc.WatchRevocationsResponse]:
        seen = request.after_generation
        yield rpc.WatchRevocationsResponse(generation=seen, synced=rpc.RevocationsSynced())
        while True:
            async with self._changed:
                while len(self._events) <= seen:
                    await self._changed.wait()
            for event in self._events[seen:]:
                seen += 1
                yield rpc.WatchRevocationsResponse(generation=seen, revocation=event)

    async def ListVerdictKeys(
        self, request: rpc.ListVerdictKeysRequest, context: Context
    ) -> rpc.ListVerdictKeysResponse:
        await self._present(context)
        key = attestation_pb2.SigningKey(key_id=self.signer.key_id, public_key=self.signer.public)
        return rpc.ListVerdictKeysResponse(keys=[key])

    async def RegisterReceiptKey(
        self, request: rpc.RegisterReceiptKeyRequest, context: Context
    ) -> rpc.RegisterReceiptKeyResponse:
        await self._present(context)
        self.receipt_keys[request.key.key_id] = request.key
        return rpc.RegisterReceiptKeyResponse()

    async def ListReceiptKeys(
        self, request: rpc.ListReceiptKeysRequest, context: Context
    ) -> rpc.ListReceiptKeysResponse:
        await self._present(context)
        return rpc.ListReceiptKeysResponse(keys=self.receipt_keys.values())

    async def ListEvidence(
        self, request: rpc.ListEvidenceRequest, context: Context
    ) -> rpc.ListEvidenceResponse:
        await self._present(context)
        self.evidence_asked.append(list(request.provider_ids))
        return rpc.ListEvidenceResponse(
            providers=[
                self.evidence[name] for name in request.provider_ids if name in self.evidence
            ]
        )

    async def RegisterCodeRelease(
        self, request: rpc.RegisterCodeReleaseRequest, context: Context
    ) -> rpc.RegisterCodeReleaseResponse:
        return rpc.RegisterCodeReleaseResponse(release=request.release)

    async def ListCodeReleases(
        self, request: rpc.ListCodeReleasesRequest, context: Context
    ) -> rpc.ListCodeReleasesResponse:
        return rpc.ListCodeReleasesResponse()

    async def DeactivateCodeRelease(
        self, request: rpc.DeactivateCodeReleaseRequest, context: Context
    ) -> rpc.DeactivateCodeReleaseResponse:
        return rpc.DeactivateCodeReleaseResponse()

    async def _present(self, context: Context) -> None:
        if self.away:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "attestation is away")


def identity_of(blob: bytes) -> bytes:
    """Read the identity key out of a registration blob."""
    try:
        return base64.b64decode(json.loads(blob)["publicKey"])
    except (ValueError, KeyError):
        return b""


def _instant(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
