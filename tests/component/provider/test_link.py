"""One stream to the router: who we say we are, what we answer, how streams follow each other."""

import asyncio
import base64
import itertools
import secrets
from datetime import timedelta

import grpc
import msgspec
import pytest
from darkbloom.common.v1.frame_pb2 import FrameKind
from darkbloom.router.v1.provider_link_pb2 import (
    FailureReason,
    GoAway,
    Heartbeat,
    ProviderStatus,
    Registered,
    RejectedModel,
    TrustStatus,
)
from darkbloom_edge.attestation import (
    Challenge,
    Expected,
    verify_challenge,
    verify_registration,
)
from darkbloom_edge.documents import rfc3339
from darkbloom_mesh.testing import FakeClock, no_leaked_tasks
from darkbloom_provider.agent import SETTLED_S
from darkbloom_provider.link import REGISTER_TIMEOUT_S

from tests.component.provider.harness import BUILD, RELEASE, WEIGHT_HASH, staged
from tests.fakes.provider_router import FakeRouter


async def test_the_first_frame_is_a_registration_that_verifies(tmp_path):
    async with staged(tmp_path) as stage:
        link = await stage.link()
        register = link.register_frame
        assert link.seen[0].kind == FrameKind.FRAME_KIND_REGISTER
        outcome = verify_registration(
            register.attestation_blob,
            register.attestation_signature,
            encryption_key=register.encryption_key,
            now=stage.clock.now(),
        )
        assert outcome.accepted
        assert outcome.identity_key == stage.desk.signer.public
        assert [(m.id, m.weight_hash) for m in register.models] == [(BUILD, WEIGHT_HASH)]
        assert register.runtime_hash == RELEASE.runtime_hash
        # What this process did not measure is not claimed.
        assert not register.privacy.core_dumps_disabled
        assert not register.privacy.anti_debug_enabled
        assert not register.privacy.sip_enabled
        assert register.privacy.env_scrubbed


async def test_a_challenge_is_answered_with_a_status_that_verifies(tmp_path):
    async with staged(tmp_path) as stage:
        link = await stage.link()
        nonce = base64.b64encode(secrets.token_bytes(32)).decode()
        timestamp = rfc3339(stage.clock.now())
        link.challenge(nonce, timestamp)
        response = await link.response()
        outcome = verify_challenge(
            response.status,
            response.status_signature,
            Expected(
                challenge=Challenge(nonce, timestamp, link.provider_id),
                identity_key=stage.desk.signer.public,
                encryption_key=link.register_frame.encryption_key,
                posture_required=False,
                model_hashes={BUILD: WEIGHT_HASH},
            ),
            stage.clock.now(),
        )
        assert outcome.passed
        assert outcome.report.runtime_hash == RELEASE.runtime_hash


async def test_a_challenge_for_another_provider_gets_no_signature(tmp_path):
    async with staged(tmp_path) as stage:
        link = await stage.link()
        link.challenge("n" * 44, rfc3339(stage.clock.now()), provider_id="prov_" + "0" * 32)
        link.challenge("m" * 44, rfc3339(stage.clock.now()))
        assert (await link.response()).nonce == "m" * 44


async def test_heartbeats_report_the_slot_and_the_running_attempt(tmp_path):
    async with staged(tmp_path) as stage:
        link = await stage.link()
        first = Heartbeat.FromString((await link.take(FrameKind.FRAME_KIND_HEARTBEAT)).payload)
        assert first.status == ProviderStatus.PROVIDER_STATUS_IDLE
        assert [slot.model for slot in first.capacity.slots] == [BUILD]

        ask = stage.ask(link, script={"stall_after_deltas": 1}).send()
        await ask.delta()
        while True:
            beat = Heartbeat.FromString((await link.take(FrameKind.FRAME_KIND_HEARTBEAT)).payload)
            assert beat.capacity.capacity_seq > first.capacity.capacity_seq
            if beat.status == ProviderStatus.PROVIDER_STATUS_SERVING:
                break
        assert beat.active_model == BUILD
        link.cancel(ask.stream)
        await ask.terminal()


async def test_unknown_kinds_and_frames_for_nobody_change_nothing(tmp_path):
    async with staged(tmp_path) as stage:
        link = await stage.link()
        link.send(999, 0, b"\xff\xff")
        link.send(FrameKind.FRAME_KIND_DESIRED_MODELS, 0, b"")
        link.send(FrameKind.FRAME_KIND_CREDIT, 1 << 63 | 99, b"")
        link.send_part(1 << 63 | 99, 0, b"x")
        link.send(FrameKind.FRAME_KIND_REQUEST, 7, b"")
        assert (await stage.ask(link, script={"text": "still here"}).send().answer()).text == (
            "still here"
        )
        assert len(stage.router.links) == 1


@pytest.mark.parametrize(
    "kind",
    [
        FrameKind.FRAME_KIND_REGISTERED,
        FrameKind.FRAME_KIND_ATTESTATION_CHALLENGE,
        FrameKind.FRAME_KIND_TRUST_STATUS,
        FrameKind.FRAME_KIND_GO_AWAY,
        FrameKind.FRAME_KIND_TERMINAL_ACK,
    ],
)
async def test_a_malformed_control_payload_ends_the_stream_and_not_the_agent(tmp_path, kind):
    router = FakeRouter(answers=kind != FrameKind.FRAME_KIND_REGISTERED)
    async with staged(tmp_path, router=router) as stage:
        link = await stage.link()
        if router.answers:
            await link.take(FrameKind.FRAME_KIND_HEARTBEAT)
        link.send(kind, 0, b"\x0a\xff")
        await link.ended.wait()
        router.answers = True
        again = await stage.link()
        assert (await stage.ask(again, script={"text": "ok"}).send().answer()).text == "ok"


async def test_nonsense_in_an_answer_is_clamped_and_what_is_shown_is_printable(tmp_path):
    router = FakeRouter(answers=False)
    async with staged(tmp_path, router=router) as stage:
        link = await stage.link()
        answer = Registered(
            provider_id=link.provider_id,
            initial_credit=-5,
            accepted_models=["\x1b[31mred"],
            rejected_models=[RejectedModel(id="x", reason=9999, detail="y" * 5000)],
        )
        answer.heartbeat_interval.seconds = 2**62
        link.send(FrameKind.FRAME_KIND_REGISTERED, 0, answer)
        link.send(
            FrameKind.FRAME_KIND_TRUST_STATUS, 0, TrustStatus(status="untrusted", reason="a\nb")
        )
        link.send(
            FrameKind.FRAME_KIND_TRUST_STATUS,
            0,
            TrustStatus(verdict_id="ver_" + "1" * 32, reason="a\nb"),
        )
        link.verdict_id = "ver_" + "1" * 32
        # The credit falls back to a sane one.
        assert (await stage.ask(link, script={"text": "ok"}).send().answer()).text == "ok"
        standing = stage.agent.standing
        assert "\x1b" not in standing.accepted_models[0]
        assert standing.rejected_models[0].reason == "other"
        assert len(standing.rejected_models[0].detail) < 500
        assert "\n" not in standing.trust_reason


async def test_a_router_that_does_not_answer_is_left(tmp_path):
    clock = FakeClock()
    router = FakeRouter(answers=False)
    async with staged(tmp_path, router=router, clock=clock) as stage:
        link = await stage.link()
        begun = clock.monotonic()
        router.answers = True
        await stage.until(link.ended.is_set)
        assert clock.monotonic() - begun >= REGISTER_TIMEOUT_S - 0.1
        again = await stage.link()
        assert (await stage.ask(again, script={"text": "ok"}).send().answer()).text == "ok"


async def test_refusals_are_met_with_growing_waits(tmp_path):
    clock = FakeClock()
    router = FakeRouter(refuses=grpc.StatusCode.UNAVAILABLE)
    async with staged(tmp_path, router=router, clock=clock) as stage:
        stage.agent._backoff._uniform = lambda: 1.0
        seen: list[float] = []

        def met(calls):
            if router.calls > len(seen):
                seen.append(clock.monotonic())
            return len(seen) >= calls

        await stage.until(lambda: met(5))
        waits = [b - a for a, b in itertools.pairwise(seen)]
        assert all(b > 1.5 * a for a, b in itertools.pairwise(waits))
        router.refuses = None


async def test_a_lost_stream_is_replaced_and_says_who_it_was(tmp_path):
    async with no_leaked_tasks(), staged(tmp_path) as stage:
        first = await stage.link()
        await first.take(FrameKind.FRAME_KIND_HEARTBEAT)
        first.close()
        second = await stage.link()
        resume = second.register_frame.resume
        assert resume.previous_provider_id == first.provider_id
        assert resume.process_generation == first.register_frame.resume.process_generation
        assert second.register_frame.encryption_key == first.register_frame.encryption_key


async def test_a_terminal_that_nobody_acknowledged_comes_again_on_the_next_stream(tmp_path):
    router = FakeRouter(acknowledges=False)
    async with staged(tmp_path, router=router) as stage:
        first = await stage.link()
        ask = stage.ask(first, script={"text": "paid work"}).send()
        sent = (await ask.answer()).terminal
        first.close()

        second = await stage.link()
        assert list(second.register_frame.resume.inflight_attempts) == [ask.attempt_id]
        frame = await second.take(FrameKind.FRAME_KIND_TERMINAL, 0)
        assert ask.check(frame) == sent
        second.acknowledge(ask.attempt_id)
        await stage.until(lambda: len(stage.desk.terminals) == 0)
        router.acknowledges = True


async def test_what_ran_on_a_lost_stream_leaves_a_terminal_of_what_was_sent(tmp_path):
    async with staged(tmp_path) as stage:
        first = await stage.link()
        ask = stage.ask(first, script={"tokens": 50, "stall_after_deltas": 3}).send()
        for _ in range(3):
            await ask.delta()
        first.close()
        second = await stage.link()
        terminal = ask.check(await second.take(FrameKind.FRAME_KIND_TERMINAL, 0))
        assert (terminal.outcome, terminal.completion_tokens, terminal.chunks) == (
            "cancelled",
            3,
            3,
        )


async def test_go_away_makes_the_new_stream_before_it_breaks_the_old_one(tmp_path):
    clock = FakeClock()
    async with staged(tmp_path, clock=clock) as stage:
        old = await stage.link()
        await stage.until(lambda: clock.monotonic() > SETTLED_S + 1)
        ask = stage.ask(old, script={"tokens": 4, "interval_s": 1}).send()
        await ask.delta()
        old.go_away()
        new = await stage.link()
        assert not old.ended.is_set()

        # Work of the old stream goes on, and new work comes on the new one.
        assert (await stage.ask(new, script={"text": "ok"}).send().answer()).text == "ok"
        await stage.until(old.ended.is_set)
        assert (await ask.answer()).terminal.completion_tokens == 4
        kinds = [frame.kind for frame in old.seen]
        drained = kinds.index(FrameKind.FRAME_KIND_PROVIDER_DRAIN)
        assert kinds.index(FrameKind.FRAME_KIND_TERMINAL) < drained
        assert old.end.clean
        assert not new.ended.is_set()


async def test_a_router_that_sends_everybody_away_is_not_hammered(tmp_path):
    clock = FakeClock()
    async with staged(tmp_path, clock=clock) as stage:
        stage.agent._backoff._uniform = lambda: 1.0
        link = await stage.link()
        link.go_away()
        before = clock.monotonic()
        await stage.until(lambda: stage.router.calls == 2)
        assert clock.monotonic() - before >= 0.9


async def test_the_hint_to_reconnect_later_is_honoured(tmp_path):
    clock = FakeClock()
    async with staged(tmp_path, clock=clock) as stage:
        link = await stage.link()
        message = GoAway(reason="drain")
        message.reconnect_after.FromTimedelta(timedelta(seconds=7))
        link.send(FrameKind.FRAME_KIND_GO_AWAY, 0, message)
        before = clock.monotonic()
        await stage.until(lambda: stage.router.calls == 2)
        assert clock.monotonic() - before >= 6.9


async def test_drain_finishes_running_work_and_refuses_new_work(tmp_path):
    async with staged(tmp_path) as stage:
        link = await stage.link()
        ask = stage.ask(link, script={"tokens": 12, "interval_s": 0.05}).send()
        await ask.delta()
        draining = asyncio.ensure_future(stage.agent.drain(30))
        await stage.until(lambda: stage.agent._current._draining)
        late = stage.ask(link).send()
        assert (await late.error()).reason == FailureReason.FAILURE_REASON_DRAINING
        assert (await ask.answer()).terminal.completion_tokens == 12
        await draining
        await stage.until(link.ended.is_set)
        assert link.end.clean


async def test_a_drain_that_takes_too_long_cancels_and_still_settles(tmp_path):
    async with staged(tmp_path) as stage:
        link = await stage.link()
        ask = stage.ask(link, script={"tokens": 9, "stall_after_deltas": 2}).send()
        await ask.delta()
        await ask.delta()
        await stage.agent.drain(0)
        terminal = await ask.terminal()
        assert (terminal.outcome, terminal.completion_tokens) == ("cancelled", 2)
        await link.take(FrameKind.FRAME_KIND_PROVIDER_DRAIN)


async def test_a_drain_does_not_wait_for_ever_for_a_router_that_never_settles(tmp_path):
    clock = FakeClock()
    router = FakeRouter(acknowledges=False)
    async with staged(tmp_path, router=router, clock=clock) as stage:
        link = await stage.link()
        await stage.until(stage.agent.registered.is_set)
        draining = asyncio.create_task(stage.agent.drain(1))
        await stage.until(link.ended.is_set)
        await draining


async def test_the_state_file_follows_the_link(tmp_path):
    async with staged(tmp_path) as stage:
        link = await stage.link()
        link.trust(link.verdict_id, reason="software key")
        await stage.until(
            lambda: stage.state_file.exists() and stage.state()["trust_reason"] == "software key"
        )
        state = stage.state()
        assert state["connection"] == "registered"
        assert state["provider_id"] == link.provider_id
        assert state["accepted_models"] == [BUILD]
    assert stage.state()["connection"] == "stopped"
    assert msgspec.json.decode(stage.state_file.read_bytes())["engine"] == "scripted"
