"""The router's neighbours behind their ports: stubs, deadlines, and nothing else."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

import grpc
from darkbloom.attestation.v1 import attestation_pb2
from darkbloom.attestation.v1 import attestation_service_pb2 as attestation_rpc
from darkbloom.attestation.v1.attestation_service_pb2_grpc import AttestationServiceStub
from darkbloom.billing.v1 import account_service_pb2 as account_rpc
from darkbloom.billing.v1 import ledger_pb2
from darkbloom.billing.v1 import ledger_service_pb2 as ledger_rpc
from darkbloom.billing.v1.account_service_pb2_grpc import AccountServiceStub
from darkbloom.billing.v1.ledger_service_pb2_grpc import LedgerServiceStub
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import NotFoundError, UnavailableError, from_rpc_error

from darkbloom_router import convert
from darkbloom_router.model import Admission, Signed, TrustLevel, Verdict
from darkbloom_router.ports import (
    Challenge,
    Finding,
    Judgement,
    Presented,
    Registration,
    Strikes,
)
from darkbloom_router.settlement import Cause, End, Free, Settle

AnswerT = TypeVar("AnswerT")

_ENDS = {
    ledger_pb2.SETTLEMENT_STATUS_SETTLED: End.SETTLED,
    ledger_pb2.SETTLEMENT_STATUS_RELEASED: End.RELEASED,
    ledger_pb2.SETTLEMENT_STATUS_REPLAYED: End.REPLAYED,
    ledger_pb2.SETTLEMENT_STATUS_LATE: End.LATE,
    ledger_pb2.SETTLEMENT_STATUS_REJECTED: End.REJECTED,
}
_CAUSES = {
    Cause.REFUSED: ledger_pb2.RELEASE_REASON_REFUSED,
    Cause.NOTHING_OPENED: ledger_pb2.RELEASE_REASON_NOTHING_OPENED,
    Cause.CLIENT_GONE: ledger_pb2.RELEASE_REASON_CLIENT_GONE,
}


async def _ask(call: Callable[[], Awaitable[AnswerT]]) -> AnswerT:
    """Make one call; whatever fails comes out as a `MeshError`."""
    try:
        return await call()
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from None


class AttestationClient:
    """`ports.Attestation` over gRPC.

    Args:
        channel: To attestation.
        clock: To turn expiries into monotonic time.
        timeout_s: Of each call.
    """

    def __init__(self, channel: grpc.aio.Channel, clock: Clock, timeout_s: float) -> None:
        self._stub: AttestationServiceStub = AttestationServiceStub(channel)
        self._clock = clock
        self._timeout_s = timeout_s

    async def register(self, presented: Presented) -> Registration:
        """Judge a registration."""
        request = attestation_rpc.EvaluateRegistrationRequest(
            provider_id=presented.provider_id,
            attestation_blob=presented.blob,
            attestation_signature=presented.signature,
            encryption_key=presented.encryption_key,
            version=presented.version,
            backend=presented.backend,
            python_hash=presented.python_hash,
            runtime_hash=presented.runtime_hash,
            template_hashes=presented.template_hashes,
            owner_account_id=presented.owner_account_id,
            public_signature=presented.public_signature,
            apns_device_token=presented.push_token,
            apns_environment=presented.push_environment,
        )
        answer = await _ask(
            lambda: self._stub.EvaluateRegistration(request, timeout=self._timeout_s)
        )
        return Registration(
            accepted=answer.accepted,
            trust_level=answer.trust_level,
            findings=tuple(answer.findings),
            identity_key=answer.identity_key,
            runtime_verified=answer.runtime_verified,
            runtime_findings=_findings(answer.runtime_findings),
        )

    async def challenge(self, provider_id: str) -> Challenge:
        """Make a challenge."""
        request = attestation_rpc.CreateChallengeRequest(provider_id=provider_id)
        answer = await _ask(lambda: self._stub.CreateChallenge(request, timeout=self._timeout_s))
        return Challenge(nonce=answer.nonce, timestamp=answer.timestamp)

    async def judge(
        self,
        provider_id: str,
        nonce: str,
        status: bytes,
        signature: bytes,
        hashes: Mapping[str, str],
        evidence: bytes,
    ) -> Judgement:
        """Judge an answer."""
        request = attestation_rpc.VerifyChallengeRequest(
            provider_id=provider_id,
            nonce=nonce,
            status=status,
            status_signature=signature,
            expected_model_hashes=hashes,
            device_evidence=evidence,
        )
        answer = await _ask(lambda: self._stub.VerifyChallenge(request, timeout=self._timeout_s))
        return Judgement(
            passed=answer.passed,
            failure=answer.failure,
            untrust=answer.untrust,
            verdict=self._verdict(answer) if answer.HasField("verdict") else None,
            runtime_verified=answer.runtime_verified,
            runtime_findings=_findings(answer.runtime_findings),
            reasons=tuple(map(_reason, answer.trust_reasons)),
            code_challenge=answer.code_challenge,
        )

    async def code_answered(self, provider_id: str, nonce: bytes, signature: bytes) -> bool:
        """Hand in what the signed app answered."""
        request = attestation_rpc.AnswerCodeChallengeRequest(
            provider_id=provider_id, nonce=nonce, signature=signature
        )
        answer = await _ask(
            lambda: self._stub.AnswerCodeChallenge(request, timeout=self._timeout_s)
        )
        return answer.accepted

    async def alive(self, provider_ids: Sequence[str]) -> None:
        """Say which streams are alive now."""
        request = attestation_rpc.TouchSessionsRequest(provider_ids=provider_ids)
        await _ask(lambda: self._stub.TouchSessions(request, timeout=self._timeout_s))

    async def timed_out(self, provider_id: str, nonce: str) -> Strikes:
        """Report an unanswered challenge."""
        request = attestation_rpc.ReportChallengeTimeoutRequest(
            provider_id=provider_id, nonce=nonce
        )
        answer = await _ask(
            lambda: self._stub.ReportChallengeTimeout(request, timeout=self._timeout_s)
        )
        return Strikes(transient_untrust=answer.transient_untrust, close=answer.close)

    async def report(self, report_id: str, provider_id: str, attempt_id: str, kind: str) -> Signed:
        """Report a violation."""
        request = attestation_rpc.ReportViolationRequest(
            report_id=report_id, provider_id=provider_id, attempt_id=attempt_id, kind=kind
        )
        answer = await _ask(lambda: self._stub.ReportViolation(request, timeout=self._timeout_s))
        return convert.signed(answer.revocation)

    def _verdict(self, answer: attestation_rpc.VerifyChallengeResponse) -> Verdict:
        expires_unix = answer.expire_time.seconds + answer.expire_time.nanos / 1e9
        left_s = expires_unix - self._clock.now().timestamp()
        return Verdict(
            verdict_id=answer.verdict_id,
            signed=convert.signed(answer.verdict),
            level=TrustLevel.parse(answer.trust_level),
            admission=Admission.parse(answer.admission),
            expires_at=self._clock.monotonic() + left_s,
            expires_unix=expires_unix,
        )


class LinksClient:
    """`ports.Links` over gRPC."""

    def __init__(self, channel: grpc.aio.Channel, timeout_s: float) -> None:
        self._stub: AccountServiceStub = AccountServiceStub(channel)
        self._timeout_s = timeout_s

    async def account_of(self, identity_key: bytes) -> str:
        """Return the account, empty when there is none."""
        request = account_rpc.GetProviderLinkRequest(identity_key=identity_key)
        try:
            answer = await _ask(
                lambda: self._stub.GetProviderLink(request, timeout=self._timeout_s)
            )
        except NotFoundError:
            return ""
        return answer.link.account_id


class LedgerClient:
    """`ports.Ledger` over gRPC."""

    def __init__(self, channel: grpc.aio.Channel, timeout_s: float) -> None:
        self._stub: LedgerServiceStub = LedgerServiceStub(channel)
        self._timeout_s = timeout_s

    async def settle(self, orders: Sequence[Settle]) -> Sequence[End]:
        """Settle in one call."""
        request = ledger_rpc.SettleHoldsRequest(settlements=[_settlement(item) for item in orders])
        answer = await _ask(lambda: self._stub.SettleHolds(request, timeout=self._timeout_s))
        return _ends(answer.results, len(orders))

    async def release(self, orders: Sequence[Free]) -> Sequence[End]:
        """Release in one call."""
        request = ledger_rpc.ReleaseHoldsRequest(
            releases=[
                ledger_pb2.Release(request_id=item.request_id, reason=_CAUSES[item.cause])
                for item in orders
            ]
        )
        answer = await _ask(lambda: self._stub.ReleaseHolds(request, timeout=self._timeout_s))
        return _ends(answer.results, len(orders))

    async def renew(self, request_ids: Sequence[str], lease_s: float) -> Sequence[str]:
        """Push leases out."""
        request = ledger_rpc.RenewHoldsRequest(
            request_ids=request_ids, lease=convert.duration(lease_s)
        )
        answer = await _ask(lambda: self._stub.RenewHolds(request, timeout=self._timeout_s))
        return list(answer.ended_request_ids)


def _settlement(order: Settle) -> ledger_pb2.Settlement:
    return ledger_pb2.Settlement(
        request_id=order.request_id,
        attempt_id=order.attempt_id,
        verdict=convert.signed_document(order.verdict),
        terminal=convert.signed_document(order.terminal) if order.terminal else None,
        opened=convert.opened_counts(order.opened),
        price_id=order.price_id,
        traceparent=order.traceparent,
    )


def _ends(results: Sequence[ledger_pb2.SettlementResult], expected: int) -> Sequence[End]:
    if len(results) != expected:
        raise UnavailableError("billing answered another number of results than asked")
    return [_ENDS.get(item.status, End.UNKNOWN) for item in results]


def _findings(items: Sequence[attestation_pb2.RuntimeFinding]) -> tuple[Finding, ...]:
    return tuple(
        Finding(component=item.component, expected=item.expected, got=item.got) for item in items
    )


def _reason(reason: attestation_pb2.TrustReason.ValueType) -> str:
    """Return a trust reason as the word that the provider gets; a newer one by its number."""
    try:
        name = attestation_pb2.TrustReason.Name(reason)
    except ValueError:
        return f"reason_{reason}"
    return name.removeprefix("TRUST_REASON_").lower()
