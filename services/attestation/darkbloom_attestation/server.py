"""Attestation on the wire: translate, delegate, translate back."""

from collections.abc import AsyncIterator, Sequence
from typing import final

from darkbloom.attestation.v1 import attestation_service_pb2 as pb
from darkbloom.attestation.v1.attestation_service_pb2_grpc import AttestationServiceServicer
from darkbloom_edge.code_identity import CodeAnswer
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.interceptors import Context
from darkbloom_mesh.telemetry import Metrics

from darkbloom_attestation import convert, evidence_convert, offer_convert, policy
from darkbloom_attestation.apns.service import CodeIdentity
from darkbloom_attestation.feed import RevocationFeed
from darkbloom_attestation.judging import Judging
from darkbloom_attestation.mdm.asker import Asker
from darkbloom_attestation.meter import Meter
from darkbloom_attestation.model import PublicKey
from darkbloom_attestation.offering import Offering
from darkbloom_attestation.ports import Store
from darkbloom_attestation.postures import Postures
from darkbloom_attestation.publishing import publish
from darkbloom_attestation.releases import Releases


@final
class AttestationServer(AttestationServiceServicer):
    """Serves all RPCs of attestation.

    Holds no resource of its own. Errors are those of the domain and leave as mesh statuses; bad
    evidence is an answer, not an error. A watch ends with UNAVAILABLE when this replica drains.
    """

    def __init__(
        self,
        *,
        judging: Judging,
        postures: Postures,
        codes: CodeIdentity,
        asker: Asker | None = None,
        releases: Releases,
        offering: Offering,
        store: Store,
        feed: RevocationFeed,
        verdict_keys: Sequence[PublicKey],
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._judging = judging
        self._postures = postures
        self._asker = asker
        self._codes = codes
        self._releases = releases
        self._offering = offering
        self._store = store
        self._feed = feed
        self._verdict_keys = verdict_keys
        self._clock = clock
        self._meter = Meter(metrics)

    async def EvaluateRegistration(
        self, request: pb.EvaluateRegistrationRequest, context: Context
    ) -> pb.EvaluateRegistrationResponse:
        """Judge and keep what a provider presented."""
        registration, runtime = await self._judging.register(convert.presented_from(request))
        self._meter.registered(registration, runtime)
        await self._codes.registered(
            registration, request.apns_device_token, request.apns_environment
        )

        return convert.registration_to(registration, runtime)

    async def CreateChallenge(
        self, request: pb.CreateChallengeRequest, context: Context
    ) -> pb.CreateChallengeResponse:
        """Make a challenge for a session."""
        provider_id = convert.provider_id_from(request.provider_id)
        challenge = await self._judging.challenge(provider_id)

        return pb.CreateChallengeResponse(
            nonce=challenge.nonce,
            timestamp=challenge.timestamp,
            expire_time=convert.timestamp(challenge.expire_time),
        )

    async def VerifyChallenge(
        self, request: pb.VerifyChallengeRequest, context: Context
    ) -> pb.VerifyChallengeResponse:
        """Judge an answer."""
        status, signature = convert.answer_from(request)
        judgement = await self._judging.judge(
            convert.provider_id_from(request.provider_id),
            convert.nonce_from(request.nonce),
            status,
            signature,
            convert.hashes_from(request.expected_model_hashes, "expected_model_hashes"),
            evidence_convert.evidence_from(request.device_evidence),
        )
        self._meter.judged(judgement)
        if judgement.ask_posture and self._asker is not None:
            self._asker.wish(request.provider_id)
        response = convert.judgement_to(judgement)
        if judgement.passed:
            response.code_challenge = await self._codes.passed(request.provider_id)

        return response

    async def AnswerCodeChallenge(
        self, request: pb.AnswerCodeChallengeRequest, context: Context
    ) -> pb.AnswerCodeChallengeResponse:
        """Judge what the signed app answered."""
        finding = await self._codes.answer(
            convert.provider_id_from(request.provider_id),
            CodeAnswer(
                nonce=request.nonce[: convert.MAX_SIGNATURE_BYTES],
                signature=request.signature[: convert.MAX_SIGNATURE_BYTES],
            ),
        )

        return pb.AnswerCodeChallengeResponse(accepted=not finding, finding=finding)

    async def ReportChallengeTimeout(
        self, request: pb.ReportChallengeTimeoutRequest, context: Context
    ) -> pb.ReportChallengeTimeoutResponse:
        """Count an unanswered challenge."""
        standing = await self._judging.time_out(
            convert.provider_id_from(request.provider_id), convert.nonce_from(request.nonce)
        )
        self._meter.timed_out()

        return pb.ReportChallengeTimeoutResponse(
            consecutive_timeouts=standing.timeouts,
            transient_untrust=policy.is_suspended(standing),
            close=policy.must_close(standing),
        )

    async def ReportViolation(
        self, request: pb.ReportViolationRequest, context: Context
    ) -> pb.ReportViolationResponse:
        """Untrust a session and revoke its verdicts."""
        violation = convert.violation_from(request)
        revocation = await self._judging.report(violation)
        self._meter.violated(violation.kind)

        signed = None if revocation is None else convert.signed_to(revocation.signed)
        return pb.ReportViolationResponse(revocation=signed)

    async def RecordPosture(
        self, request: pb.RecordPostureRequest, context: Context
    ) -> pb.RecordPostureResponse:
        """Take a device manager's report in."""
        finding = await self._postures.record(evidence_convert.webhook_from(request))

        return pb.RecordPostureResponse(recorded=not finding, finding=finding)

    async def TouchSessions(
        self, request: pb.TouchSessionsRequest, context: Context
    ) -> pb.TouchSessionsResponse:
        """Note which sessions are alive."""
        alive = evidence_convert.sessions_from(
            request.provider_ids, most=evidence_convert.MAX_SESSIONS_SEEN
        )
        await self._store.seen(alive, self._clock.now())

        return pb.TouchSessionsResponse()

    async def WatchRevocations(
        self, request: pb.WatchRevocationsRequest, context: Context
    ) -> AsyncIterator[pb.WatchRevocationsResponse]:
        """Send what still matters, then each new revocation, and heartbeats."""
        async for event in self._feed.watch(request.after_generation):
            yield convert.event_to(event)

    async def ListVerdictKeys(
        self, request: pb.ListVerdictKeysRequest, context: Context
    ) -> pb.ListVerdictKeysResponse:
        """Return the keys that verify verdicts and revocations."""
        return pb.ListVerdictKeysResponse(keys=map(convert.key_to, self._verdict_keys))

    async def RegisterReceiptKey(
        self, request: pb.RegisterReceiptKeyRequest, context: Context
    ) -> pb.RegisterReceiptKeyResponse:
        """Publish a gateway's key."""
        await self._store.put_receipt_key(convert.receipt_key_from(request, self._clock.now()))

        return pb.RegisterReceiptKeyResponse()

    async def ListReceiptKeys(
        self, request: pb.ListReceiptKeysRequest, context: Context
    ) -> pb.ListReceiptKeysResponse:
        """Return all gateways' keys."""
        keys = await self._store.list_receipt_keys()

        return pb.ListReceiptKeysResponse(keys=[convert.key_to(known.key) for known in keys])

    async def ListEvidence(
        self, request: pb.ListEvidenceRequest, context: Context
    ) -> pb.ListEvidenceResponse:
        """Return what everybody may see of sessions."""
        wanted = convert.session_ids_from(request.provider_ids)
        found = {
            exhibit.registration.presented.provider_id: exhibit
            for exhibit in await self._store.exhibits(wanted, self._clock.now())
        }
        device = await self._store.device_evidence(
            [one.verdict.verdict_id for one in found.values() if one.verdict is not None]
        )

        return pb.ListEvidenceResponse(
            providers=[
                convert.exhibit_to(found[name], publish(found[name], device))
                for name in dict.fromkeys(wanted)
                if name in found
            ]
        )

    async def RegisterCodeRelease(
        self, request: pb.RegisterCodeReleaseRequest, context: Context
    ) -> pb.RegisterCodeReleaseResponse:
        """Bless a release."""
        wanted = convert.release_from(request.release, self._clock.now())
        release = await self._releases.register(wanted)

        return pb.RegisterCodeReleaseResponse(release=convert.release_to(release))

    async def ActivateCodeRelease(
        self, request: pb.ActivateCodeReleaseRequest, context: Context
    ) -> pb.ActivateCodeReleaseResponse:
        """Bless a staged release."""
        code_release = convert.code_release_from(request.code_release)
        release = await self._releases.activate(code_release)

        return pb.ActivateCodeReleaseResponse(release=convert.release_to(release))

    async def ListCodeReleases(
        self, request: pb.ListCodeReleasesRequest, context: Context
    ) -> pb.ListCodeReleasesResponse:
        """Return blessed releases."""
        releases = await self._store.list_releases(include_inactive=request.include_inactive)

        return pb.ListCodeReleasesResponse(releases=map(convert.release_to, releases))

    async def DeactivateCodeRelease(
        self, request: pb.DeactivateCodeReleaseRequest, context: Context
    ) -> pb.DeactivateCodeReleaseResponse:
        """Take a release back."""
        code_release = convert.code_release_from(request.code_release)
        release = await self._releases.deactivate(code_release)

        return pb.DeactivateCodeReleaseResponse(release=convert.release_to(release))

    async def GetReleaseOffer(
        self, request: pb.GetReleaseOfferRequest, context: Context
    ) -> pb.GetReleaseOfferResponse:
        """Return where an offer stands."""
        code_release = convert.code_release_from(request.code_release)

        return offer_convert.progress_to(await self._offering.progress(code_release))

    async def ChangeReleaseOffer(
        self, request: pb.ChangeReleaseOfferRequest, context: Context
    ) -> pb.ChangeReleaseOfferResponse:
        """Widen, hold or resume an offer."""
        release = await offer_convert.changed(self._offering, request)

        return pb.ChangeReleaseOfferResponse(release=convert.release_to(release))
