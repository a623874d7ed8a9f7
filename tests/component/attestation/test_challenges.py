import asyncio

import pytest
from darkbloom.attestation.v1 import attestation_service_pb2 as pb
from darkbloom_edge.attestation import Challenge
from darkbloom_edge.ids import new_id
from darkbloom_edge.signatures import P256Signer, from_base64, to_base64
from darkbloom_mesh.errors import ConflictError, NotFoundError, PreconditionError
from darkbloom_mesh.postgres import Database
from darkbloom_mesh.testing import FakeClock

from tests.component.attestation.harness import (
    KEYS,
    PYTHON,
    RUNTIME,
    Attestation,
    Provider,
    boastful,
    next_revocation,
    read_verdict,
    served,
    verify_request,
)


async def registered(attestation: Attestation, provider: Provider | None = None) -> Provider:
    provider = provider or Provider()
    await attestation.bless()
    assert (await attestation.register(provider, owner_account_id="acct_1")).accepted
    return provider


async def test_an_honest_linux_host_is_none_and_gets_a_development_verdict(
    database: Database, clock: FakeClock
) -> None:
    async with served(database, clock) as attestation:
        provider = Provider()
        await attestation.bless()
        found = await attestation.register(provider)
        response, verdict = await attestation.verdict(provider)

        assert (found.accepted, found.trust_level) == (True, "none")
        assert list(found.findings) == [
            "no_secure_enclave",
            "sip_disabled",
            "secure_boot_disabled",
        ]
        assert found.identity_key == provider.signer.public
        assert (verdict.trust_level, verdict.admission) == ("none", "development")
        assert from_base64(verdict.encryption_key) == provider.k
        assert from_base64(verdict.identity_key) == provider.signer.public
        assert verdict.provider_id == provider.provider_id
        assert verdict.code_release == f"sha256:{RUNTIME}"
        assert [name.split("_")[0] for name in verdict.evidence] == ["reg", "chal"]
        lifetime = response.expire_time.ToDatetime() - clock.now().replace(tzinfo=None)
        assert lifetime.total_seconds() == 16 * 60


async def test_a_software_key_that_claims_everything_is_self_signed_at_most(
    database: Database, clock: FakeClock
) -> None:
    async with served(database, clock, development=False) as attestation:
        provider = await registered(attestation, boastful())
        _, verdict = await attestation.verdict(provider)
        assert (verdict.trust_level, verdict.admission) == ("self_signed", "owner")


async def test_production_admits_an_unlinked_software_key_to_nobody(
    database: Database, clock: FakeClock
) -> None:
    async with served(database, clock, development=False) as attestation:
        provider = Provider()
        await attestation.bless()
        await attestation.register(provider)
        response = await attestation.passed(provider)
        assert response.passed
        assert not response.HasField("verdict")
        assert response.admission == ""


async def test_unknown_code_passes_but_gets_no_verdict(
    database: Database, clock: FakeClock
) -> None:
    async with served(database, clock) as attestation:
        provider = await registered(attestation)
        response = await attestation.passed(provider, runtime_hash="f" * 64)
        assert response.passed
        assert not response.runtime_verified
        assert [finding.component for finding in response.runtime_findings] == ["runtime_hash"]
        assert not response.HasField("verdict")


async def test_what_counts_is_the_code_in_the_signed_status(
    database: Database, clock: FakeClock
) -> None:
    async with served(database, clock) as attestation:
        provider = await registered(attestation)
        # The registration said the blessed hashes, but nobody had signed that.
        response = await attestation.passed(provider, runtime_hash=None, python_hash=None)
        assert not response.HasField("verdict")


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"attestation_blob": b""}, "absent"),
        ({"attestation_blob": b"{}"}, "malformed"),
        ({"attestation_blob": b"\xff" * 999_999}, "malformed"),
        ({"attestation_signature": b""}, "invalid_der_signature"),
        ({"attestation_signature": P256Signer.generate().sign_raw(b"x")}, "signature_failed"),
        ({"encryption_key": bytes(32)}, "encryption_key_mismatch"),
        ({"encryption_key": b"short"}, "encryption_key_mismatch"),
    ],
)
async def test_bad_evidence_is_an_answer_and_ends_the_session(
    database: Database, clock: FakeClock, changes: dict[str, bytes], finding: str
) -> None:
    async with served(database, clock) as attestation:
        provider = Provider()
        found = await attestation.register(provider, **changes)
        assert not found.accepted
        assert found.trust_level == "none"
        assert finding in found.findings
        error = await attestation.refused(
            "CreateChallenge", pb.CreateChallengeRequest(provider_id=provider.provider_id)
        )
        assert error.reason_name == "EVIDENCE_REJECTED"


async def test_a_k_of_another_size_is_refused_even_when_the_blob_names_it(
    database: Database, clock: FakeClock
) -> None:
    async with served(database, clock) as attestation:
        provider = Provider(encryption_public_key=to_base64(b"short"))
        found = await attestation.register(provider, encryption_key=b"short")
        assert not found.accepted
        assert "encryption_key_mismatch" in found.findings


@pytest.mark.parametrize("seconds", [-121, 121])
async def test_an_old_registration_is_refused_both_ways(
    database: Database, clock: FakeClock, seconds: int
) -> None:
    async with served(database, clock) as attestation:
        clock.jump(300)
        provider = Provider()
        other = FakeClock()
        other.jump(300 + seconds)
        found = await attestation.call("EvaluateRegistration", provider.registration(other))
        assert not found.accepted
        # What decided comes first, before what is only recorded.
        assert found.findings[0] == "stale"


async def test_a_repeated_registration_gives_the_same_answer_and_another_is_a_conflict(
    database: Database, clock: FakeClock
) -> None:
    async with served(database, clock) as attestation:
        provider = Provider()
        request = provider.registration(clock)
        first = await attestation.call("EvaluateRegistration", request)
        assert await attestation.call("EvaluateRegistration", request) == first
        clock.jump(1)
        error = await attestation.refused("EvaluateRegistration", provider.registration(clock))
        assert isinstance(error, ConflictError)


async def test_an_unknown_session_is_not_found(database: Database, clock: FakeClock) -> None:
    async with served(database, clock) as attestation:
        provider = Provider()
        for method, request in (
            ("CreateChallenge", pb.CreateChallengeRequest(provider_id=provider.provider_id)),
            ("VerifyChallenge", verify_request(provider, "n", b"", b"")),
            (
                "ReportChallengeTimeout",
                pb.ReportChallengeTimeoutRequest(provider_id=provider.provider_id, nonce="n"),
            ),
        ):
            assert isinstance(await attestation.refused(method, request), NotFoundError)


async def test_each_challenge_is_judged_once(database: Database, clock: FakeClock) -> None:
    async with served(database, clock) as attestation:
        provider = await registered(attestation)
        challenge = await attestation.challenge(provider)
        status, signature = provider.answer(challenge)
        request = verify_request(provider, challenge.nonce, status, signature)
        answers = await asyncio.gather(
            *(attestation.stub.VerifyChallenge(request, timeout=10) for _ in range(5)),
            return_exceptions=True,
        )
        assert sum(isinstance(answer, pb.VerifyChallengeResponse) for answer in answers) == 1
        error = await attestation.refused("VerifyChallenge", request)
        assert error.reason_name == "CHALLENGE_UNKNOWN"


async def test_a_nonce_that_was_never_asked_is_unknown(
    database: Database, clock: FakeClock
) -> None:
    async with served(database, clock) as attestation:
        provider = await registered(attestation)
        await attestation.challenge(provider)
        invented = Challenge(to_base64(bytes(32)), "2026-01-01T00:00:00Z", provider.provider_id)
        with pytest.raises(PreconditionError) as caught:
            await attestation.answer(provider, invented)
        assert caught.value.reason_name == "CHALLENGE_UNKNOWN"


async def test_an_answer_for_another_nonce_fails(database: Database, clock: FakeClock) -> None:
    async with served(database, clock) as attestation:
        provider = await registered(attestation)
        old = await attestation.challenge(provider)
        new = await attestation.challenge(provider)
        response = await attestation.answer(provider, old, nonce=new.nonce)
        assert (response.passed, response.failure) == (False, "nonce_mismatch")
        assert not response.untrust


async def test_an_earlier_challenge_can_no_longer_be_answered(
    database: Database, clock: FakeClock
) -> None:
    async with served(database, clock) as attestation:
        provider = await registered(attestation)
        old = await attestation.challenge(provider)
        await attestation.challenge(provider)
        with pytest.raises(PreconditionError):
            await attestation.answer(provider, old)


@pytest.mark.parametrize(("seconds", "in_time"), [(29, True), (34, True), (34.5, False)])
async def test_an_answer_has_thirty_seconds_and_some_grace(
    database: Database, clock: FakeClock, seconds: float, in_time: bool
) -> None:
    async with served(database, clock) as attestation:
        provider = await registered(attestation)
        challenge = await attestation.challenge(provider)
        clock.jump(seconds)
        if in_time:
            assert (await attestation.answer(provider, challenge)).passed
            return
        for _ in range(2):
            with pytest.raises(PreconditionError) as caught:
                await attestation.answer(provider, challenge)
            assert caught.value.reason_name == "CHALLENGE_UNKNOWN"


async def test_an_answer_signed_by_another_key_fails(database: Database, clock: FakeClock) -> None:
    async with served(database, clock) as attestation:
        provider = await registered(attestation)
        response = await attestation.passed(provider, signer=P256Signer.generate())
        assert (response.passed, response.failure) == (False, "signature_failed")


async def test_an_answer_of_another_session_fails(database: Database, clock: FakeClock) -> None:
    async with served(database, clock) as attestation:
        provider = await registered(attestation)
        challenge = await attestation.challenge(provider)
        elsewhere = challenge._replace(provider_id=new_id("prov"))
        response = await attestation.answer(provider, elsewhere)
        assert response.failure == "wrong_provider"


async def test_another_k_in_the_answer_fails(database: Database, clock: FakeClock) -> None:
    async with served(database, clock) as attestation:
        provider = await registered(attestation)
        response = await attestation.passed(provider, public_key=to_base64(bytes(32)))
        assert response.failure == "public_key_mismatch"


async def test_an_answer_of_absurd_size_is_a_strike(database: Database, clock: FakeClock) -> None:
    async with served(database, clock) as attestation:
        provider = await registered(attestation)
        challenge = await attestation.challenge(provider)
        request = verify_request(provider, challenge.nonce, b"x" * 999_999, b"x" * 999)
        response = await attestation.call("VerifyChallenge", request)
        assert response.failure == "signature_failed"


async def test_posture_at_none_is_recorded_and_never_untrusts(
    database: Database, clock: FakeClock
) -> None:
    async with served(database, clock) as attestation:
        provider = await registered(attestation)
        for changes in ({"sip_enabled": False}, {"sip_enabled": None}, {"rdma_disabled": None}):
            response = await attestation.passed(provider, **changes)
            assert response.passed
            assert response.trust_level == "none"


async def test_lost_posture_above_none_untrusts_at_once(
    database: Database, clock: FakeClock
) -> None:
    async with served(database, clock) as attestation:
        provider = await registered(attestation, boastful())
        response = await attestation.passed(provider, sip_enabled=False)
        assert (response.failure, response.untrust) == ("sip_disabled", True)


async def test_swapped_weights_untrust_at_once_and_for_good(
    database: Database, clock: FakeClock
) -> None:
    async with served(database, clock) as attestation:
        provider = await registered(attestation)
        response = await attestation.passed(provider, model_hashes={"org/one": "b" * 64})
        assert (response.failure, response.untrust) == ("weight_hash_mismatch", True)
        error = await attestation.refused(
            "CreateChallenge", pb.CreateChallengeRequest(provider_id=provider.provider_id)
        )
        assert error.reason_name == "EVIDENCE_REJECTED"


async def test_a_swapped_binary_untrusts_at_once(database: Database, clock: FakeClock) -> None:
    async with served(database, clock) as attestation:
        provider = await registered(attestation, Provider(binary_hash="a" * 64))
        assert (await attestation.passed(provider)).passed
        response = await attestation.passed(provider, binary_hash="b" * 64)
        assert (response.failure, response.untrust) == ("binary_hash_mismatch", True)


async def test_three_failures_in_a_row_untrust(database: Database, clock: FakeClock) -> None:
    async with served(database, clock) as attestation:
        provider = await registered(attestation)
        wrong = {"signer": P256Signer.generate()}
        for round_ in ([False, False], [False, False, True]):
            found = [(await attestation.passed(provider, **wrong)).untrust for _ in round_]
            assert found == round_
            if not found[-1]:
                assert (await attestation.passed(provider)).passed


async def test_a_failure_revokes_the_verdicts_in_force(
    database: Database, clock: FakeClock
) -> None:
    async with served(database, clock) as attestation:
        provider = await registered(attestation)
        watch = attestation.watch()
        issued = []
        for _ in range(2):
            response, _ = await attestation.verdict(provider)
            issued.append(response.verdict_id)
            clock.jump(300)
        await attestation.passed(provider, signer=P256Signer.generate())
        revoked = [(await next_revocation(watch)).revocation.document for _ in issued]
        for verdict_id, document in zip(issued, revoked, strict=True):
            assert verdict_id.encode() in document


async def test_timeouts_are_counted_once_each_and_suspend_then_close(
    database: Database, clock: FakeClock
) -> None:
    async with served(database, clock) as attestation:
        provider = await registered(attestation)
        await attestation.verdict(provider)
        watch = attestation.watch()
        seen = []
        for _ in range(6):
            challenge = await attestation.challenge(provider)
            clock.jump(30)
            report = pb.ReportChallengeTimeoutRequest(
                provider_id=provider.provider_id, nonce=challenge.nonce
            )
            for _ in range(2):
                strikes = await attestation.call("ReportChallengeTimeout", report)
            seen.append((strikes.consecutive_timeouts, strikes.transient_untrust, strikes.close))
            with pytest.raises(PreconditionError):
                await attestation.answer(provider, challenge)
        assert seen == [(n, n >= 3, n >= 6) for n in range(1, 7)]
        assert b"challenges_unanswered" in (await next_revocation(watch)).revocation.document
        # Suspension is not for good: the next pass ends it.
        assert (await attestation.passed(provider)).HasField("verdict")


async def test_an_answered_challenge_did_not_time_out(database: Database, clock: FakeClock) -> None:
    async with served(database, clock) as attestation:
        provider = await registered(attestation)
        challenge = await attestation.challenge(provider)
        await attestation.answer(provider, challenge)
        error = await attestation.refused(
            "ReportChallengeTimeout",
            pb.ReportChallengeTimeoutRequest(
                provider_id=provider.provider_id, nonce=challenge.nonce
            ),
        )
        assert error.reason_name == "CHALLENGE_UNKNOWN"


async def test_a_restart_in_the_middle_of_a_challenge_loses_nothing(
    database: Database, database_url: str, clock: FakeClock
) -> None:
    async with served(database, clock) as attestation:
        provider = await registered(attestation)
        challenge = await attestation.challenge(provider)
    again = await Database.connect(database_url)
    async with served(again, clock) as attestation:
        response = await attestation.answer(provider, challenge)
        assert read_verdict(response, clock).provider_id == provider.provider_id
    await again.close()


async def test_a_reconnect_begins_at_nothing(database: Database, clock: FakeClock) -> None:
    async with served(database, clock) as attestation:
        provider = await registered(attestation, boastful())
        await attestation.verdict(provider)
        provider.reconnect()
        error = await attestation.refused(
            "CreateChallenge", pb.CreateChallengeRequest(provider_id=provider.provider_id)
        )
        assert isinstance(error, NotFoundError)


async def test_the_published_keys_verify_what_was_signed(
    database: Database, clock: FakeClock
) -> None:
    async with served(database, clock) as attestation:
        answer = await attestation.call("ListVerdictKeys", pb.ListVerdictKeysRequest())
        assert {key.key_id: key.public_key for key in answer.keys} == KEYS


async def test_templates_in_the_status_must_be_blessed(
    database: Database, clock: FakeClock
) -> None:
    async with served(database, clock) as attestation:
        provider = await registered(attestation)
        response = await attestation.passed(
            provider, python_hash=PYTHON, template_hashes={"chat": "c" * 64}
        )
        assert [finding.component for finding in response.runtime_findings] == ["template:chat"]
        assert not response.HasField("verdict")
