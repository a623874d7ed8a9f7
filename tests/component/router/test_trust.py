"""No evidence, no traffic; and trust ends when it must."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from darkbloom.attestation.v1 import attestation_pb2
from darkbloom.router.v1 import gateway_lane_pb2 as gw
from darkbloom.router.v1 import provider_link_pb2 as pl
from darkbloom_router.observations import Batch, Stage

from tests.component.router.harness import K, ScriptedProvider, World, world


class SilentProvider(ScriptedProvider):
    answers = False


class WitnessedProvider(ScriptedProvider):
    evidence = b"evidence"


async def test_a_registered_provider_gets_nothing_before_its_first_challenge(
    mesh: World,
) -> None:
    silent, gateway = await mesh.raw_provider("one", SilentProvider), await mesh.gateway()
    registered = await silent.register()
    assert registered.accepted_models == ["dev/scripted"]
    stream, _ = gateway.open()

    refused = await gateway.refused(stream)
    assert (refused.http_status, refused.code) == (429, "no_provider")
    assert [(count.reason, count.providers) for count in refused.gates] == [
        (pl.GATE_REASON_TRUST_FLOOR, 1)
    ]


async def test_only_a_trusted_machine_that_was_asked_speaks_against_a_build_and_once(
    mesh: World,
) -> None:
    stranger, known = await mesh.raw_provider("one", SilentProvider), await mesh.provider("two")
    registered = await stranger.register()
    seen = mesh.router.seen
    seen.take()

    def says(peer: ScriptedProvider, build: str = "dev/scripted") -> None:
        status = pl.PrefetchModelStatus(
            model_id=build, status=pl.OPERATION_STATUS_FAILED, error="corrupt"
        )
        peer.lane.send_control(K.FRAME_KIND_PREFETCH_MODEL_STATUS, 0, status)

    async def told() -> tuple[int, set[str]]:
        """What was noted, once a later word of both has come through."""
        for peer in (stranger, known):
            ended = pl.LoadModelStatus(
                model_id="dev/scripted", status=pl.OPERATION_STATUS_SUCCEEDED
            )
            peer.lane.send_control(K.FRAME_KIND_LOAD_MODEL_STATUS, 0, ended)
        batches: list[Batch] = []

        def heard() -> set[str]:
            if (batch := seen.take()) is not None:
                batches.append(batch)
            return {
                machine
                for found in batches
                for (machine, _), state in found.states.items()
                if state.stage is Stage.LOADED
            }

        await mesh.until(lambda: len(heard()) == 2)
        failures = (tally.load_failures for found in batches for tally in found.tallies.values())
        return sum(failures), heard()

    for _ in range(3):
        says(stranger)
    count, machines = await told()
    assert count == 0
    assert registered.provider_id in machines
    for _ in range(3):
        says(known)
    assert (await told())[0] == 1
    says(known)
    assert (await told())[0] == 0


async def test_a_development_verdict_does_not_count_in_production_rules(mesh: World) -> None:
    rules = mesh.router.fleet.rules
    await mesh.provider()
    mesh.router.fleet.rules = type(rules)(min_trust=rules.min_trust, development=False)
    for provider in mesh.router.fleet.providers.values():
        mesh.router.fleet.refresh(provider)
    gateway = await mesh.gateway()
    stream, _ = gateway.open()

    refused = await gateway.refused(stream)
    assert [count.reason for count in refused.gates] == [pl.GATE_REASON_TRUST_FLOOR]


async def test_a_hardware_verdict_meets_the_floor(mesh: World) -> None:
    mesh.attestation.trust_level, mesh.attestation.admission = "hardware", "public"
    provider = await mesh.raw_provider()
    message = provider.registration()
    message.privacy.sip_enabled = True
    provider.lane.send_control(K.FRAME_KIND_REGISTER, 0, message)
    status = await provider.admitted()
    assert status.trust_level == "hardware"
    gateway = await mesh.gateway()
    stream, _ = gateway.open()

    await gateway.offer(stream)


async def test_a_violation_untrusts_reports_and_moves_the_request(mesh: World) -> None:
    one, two = await mesh.provider("one"), await mesh.provider("two")
    gateway = await mesh.gateway()
    stream, _, offer = await gateway.dispatched()
    liar, honest = (one, two) if offer.provider.provider_id == one.provider_id else (two, one)
    await liar.request()
    gateway.violation(offer.attempt_stream)

    again = await gateway.offer(stream)
    assert again.provider.provider_id == honest.provider_id
    await mesh.until(lambda: bool(mesh.attestation.violations))
    [report] = mesh.attestation.violations
    assert (report.provider_id, report.attempt_id, report.kind) == (
        liar.provider_id,
        offer.attempt_id,
        "unopenable",
    )
    while (await liar.trust()).status != "untrusted":
        pass


async def test_first_content_that_does_not_open_moves_the_request_after_all(mesh: World) -> None:
    one, two = await mesh.provider("one"), await mesh.provider("two")
    gateway = await mesh.gateway()
    stream, request_id, offer = await gateway.dispatched()
    liar, honest = (one, two) if offer.provider.provider_id == one.provider_id else (two, one)
    await liar.serve()
    await gateway.whole(offer.attempt_stream)
    gateway.violation(offer.attempt_stream)

    again = await gateway.offer(stream)
    assert again.provider.provider_id == honest.provider_id
    gateway.seal(again)
    await honest.serve()
    await gateway.whole(again.attempt_stream)
    gateway.close(again.attempt_stream)
    assert await mesh.ledger.ending(request_id) == "settled"
    [settlement] = mesh.ledger.settlements
    assert settlement.attempt_id == again.attempt_id


async def test_a_violation_after_content_settles_what_was_opened_without_the_terminal(
    mesh: World,
) -> None:
    provider, gateway = await mesh.provider(), await mesh.gateway()
    _, request_id, _ = await gateway.dispatched()
    stream, _ = await provider.serve()
    await gateway.whole(stream)
    gateway.violation(stream, frames=2, tokens=2)

    failed = await gateway.box.message(K.FRAME_KIND_ATTEMPT_FAILED, gw.AttemptFailed)
    assert failed.failure == gw.ATTEMPT_FAILURE_ENCRYPTION_FAILURE
    assert await mesh.ledger.ending(request_id) == "settled"
    [settlement] = mesh.ledger.settlements
    assert not settlement.HasField("terminal")
    assert settlement.opened.completion_tokens == 2


async def test_an_untrusted_provider_stays_so_until_it_connects_again(mesh: World) -> None:
    provider, gateway = await mesh.provider(), await mesh.gateway()
    _, _, offer = await gateway.dispatched()
    await provider.request()
    gateway.violation(offer.attempt_stream)
    await mesh.until(lambda: bool(mesh.provider_state(provider).untrusted))
    await mesh.clock.advance(1)
    stream, _ = gateway.open()

    refused = await gateway.refused(stream)
    assert [count.reason for count in refused.gates] == [pl.GATE_REASON_UNTRUSTED]


async def test_a_revoked_verdict_counts_no_more(mesh: World) -> None:
    provider, gateway = await mesh.provider(), await mesh.gateway()
    stream, _ = gateway.open()
    await gateway.offer(stream)
    await mesh.attestation.revoke(mesh.attestation.verdicts[provider.provider_id])

    refused = await gateway.refused(stream)
    assert refused.http_status in {429, 502, 503}
    status = await provider.trust()
    assert (status.status, status.reason) == ("untrusted", "revoked")


async def test_a_revoked_verdict_can_be_earned_again(tmp_path: Path) -> None:
    async with world(tmp_path, challenge_interval_s=2.0) as mesh:
        provider = await mesh.provider()
        await mesh.attestation.revoke(mesh.attestation.verdicts[provider.provider_id])
        while (await provider.trust()).status != "untrusted":
            pass
        await mesh.clock.advance(2.5)
        assert (await provider.admitted()).status == "online"


async def test_a_stream_that_attestation_asks_nothing_any_more_is_untrusted(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, challenge_interval_s=2.0) as mesh:
        provider = await mesh.provider()
        mesh.attestation.asks_nothing = True
        await mesh.clock.advance(2.5)
        status = await provider.trust()
        assert (status.status, status.reason) == ("untrusted", "evidence_rejected")


async def test_a_revoked_identity_counts_no_more(mesh: World) -> None:
    provider = await mesh.provider()
    await mesh.attestation.revoke(identity_key=provider.identity)
    await mesh.until(lambda: mesh.provider_state(provider).untrusted == "revoked")


async def test_a_verdict_that_ran_out_between_offer_and_seal_sends_no_body(
    mesh: World,
) -> None:
    mesh.attestation.lifetime = timedelta(seconds=5)
    provider, gateway = await mesh.provider(), await mesh.gateway()
    stream, _ = gateway.open()
    offer = await gateway.offer(stream)
    await mesh.clock.advance(5.5)
    gateway.seal(offer)

    assert (await gateway.refused(stream)).http_status in {429, 503}
    assert K.FRAME_KIND_REQUEST not in provider.box.kinds()


async def test_a_hard_failure_takes_the_verdict_at_once(tmp_path: Path) -> None:
    async with world(tmp_path, challenge_interval_s=2.0) as mesh:
        provider, gateway = await mesh.provider(), await mesh.gateway()
        mesh.attestation.failure = "status signature verification failed"
        await mesh.clock.advance(2.5)
        status = await provider.trust()
        assert status.reason == mesh.attestation.failure
        assert not status.verdict_id
        stream, _ = gateway.open()
        await gateway.refused(stream)

        mesh.attestation.failure = ""
        await mesh.clock.advance(2.5)
        await provider.admitted()
        stream, _ = gateway.open()
        await gateway.offer(stream)


async def test_a_failure_that_untrusts_is_for_good(tmp_path: Path) -> None:
    async with world(tmp_path, challenge_interval_s=2.0) as mesh:
        provider = await mesh.provider()
        mesh.attestation.failure, mesh.attestation.untrust = "K mismatch", True
        await mesh.clock.advance(2.5)
        while (await provider.trust()).status != "untrusted":
            pass
        asked = len(mesh.attestation.answers)
        await mesh.clock.advance(5)
        assert len(mesh.attestation.answers) == asked


async def test_unanswered_challenges_suspend_and_then_close(tmp_path: Path) -> None:
    async with world(tmp_path, challenge_interval_s=2.0, challenge_answer_s=1.0) as mesh:
        provider = await mesh.provider()
        provider.answers = False
        mesh.attestation.transient_untrust = True
        while (await _moving(mesh, provider.trust())).reason != "challenges_unanswered":
            pass
        mesh.attestation.transient_untrust, provider.answers = False, True
        status = await _moving(mesh, provider.admitted())
        assert status.status == "online"
        mesh.attestation.close, provider.answers = True, False
        while provider.end is None:
            await mesh.turn(0.25)
        assert provider.end.error is not None
        assert provider.end.error.status.name == "PERMISSION_DENIED"


async def _moving(mesh: World, waiting: object) -> pl.TrustStatus:
    """Let time pass until something has happened."""
    task = asyncio.ensure_future(waiting)
    while not task.done():
        await mesh.turn(0.25)
    return task.result()


async def test_evidence_that_is_not_accepted_is_never_challenged(mesh: World) -> None:
    mesh.attestation.accepted = False
    mesh.attestation.findings = ["signature verification failed"]
    provider = await mesh.raw_provider()
    await provider.register()

    status = await provider.trust()
    assert (status.status, status.reason) == ("untrusted", "signature verification failed")
    assert K.FRAME_KIND_ATTESTATION_CHALLENGE not in provider.box.kinds()


async def test_a_provider_is_told_to_come_again_while_attestation_is_away(mesh: World) -> None:
    mesh.attestation.away = True
    provider = await mesh.raw_provider()
    provider.lane.send_control(K.FRAME_KIND_REGISTER, 0, provider.registration())
    await mesh.until(lambda: provider.end is not None)
    assert provider.end is not None
    assert provider.end.error is not None
    assert provider.end.error.status.name == "UNAVAILABLE"


async def test_a_code_release_that_is_not_blessed_is_said_and_gated(mesh: World) -> None:
    mesh.attestation.runtime_verified = False
    provider, gateway = await mesh.raw_provider(), await mesh.gateway()
    await provider.register()
    status = await provider.box.message(K.FRAME_KIND_RUNTIME_STATUS, pl.RuntimeStatus)
    assert not status.verified
    await provider.admitted()
    stream, _ = gateway.open()

    refused = await gateway.refused(stream)
    assert [count.reason for count in refused.gates] == [pl.GATE_REASON_RUNTIME_UNVERIFIED]


async def test_an_unlinked_provider_gets_nothing_until_it_is_linked(mesh: World) -> None:
    mesh.accounts.everybody_linked_to = ""
    provider, gateway = await mesh.provider(), await mesh.gateway()
    stream, _ = gateway.open()
    refused = await gateway.refused(stream)
    assert [count.reason for count in refused.gates] == [pl.GATE_REASON_UNLINKED]

    mesh.accounts.links[provider.identity] = "acct_provider"
    await mesh.clock.advance(6)
    await mesh.until(lambda: mesh.provider_state(provider).account_id == "acct_provider")
    stream, _ = gateway.open()
    await gateway.offer(stream)


async def test_a_newer_stream_of_an_identity_wins_only_once_it_has_proven_it(
    mesh: World,
) -> None:
    older, gateway = await mesh.provider("same"), await mesh.gateway()
    impostor = await mesh.raw_provider("same", SilentProvider)
    await impostor.register()
    stream, _ = gateway.open()
    assert (await gateway.offer(stream)).provider.provider_id == older.provider_id

    newer = await mesh.provider("same")
    away = await older.box.message(K.FRAME_KIND_GO_AWAY, pl.GoAway)
    assert away.reason == "superseded"
    stream, _ = gateway.open()
    assert (await gateway.offer(stream)).provider.provider_id == newer.provider_id
    assert impostor.end is None


@pytest.mark.parametrize("nonce", ["", "nonce_of_nobody"])
async def test_an_answer_to_no_challenge_proves_nothing(mesh: World, nonce: str) -> None:
    silent = await mesh.raw_provider("one", SilentProvider)
    await silent.register()
    await silent.box.take(K.FRAME_KIND_ATTESTATION_CHALLENGE)
    silent.lane.send_control(
        K.FRAME_KIND_ATTESTATION_RESPONSE, 0, pl.AttestationResponse(nonce=nonce)
    )
    silent.heartbeat()
    await mesh.until(lambda: mesh.provider_state(silent).beat_at >= 0)
    await mesh.clock.advance(1)

    assert not mesh.attestation.answers


async def test_device_evidence_reaches_attestation_and_the_reason_comes_back_with_its_remedy(
    mesh: World,
) -> None:
    mesh.attestation.trust_reasons = [attestation_pb2.TRUST_REASON_POSTURE_MISSING]
    provider = await mesh.raw_provider("one", WitnessedProvider)
    await provider.register()
    status = await provider.admitted()
    assert mesh.attestation.answers[0].device_evidence == b"evidence"
    assert status.reason == "posture_missing"
    assert "enroll" in status.remedy


async def test_a_verdict_that_its_revocation_has_overtaken_is_never_in_force(mesh: World) -> None:
    provider = await mesh.provider()
    verdict_id = mesh.attestation.verdicts[provider.provider_id]
    await mesh.attestation.revoke(verdict_id)
    await mesh.until(lambda: verdict_id in mesh.router.fleet.revoked)
    state = mesh.provider_state(provider)
    assert state.verdict is None
    mesh.router.fleet.set_verdict(state, state.verdict)
    assert state.status == "untrusted"


async def test_code_challenges_and_their_answers_are_passed_on_unread(mesh: World) -> None:
    mesh.attestation.code_challenge = b"sealed to K"
    provider = await mesh.raw_provider()
    await provider.register(apns_device_token="ab" * 32, apns_environment="production")
    asked = await provider.box.message(K.FRAME_KIND_CODE_RESUME_CHALLENGE, pl.CodeResumeChallenge)
    assert asked.sealed_nonce == b"sealed to K"
    known = mesh.attestation.registrations[provider.provider_id]
    assert (known.apns_device_token, known.apns_environment) == ("ab" * 32, "production")

    for answer in (
        pl.CodeAttestationResponse(nonce=b"n" * 300, signature=b"s"),
        pl.CodeAttestationResponse(nonce=b"n" * 32, signature=b"s"),
    ):
        provider.lane.send_control(K.FRAME_KIND_CODE_ATTESTATION_RESPONSE, 0, answer)
    await mesh.until(lambda: bool(mesh.attestation.code_answers))
    (handed_in,) = mesh.attestation.code_answers
    assert handed_in.provider_id == provider.provider_id
    assert (handed_in.nonce, handed_in.signature) == (b"n" * 32, b"s")
