"""Requests over the wire: sealed answers, credit, cancels, and no trace of content."""

import asyncio
import io
import json
import logging
import re
from contextlib import redirect_stderr

import structlog
from darkbloom.common.v1.frame_pb2 import FrameKind
from darkbloom.router.v1.provider_link_pb2 import FailureCode as Code
from darkbloom_edge.signatures import from_base64
from darkbloom_edge.transcript import keyed_digest
from darkbloom_mesh import logs
from darkbloom_provider.attempt import PENDING_TOKENS
from darkbloom_provider.engine.interface import PAUSE_SLACK_DELTAS
from darkbloom_provider.engine.scripted import ScriptedEngine

from tests.component.provider.harness import BUILD, WEIGHT_HASH, staged
from tests.fakes.provider_router import FakeRouter

CANARY = "canary-7f3a91"


async def test_a_sealed_request_gets_a_sealed_answer_and_a_signed_terminal(tmp_path):
    async with staged(tmp_path) as stage:
        link = await stage.link()
        ask = stage.ask(link, script={"text": "The quick brown fox", "delta_tokens": 2}).send()
        await link.take(FrameKind.FRAME_KIND_ACCEPTED, ask.stream)
        answer = await ask.answer()
        assert answer.text == "The quick brown fox"
        assert answer.deltas[-1].finish_reason == "stop"
        terminal = answer.terminal
        assert (terminal.request_id, terminal.attempt_id) == (ask.request_id, ask.attempt_id)
        assert (terminal.build, terminal.weight_hash) == (BUILD, WEIGHT_HASH)
        assert terminal.completion_tokens == answer.deltas[-1].completion_tokens == 4
        assert terminal.chunks == len(answer.deltas)
        assert terminal.verdict_id == link.verdict_id
        assert from_base64(terminal.encryption_key) == link.register_frame.encryption_key
        assert terminal.digests.request == keyed_digest(ask.receipt_key, "request", ask.body)
        assert terminal.digests.content == keyed_digest(
            ask.receipt_key, "content", answer.text.encode()
        )
        kinds = link.kinds(ask.stream)
        assert kinds[0] == FrameKind.FRAME_KIND_ACCEPTED
        assert kinds[-2:] == [FrameKind.FRAME_KIND_CHUNK_FINAL, FrameKind.FRAME_KIND_TERMINAL]


async def test_many_small_requests_at_once_are_all_answered(tmp_path):
    async with staged(tmp_path) as stage:
        link = await stage.link()
        asks = [stage.ask(link, script={"text": f"answer {n}"}) for n in range(40)]
        # All first frames come before any body, as a lane's writer sends them.
        for ask in asks:
            ask.send()
        for n, ask in enumerate(asks):
            assert (await ask.answer()).text == f"answer {n}"


async def test_a_large_request_is_opened_beside_the_loop(tmp_path):
    async with staged(tmp_path) as stage:
        link = await stage.link()
        ask = stage.ask(link, "x " * 400_000, prompt_bound=500_000).send()
        answer = await ask.answer()
        assert answer.terminal.prompt_tokens >= 400_000


async def test_cancel_stops_at_the_next_step_and_the_terminal_covers_what_was_sent(tmp_path):
    async with staged(tmp_path) as stage:
        link = await stage.link()
        ask = stage.ask(link, script={"tokens": 5000, "interval_s": 0.01}).send()
        await ask.delta()
        link.cancel(ask.stream)
        terminal = await ask.terminal()
        assert terminal.outcome == "cancelled"
        chunks = link.kinds(ask.stream).count(FrameKind.FRAME_KIND_CHUNK)
        assert terminal.chunks == terminal.completion_tokens == chunks < 1000
        assert FrameKind.FRAME_KIND_CHUNK_FINAL not in link.kinds(ask.stream)
        assert stage.desk.stats.cancellations_received == 1


async def test_a_cancel_that_overtakes_its_request_ends_it(tmp_path):
    async with staged(tmp_path) as stage:
        link = await stage.link()
        ask = stage.ask(link)
        link.cancel(ask.stream)
        ask.send()
        assert (await ask.error()).failure_code == Code.FAILURE_CODE_CANCELLED


async def test_a_cancel_between_the_body_parts_ends_it(tmp_path):
    async with staged(tmp_path) as stage:
        link = await stage.link()
        ask = stage.ask(link)
        ask.announce()
        link.cancel(ask.stream)
        assert (await ask.error()).failure_code == Code.FAILURE_CODE_CANCELLED
        link.send_body(ask.stream, ask.ciphertext)
        assert (await stage.ask(link, script={"text": "ok"}).send().answer()).text == "ok"


async def test_a_cancel_during_admission_leaves_nothing_running(tmp_path):
    async with staged(tmp_path) as stage:
        link = await stage.link()
        engine, gate, waiting = stage.desk.engine, asyncio.Event(), asyncio.Event()
        submit, told = engine.submit, []

        async def slowly(job, sink):
            waiting.set()
            await gate.wait()
            await submit(job, sink)

        engine.submit, engine.cancel = slowly, _both(told.append, engine.cancel)
        ask = stage.ask(link, script={"tokens": 9, "interval_s": 60}).send()
        await waiting.wait()
        link.cancel(ask.stream)
        await stage.until(lambda: told == [ask.attempt_id])
        gate.set()
        terminal = await ask.terminal()
        assert (terminal.outcome, terminal.chunks) == ("cancelled", 0)
        assert not stage.agent._current.busy


async def test_a_stream_lost_during_admission_leaves_nothing_running(tmp_path):
    async with staged(tmp_path) as stage:
        link = await stage.link()
        engine, gate, waiting = stage.desk.engine, asyncio.Event(), asyncio.Event()
        submit = engine.submit

        async def slowly(job, sink):
            waiting.set()
            await gate.wait()
            await submit(job, sink)

        engine.submit = slowly
        stage.ask(link, script={"tokens": 9, "interval_s": 60}).send()
        await waiting.wait()
        link.close()
        await link.ended.wait()
        gate.set()
        await stage.link()
        await stage.until(lambda: engine.slots()[0].num_running == 0)


async def test_without_credit_the_row_is_paused_and_its_text_comes_in_one_chunk(tmp_path):
    async with staged(tmp_path, router=FakeRouter(credit=2)) as stage:
        link = await stage.link()
        tokens = 4 * (PENDING_TOKENS + PAUSE_SLACK_DELTAS)
        ask = stage.ask(link, script={"tokens": tokens}).send()
        first, second = await ask.delta(), await ask.delta()
        assert (first[0].completion_tokens, second[0].completion_tokens) == (1, 2)
        engine = stage.desk.engine
        await stage.until(
            lambda: (
                engine.slots()[0].active_tokens > PENDING_TOKENS
                and not engine._live[ask.attempt_id].running.is_set()
            )
        )
        # A neighbour with credit is not held up.
        assert (await stage.ask(link, script={"text": "neighbour"}).send().delta())[0].text

        link.credit(ask.stream, 3)
        merged, _ = await ask.delta()
        waited = merged.completion_tokens - 2
        assert PENDING_TOKENS < waited <= PENDING_TOKENS + PAUSE_SLACK_DELTAS + 1
        granted, last = 3, merged
        while last.finish_reason is None:
            granted += 1
            link.credit(ask.stream, granted)
            last, _ = await ask.delta()
        terminal = await ask.terminal()
        assert terminal.completion_tokens == last.completion_tokens == tokens
        assert terminal.chunks == granted < tokens


async def test_the_output_stops_at_its_bound(tmp_path):
    async with staged(tmp_path) as stage:
        link = await stage.link()
        answer = await stage.ask(link, script={"tokens": 50}, output_bound=3).send().answer()
        assert answer.terminal.completion_tokens == 3
        assert answer.terminal.finish_reason == "length"


async def test_more_credit_than_a_lane_can_carry_ends_the_attempt_and_nothing_else(tmp_path):
    async with staged(tmp_path, router=FakeRouter(credit=1_000_000)) as stage:
        link = await stage.link()
        ask = stage.ask(link, script={"tokens": 20_000}, output_bound=20_000).send()
        frame = await link.take(
            {FrameKind.FRAME_KIND_ERROR, FrameKind.FRAME_KIND_TERMINAL}, ask.stream
        )
        assert frame is not None
        assert (await stage.ask(link, script={"text": "ok"}).send().answer()).text == "ok"
        assert len(stage.router.links) == 1


async def test_a_prompt_appears_in_no_log_state_file_repr_or_plaintext_frame(tmp_path):
    shown = io.StringIO()
    logs.configure(room="provider", version="0", level="debug", stream=shown)
    root = logging.getLogger()
    handler = logging.StreamHandler(shown)
    root.addHandler(handler)
    try:
        with redirect_stderr(shown):
            async with staged(tmp_path) as stage:
                link = await stage.link()
                script = {"text": f"{CANARY} answer", "stall_after_deltas": 1}
                ask = stage.ask(link, script=script).send()
                await ask.delta()
                link.cancel(ask.stream)
                await ask.terminal()
                for failing in (
                    {"refuse": "queue_full", "text": CANARY},
                    {"fail_after_deltas": 1, "text": f"{CANARY} {CANARY}"},
                    {CANARY: 1},
                    {"text": CANARY * 90_000},
                ):
                    broken = stage.ask(link, script=failing, prompt_bound=10**7).send()
                    await broken.error()
                bad = stage.ask(link, body=b'{"' + CANARY.encode() + b'":1}').send()
                await bad.error()
                running = stage.ask(link, script=script).send()
                await running.delta()
                link.close()
                await stage.link()
                reprs = [
                    repr(thing)
                    for thing in (
                        stage.desk,
                        stage.agent,
                        vars(stage.agent),
                        [vars(link) for link in stage.agent._links],
                        stage.desk.engine._live,
                    )
                ]
    finally:
        root.removeHandler(handler)
        root.handlers[:] = []
        structlog.reset_defaults()
    files = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    frames = b"".join(frame.payload for one in stage.router.links for frame in one.seen)
    assert re.search(r'"msg":\s*"link_ended"', shown.getvalue())
    assert json.loads(stage.state_file.read_text())["requests_served"] == 0
    for place in (shown.getvalue(), *reprs):
        assert CANARY not in place
    assert CANARY.encode() not in files + frames


def _both(first, second):
    def call(value):
        first(value)
        second(value)

    return call


async def test_the_scope_in_the_box_reaches_the_engine_and_no_log(tmp_path, monkeypatch):
    seen = []
    submit = ScriptedEngine.submit

    async def watched(engine, job, sink):
        seen.append(job)
        await submit(engine, job, sink)

    monkeypatch.setattr(ScriptedEngine, "submit", watched)
    async with staged(tmp_path) as stage:
        link = await stage.link()
        for scope in (b"s" * 32, b""):
            ask = stage.ask(link, script={"tokens": 1}, cache_scope=scope).send()
            await ask.answer()
    assert [job.cache_scope for job in seen] == [b"s" * 32, b""]
    assert "ssss" not in repr(seen[0])
