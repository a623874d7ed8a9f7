"""Everything that can be wrong with a request gets a typed refusal, and the agent lives on."""

import hashlib
import io
from contextlib import redirect_stdout

import pytest
from darkbloom.common.v1.frame_pb2 import FrameKind
from darkbloom.router.v1.provider_link_pb2 import FailureCode as Code
from darkbloom.router.v1.provider_link_pb2 import FailureReason as Reason
from darkbloom_edge.ids import new_id
from darkbloom_mesh.testing import FakeClock
from darkbloom_provider.bodies import BODY_TIMEOUT_S, MAX_LARGE_BODIES

from tests.component.provider.harness import staged
from tests.fakes.provider_router import ATTEMPT_BIT

CANARY = "canary-7f3a91"


async def test_the_same_envelope_delivered_twice_is_answered_once(tmp_path):
    async with staged(tmp_path) as stage:
        link = await stage.link()
        ask = stage.ask(link, script={"text": "once"}).send()
        await ask.answer()
        again = ATTEMPT_BIT | 1000
        link.send(FrameKind.FRAME_KIND_REQUEST, again, ask.request)
        link.send_body(again, ask.ciphertext)
        error = await link.error(again)
        assert error.reason == Reason.FAILURE_REASON_SENDER_KEY_REUSED

        # Spelled with its ignored top bit set, the key is still the same one.
        key = bytearray(ask.request.sender_key)
        key[31] ^= 0x80
        ask.request.sender_key = bytes(key)
        link.send(FrameKind.FRAME_KIND_REQUEST, again + 1, ask.request)
        link.send_body(again + 1, ask.ciphertext)
        assert (await link.error(again + 1)).reason == Reason.FAILURE_REASON_SENDER_KEY_REUSED


async def test_an_expired_header_is_refused(tmp_path):
    async with staged(tmp_path) as stage:
        link = await stage.link()
        late = stage.ask(link, lifetime_ms=-1000).send()
        assert (await late.error()).reason == Reason.FAILURE_REASON_HEADER_EXPIRED
        eternal = stage.ask(link, lifetime_ms=3_600_000).send()
        assert (await eternal.error()).reason == Reason.FAILURE_REASON_HEADER_EXPIRED


@pytest.mark.parametrize("field", ["prompt_bound", "output_bound"])
async def test_bounds_that_differ_from_the_sealed_ones_are_refused(tmp_path, field):
    async with staged(tmp_path) as stage:
        link = await stage.link()
        ask = stage.ask(link)
        setattr(ask.request, field, 999_999)
        error = await ask.send().error()
        assert error.reason == Reason.FAILURE_REASON_HEADER_MISMATCH
        assert error.failure_code == Code.FAILURE_CODE_ENCRYPTION_FAILURE


async def test_a_prompt_above_its_bound_is_refused(tmp_path):
    async with staged(tmp_path) as stage:
        link = await stage.link()
        ask = stage.ask(link, "five words are too many", prompt_bound=4).send()
        assert (await ask.error()).failure_code == Code.FAILURE_CODE_BOUND_EXCEEDED


async def test_only_the_verdict_in_force_and_the_one_before_count(tmp_path):
    async with staged(tmp_path) as stage:
        link = await stage.link()
        first = link.verdict_id
        strange = stage.ask(link, verdict_id=new_id("ver")).send()
        error = await strange.error()
        assert error.reason == Reason.FAILURE_REASON_HEADER_MISMATCH

        link.trust(new_id("ver"))
        script = {"text": "ok"}
        old = stage.ask(link, verdict_id=first, script=script)
        assert (await old.send().answer()).text == "ok"
        link.trust(new_id("ver"))
        older = stage.ask(link, verdict_id=first).send()
        assert (await older.error()).reason == Reason.FAILURE_REASON_HEADER_MISMATCH

        last = link.verdict_id
        link.trust("", status="untrusted")
        gone = stage.ask(link, verdict_id=last).send()
        assert (await gone.error()).reason == Reason.FAILURE_REASON_HEADER_MISMATCH


async def test_a_sealed_verdict_other_than_the_plaintext_one_is_refused(tmp_path):
    async with staged(tmp_path) as stage:
        link = await stage.link()
        ask = stage.ask(link, verdict_id=new_id("ver"))
        ask.request.verdict_id = link.verdict_id
        assert (await ask.send().error()).reason == Reason.FAILURE_REASON_HEADER_MISMATCH


async def test_a_build_that_is_not_hosted_is_refused(tmp_path):
    async with staged(tmp_path) as stage:
        link = await stage.link()
        error = await stage.ask(link, build="dev/other").send().error()
        assert (error.status_code, error.failure_code) == (404, Code.FAILURE_CODE_MODEL_UNAVAILABLE)
        smuggled = stage.ask(link, model="dev/other").send()
        assert (await smuggled.error()).failure_code == Code.FAILURE_CODE_INVALID_REQUEST


@pytest.mark.parametrize(
    "body",
    [
        b"not json",
        b"{}",
        b'{"max_tokens":5,"messages":[],"model":"dev/scripted"}',
        b'{"model":"dev/scripted","max_tokens":5,"messages":[{"content":"hi","role":"user"}]}',
        b"[" * 10_000,
    ],
)
async def test_a_body_that_is_no_canonical_request_is_refused(tmp_path, body):
    async with staged(tmp_path) as stage:
        link = await stage.link()
        error = await stage.ask(link, body=body).send().error()
        assert (error.status_code, error.failure_code) == (400, Code.FAILURE_CODE_INVALID_REQUEST)


async def test_a_plaintext_body_is_refused(tmp_path):
    async with staged(tmp_path) as stage:
        link = await stage.link()
        ask = stage.ask(link)
        ask.ciphertext = ask.body
        _announce_as_sent(ask)
        assert (await ask.send().error()).failure_code == Code.FAILURE_CODE_ENCRYPTION_FAILURE


async def test_an_altered_ciphertext_is_refused(tmp_path):
    async with staged(tmp_path) as stage:
        link = await stage.link()
        ask = stage.ask(link)
        ask.ciphertext = ask.ciphertext[:-1] + bytes([ask.ciphertext[-1] ^ 1])
        _announce_as_sent(ask)
        assert (await ask.send().error()).failure_code == Code.FAILURE_CODE_ENCRYPTION_FAILURE


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("body_sha256", bytes(32)),
        ("body_sha256", b"short"),
        ("body_bytes", 3),
        ("body_bytes", 0),
        ("body_bytes", -1),
        ("body_bytes", 33 * 1024 * 1024),
        ("request_id", "req_nonsense"),
        ("attempt_id", ""),
    ],
)
async def test_an_announcement_that_does_not_fit_its_body_is_refused(tmp_path, field, value):
    async with staged(tmp_path) as stage:
        link = await stage.link()
        ask = stage.ask(link)
        setattr(ask.request, field, value)
        assert (await ask.send().error()).failure_code == Code.FAILURE_CODE_INVALID_REQUEST


@pytest.mark.parametrize("key", [b"", bytes(32), b"\x01" + bytes(31)])
async def test_an_unusable_sender_key_is_refused(tmp_path, key):
    async with staged(tmp_path) as stage:
        link = await stage.link()
        ask = stage.ask(link)
        ask.request.sender_key = key
        assert (await ask.send().error()).failure_code == Code.FAILURE_CODE_ENCRYPTION_FAILURE


async def test_a_body_part_out_of_order_is_refused(tmp_path):
    async with staged(tmp_path) as stage:
        link = await stage.link()
        ask = stage.ask(link)
        ask.announce()
        link.send_part(ask.stream, 1, ask.ciphertext)
        assert (await ask.error()).failure_code == Code.FAILURE_CODE_INVALID_REQUEST


async def test_more_large_bodies_than_allowed_are_refused(tmp_path):
    async with staged(tmp_path) as stage:
        link = await stage.link()
        asks = [stage.ask(link, "x" * 100_000) for _ in range(MAX_LARGE_BODIES + 1)]
        for ask in asks:
            ask.announce()
        error = await asks[-1].error()
        assert (error.status_code, error.reason) == (503, Reason.FAILURE_REASON_QUEUE_FULL)
        # A small one is not kept out by them.
        assert (await stage.ask(link, script={"text": "ok"}).send().answer()).text == "ok"
        for ask in asks[:-1]:
            link.send_body(ask.stream, ask.ciphertext)
            await ask.answer()


async def test_a_body_that_does_not_come_in_time_is_given_up(tmp_path):
    clock = FakeClock()
    async with staged(tmp_path, clock=clock) as stage:
        link = await stage.link()
        ask = stage.ask(link, "x" * 100_000)
        ask.announce()
        link.send_part(ask.stream, 0, ask.ciphertext[: 64 * 1024])
        worker = None
        await stage.until(lambda: bool(stage.agent._current.busy))
        begun, pinged = clock.monotonic(), clock.monotonic()
        worker = stage.agent._current._worker
        while worker.busy:
            await stage.tick()
            if clock.monotonic() - pinged > 5:
                # The lane hears its router meanwhile, or it would be dead before the body is late.
                pinged = clock.monotonic()
                link.trust(link.verdict_id)
        assert (await ask.error()).reason == Reason.FAILURE_REASON_CAPACITY_TIMEOUT
        assert BODY_TIMEOUT_S - 1 <= clock.monotonic() - begun <= BODY_TIMEOUT_S + 1


async def test_a_stream_number_that_is_in_use_is_refused(tmp_path):
    async with staged(tmp_path) as stage:
        link = await stage.link()
        ask = stage.ask(link, script={"stall_after_deltas": 1}).send()
        await ask.delta()
        other = stage.ask(link)
        other.stream = ask.stream
        other.announce()
        assert (await link.error(ask.stream)).status_code == 409
        link.cancel(ask.stream)
        await ask.terminal()


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ({"refuse": "token_budget_exhausted"}, Code.FAILURE_CODE_CAPACITY),
        ({"fail_before_content": True}, Code.FAILURE_CODE_GENERATION_FAILURE),
        ({"fail_after_deltas": 2}, Code.FAILURE_CODE_GENERATION_FAILURE),
        ({"unknown": 1}, Code.FAILURE_CODE_INVALID_REQUEST),
        # An answer that no delta can carry.
        ({"text": "a" * 1_100_000}, Code.FAILURE_CODE_INTERNAL_FAILURE),
    ],
)
async def test_what_the_engine_refuses_or_breaks_on_is_a_typed_error(tmp_path, script, code):
    async with staged(tmp_path) as stage:
        link = await stage.link()
        ask = stage.ask(link, script=script, prompt_bound=100_000).send()
        error = await ask.error()
        assert error.failure_code == code
        assert FrameKind.FRAME_KIND_TERMINAL not in link.kinds(ask.stream)
        await stage.until(lambda: stage.desk.engine.slots()[0].num_running == 0)


async def test_a_broken_engine_call_fails_the_request_and_not_the_agent(tmp_path):
    async with staged(tmp_path) as stage:
        link = await stage.link()
        submit = stage.desk.engine.submit

        async def explode(job, sink):
            raise RuntimeError(job.request.messages[0]["content"])

        stage.desk.engine.submit = explode
        with redirect_stdout(io.StringIO()) as shown:
            error = await stage.ask(link, CANARY).send().error()
        assert error.failure_code == Code.FAILURE_CODE_INTERNAL_FAILURE
        assert CANARY not in shown.getvalue()
        stage.desk.engine.submit = submit
        assert (await stage.ask(link, script={"text": "ok"}).send().answer()).text == "ok"


def _announce_as_sent(ask):
    ask.request.body_bytes = len(ask.ciphertext)
    ask.request.body_sha256 = hashlib.sha256(ask.ciphertext).digest()
