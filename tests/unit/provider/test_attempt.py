"""One attempt as a state machine: credit, coalescing, the one end, and what the terminal says."""

import hashlib

import pytest
from darkbloom.common.v1.frame_pb2 import FrameKind
from darkbloom.router.v1.provider_link_pb2 import FailureCode, InferenceRequest, TerminalCause
from darkbloom_edge.delta import Delta, ToolCallPart, decode
from darkbloom_edge.envelope import (
    EdgeSession,
    ProviderSession,
    RequestHeader,
    new_edge_nonce,
    new_key_pair,
)
from darkbloom_edge.ids import new_id
from darkbloom_edge.replay import SenderKeyMemory
from darkbloom_edge.request import ChatRequest, canonical_bytes
from darkbloom_edge.signatures import P256Signer, to_base64
from darkbloom_edge.terminal import verify_terminal
from darkbloom_edge.usage import Usage
from darkbloom_provider.attempt import PENDING_TOKENS, WHOLE_TOKENS, Attempt, Ending, Hosted
from darkbloom_provider.engine.errors import ErrorReason, capacity
from darkbloom_provider.engine.interface import Outcome, OutcomeKind

KINDS = FrameKind
STREAM = (1 << 63) | 7


class Engine:
    """Remembers what it was told."""

    def __init__(self):
        self.said = []

    def cancel(self, job_id):
        self.said.append("cancel")

    def pause(self, job_id):
        self.said.append("pause")

    def resume(self, job_id):
        self.said.append("resume")


class Outlet:
    """Keeps every frame in order."""

    def __init__(self):
        self.frames = []

    def send_control(self, kind, stream, message):
        self.frames.append((kind, message))

    def send_chunk(self, kind, stream, sequence, payload, tokens):
        self.frames.append((kind, (sequence, payload, tokens)))
        return True

    def send_ordered(self, kind, stream, message):
        self.frames.append((kind, message))
        return True

    def kinds(self):
        return [kind for kind, _ in self.frames]


class Bench:
    """An attempt with both ends of its envelope."""

    def __init__(self, credit=32, *, whole=False, end_to_end=False):
        request_id, attempt_id = new_id("req"), new_id("att")
        self.verdict_id = new_id("ver")
        key_pair = new_key_pair()
        self.edge = EdgeSession.create(
            provider_key=key_pair.public, request_id=request_id, attempt_id=attempt_id
        )
        self.nonce = new_edge_nonce()
        header = RequestHeader(
            not_after_ms=1_000_000,
            prompt_bound=100,
            output_bound=100,
            receipt_key=bytes(32),
            verdict_id=self.verdict_id,
            sealed_to=1,
            edge_nonce=self.nonce,
            whole=whole,
            end_to_end=end_to_end,
        )
        body = canonical_bytes(
            ChatRequest(model="dev/x", messages=[{"role": "user", "content": "hi"}], max_tokens=9)
        )
        opened = ProviderSession.open_request(
            key_pair=key_pair,
            sender_key=self.edge.sender_key,
            request_id=request_id,
            attempt_id=attempt_id,
            payload=self.edge.seal_request(header, body),
            now_ms=999_000,
            memory=SenderKeyMemory(),
        )
        self.signer = P256Signer.generate()
        self.engine, self.outlet, self.endings = Engine(), Outlet(), []
        self.attempt = Attempt(
            request=InferenceRequest(request_id=request_id, attempt_id=attempt_id, build="dev/x"),
            stream=STREAM,
            opened=opened,
            hosted=Hosted(build="dev/x", weight_hash=hashlib.sha256(b"w").hexdigest()),
            credit=credit,
            encryption_key=key_pair.public,
            signer=self.signer,
            engine=self.engine,
            outlet=self.outlet,
            listener=self,
        )

    def attempt_ended(self, attempt, ending, terminal):
        self.endings.append((ending, terminal))
        if terminal is not None:
            self.attempt.send_terminal(terminal)

    def opened(self):
        deltas = []
        for kind, what in self.outlet.frames:
            if isinstance(what, tuple):
                data, final = self.edge.open_chunk(what[1])
                assert final == (kind == KINDS.FRAME_KIND_CHUNK_FINAL)
                deltas.append(decode(data))
        return deltas

    def terminal(self):
        [(_, message)] = [f for f in self.outlet.frames if f[0] == KINDS.FRAME_KIND_TERMINAL]
        signed = message.terminal
        return verify_terminal(signed.document, signed.signature, self.signer.public)


def delta(text, count):
    return Delta(text=text, prompt_tokens=5, completion_tokens=count)


def completed(count):
    return Outcome(
        kind=OutcomeKind.COMPLETED, usage=Usage(5, count), finish_reason="stop", stop_sequence=None
    )


def test_an_answer_is_chunks_a_final_chunk_and_a_signed_terminal():
    bench = Bench()
    bench.attempt.on_delta(delta("Hel", 1))
    bench.attempt.on_delta(delta("lo", 2))
    bench.attempt.on_end(completed(2))

    assert bench.outlet.kinds() == [
        KINDS.FRAME_KIND_CHUNK,
        KINDS.FRAME_KIND_CHUNK,
        KINDS.FRAME_KIND_CHUNK_FINAL,
        KINDS.FRAME_KIND_TERMINAL,
    ]
    assert "".join(d.text for d in bench.opened()) == "Hello"
    terminal = bench.terminal()
    assert (terminal.prompt_tokens, terminal.completion_tokens, terminal.chunks) == (5, 2, 3)
    assert terminal.outcome == "completed"
    assert terminal.verdict_id == bench.verdict_id
    assert [e for e, _ in bench.endings] == [Ending.COMPLETED]


def test_without_credit_text_is_merged_and_goes_out_as_one_chunk():
    bench = Bench(credit=1)
    for count, text in enumerate("abcd", 1):
        bench.attempt.on_delta(delta(text, count))
    assert len(bench.outlet.frames) == 1

    bench.attempt.credit(2)
    assert [d.text for d in bench.opened()] == ["a", "bcd"]


def test_a_row_without_credit_is_paused_and_goes_on_with_credit():
    bench = Bench(credit=0)
    for count in range(1, PENDING_TOKENS + 2):
        bench.attempt.on_delta(delta("x", count))
    assert bench.engine.said == ["pause"]

    bench.attempt.credit(1)
    assert bench.engine.said == ["pause", "resume"]


def test_the_final_chunk_waits_for_credit_too():
    bench = Bench(credit=0)
    bench.attempt.on_delta(delta("x", 1))
    bench.attempt.on_end(completed(1))
    assert bench.outlet.frames == []

    bench.attempt.credit(1)
    assert bench.outlet.kinds() == [KINDS.FRAME_KIND_CHUNK_FINAL, KINDS.FRAME_KIND_TERMINAL]


def test_old_and_repeated_credit_changes_nothing():
    bench = Bench(credit=2)
    bench.attempt.credit(1)
    bench.attempt.credit(2)
    for count in range(1, 4):
        bench.attempt.on_delta(delta("x", count))
    assert len(bench.outlet.frames) == 2


def test_a_cancelled_attempt_has_a_terminal_with_what_was_sent():
    bench = Bench(credit=1)
    bench.attempt.on_delta(delta("a", 1))
    bench.attempt.on_delta(delta("b", 2))
    bench.attempt.cancel()
    assert bench.engine.said == ["cancel"]

    bench.attempt.on_end(
        Outcome(kind=OutcomeKind.CANCELLED, usage=Usage(5, 2), finish_reason="cancelled")
    )
    terminal = bench.terminal()
    assert terminal.outcome == "cancelled"
    assert (terminal.completion_tokens, terminal.chunks) == (1, 1)


def test_a_failed_attempt_says_so_in_closed_words_and_has_no_terminal():
    bench = Bench()
    error = capacity("no room", ErrorReason.TOKEN_BUDGET_EXHAUSTED)
    bench.attempt.on_end(
        Outcome(kind=OutcomeKind.ERROR, usage=Usage(5, 0), finish_reason="cancelled", error=error)
    )
    [(kind, message)] = bench.outlet.frames
    assert kind == KINDS.FRAME_KIND_ERROR
    assert message.failure_code == FailureCode.FAILURE_CODE_CAPACITY
    assert message.status_code == 503


def test_nothing_follows_the_end():
    bench = Bench()
    bench.attempt.on_delta(delta("a", 1))
    bench.attempt.on_end(completed(1))
    before = len(bench.outlet.frames)

    bench.attempt.on_delta(delta("b", 2))
    bench.attempt.on_end(completed(2))
    bench.attempt.cancel()
    bench.attempt.credit(99)
    bench.attempt.lose()

    assert len(bench.outlet.frames) == before
    assert len(bench.endings) == 1


@pytest.mark.parametrize("frames", [0, 3])
def test_a_lost_lane_stops_the_engine_and_keeps_a_terminal(frames):
    bench = Bench()
    for count in range(1, frames + 1):
        bench.attempt.on_delta(delta("x", count))
    bench.attempt.lose()

    assert bench.engine.said == ["cancel"]
    assert bench.terminal().completion_tokens == frames
    assert bench.endings[0][0] is Ending.CANCELLED


def test_no_repr_shows_content():
    bench = Bench()
    bench.attempt.on_delta(delta("very private", 1))
    assert "private" not in repr(bench.attempt)


@pytest.mark.parametrize(
    "bad",
    [
        Delta(text="\ud800", prompt_tokens=5, completion_tokens=1),
        Delta(text="x" * 1_100_000, prompt_tokens=5, completion_tokens=1),
        Delta(tool_calls=(ToolCallPart(3, "id", "f"),), prompt_tokens=5, completion_tokens=1),
    ],
    ids=["no unicode", "too large", "calls with gaps"],
)
def test_an_answer_that_cannot_be_carried_ends_the_attempt_and_the_row(bad):
    bench = Bench()
    bench.attempt.on_delta(bad)
    assert bench.outlet.kinds() == [KINDS.FRAME_KIND_ERROR]
    assert bench.engine.said == ["cancel"]
    assert bench.endings == [(Ending.FAILED, None)]


def test_a_stream_whose_queue_is_full_ends_with_backpressure():
    bench = Bench()
    bench.outlet.send_chunk = lambda *_: False
    bench.attempt.on_delta(delta("a", 1))
    [(_, message)] = bench.outlet.frames
    assert message.terminal_cause == TerminalCause.TERMINAL_CAUSE_BACKPRESSURE_TIMEOUT
    assert bench.engine.said == ["cancel"]


def test_reasoning_and_tool_calls_count_as_waiting_text_too():
    bench = Bench(credit=0)
    bench.attempt.on_delta(Delta(reasoning="r" * 5000, prompt_tokens=5, completion_tokens=1))
    assert bench.engine.said == ["pause"]


def test_an_answer_that_is_taken_whole_is_sealed_in_few_boxes():
    bench = Bench(whole=True)
    for count in range(1, 2 * WHOLE_TOKENS + 3):
        bench.attempt.on_delta(delta("x", count))
    bench.attempt.on_end(completed(2 * WHOLE_TOKENS + 2))

    # The first content at once, because it commits; then by the bound; the rest with the end.
    assert [len(d.text) for d in bench.opened()] == [1, WHOLE_TOKENS, WHOLE_TOKENS, 1]
    assert bench.terminal().chunks == 4
    assert bench.engine.said == []


def test_the_clients_nonce_comes_back_in_the_first_delta_and_in_the_terminal():
    bench = Bench(end_to_end=True)
    bench.attempt.on_delta(Delta(text="a", prompt_tokens=2, completion_tokens=1))
    bench.attempt.on_delta(Delta(text="b", prompt_tokens=2, completion_tokens=2))
    bench.attempt.on_end(completed(2))
    nonces = [delta.edge_nonce for delta in bench.opened()]
    assert nonces[0] == bench.nonce
    assert not any(nonces[1:])
    assert bench.terminal().edge_nonce == to_base64(bench.nonce)


def test_in_edge_mode_nobody_hears_of_the_nonce():
    bench = Bench()
    bench.attempt.on_delta(Delta(text="a", prompt_tokens=2, completion_tokens=1))
    bench.attempt.on_end(completed(1))
    assert not any(delta.edge_nonce for delta in bench.opened())
    assert bench.terminal().edge_nonce is None
