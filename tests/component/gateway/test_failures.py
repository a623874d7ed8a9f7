import asyncio
import json
from dataclasses import replace

import msgspec
import pytest
from darkbloom.router.v1 import gateway_lane_pb2 as lane_pb
from darkbloom.router.v1 import provider_link_pb2 as link_pb
from darkbloom_gateway.seek import MAX_SEALED
from darkbloom_mesh.clock import SystemClock

from tests.component.gateway.harness import BEARER, Harness, gateway
from tests.component.gateway.neighbours import BUILD
from tests.fakes.router import Script, scripted

CHAT = "/v1/chat/completions"
BODY = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}


def assert_broken(text: str, kind: str = "provider_error") -> None:
    """A broken stream: one error event at the very end, and no success marker."""
    events = [event for event in text.split("\n\n") if event]
    assert "[DONE]" not in text
    assert text.count('"error"') == 1
    assert json.loads(events[-1].removeprefix("data: "))["error"]["type"] == kind


async def test_a_provider_that_fails_before_content_is_invisible(mesh: Harness) -> None:
    mesh.router.scripts = [Script(fails=True), Script(fails=True), scripted("third")]

    response = await mesh.chat()

    assert response.json()["choices"][0]["message"]["content"] == "third"
    assert len(mesh.router.seen.opens) == 1
    assert [header.sealed_to for header in mesh.router.seen.headers] == [1, 2, 3]
    assert len({header.receipt_key for header in mesh.router.seen.headers}) == 3


def first_contents(mesh: Harness) -> float | None:
    """How many answers have begun."""
    name, labels = "darkbloom_ttft_seconds_count", {"model": BUILD}
    return mesh.service.metrics.registry.get_sample_value(name, labels)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_provider_lost_after_content_breaks_the_answer(mesh: Harness, stream: bool) -> None:
    released = asyncio.Event()
    mesh.router.scripts = [scripted("one", "two", "three", breaks_after=2, pause=released)]

    asking = asyncio.ensure_future(mesh.chat(stream=stream))
    await mesh.router.until(lambda: mesh.router.seen.sent_chunks >= 2)
    # Sooner, both frames share a message and the failure is a clean one.
    await mesh.until(lambda: first_contents(mesh))
    released.set()
    response = await asking

    if stream:
        assert response.status_code == 200
        assert_broken(response.text)
        assert "one" in response.text
    else:
        assert response.status_code == 502
        assert response.json()["error"]["type"] == "provider_error"
    assert not mesh.billing.releases


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "changes",
    [
        {"breaks_after": 2},
        {"tamper": 2},
        {"no_terminal": True},
        {"terminal": lambda said: msgspec.structs.replace(said, chunks=9)},
        {"terminal": lambda said: msgspec.structs.replace(said, outcome="cancelled")},
    ],
)
async def test_what_was_opened_of_a_broken_answer_is_recorded_once(
    mesh: Harness, changes: dict[str, object], stream: bool
) -> None:
    released = asyncio.Event()
    mesh.router.scripts = [scripted("one", "two", "three", pause=released, **changes)]

    asking = asyncio.ensure_future(mesh.chat(stream=stream))
    await mesh.router.until(lambda: mesh.router.seen.sent_chunks >= 2)
    await mesh.until(lambda: first_contents(mesh))
    released.set()
    await asking

    await mesh.billing.until(lambda: mesh.billing.records)
    (record,) = mesh.billing.records
    counts = record.opened
    whole = "breaks_after" not in changes and "tamper" not in changes
    assert (counts.prompt_tokens, counts.completion_tokens) == (7, 3 if whole else 2)
    assert record.request_id == mesh.billing.holds[-1]
    assert record.verdict_id == mesh.router.seen.headers[0].verdict_id
    signed = record.outcome == "cancelled"
    assert signed or (record.outcome, record.terminal_sha256) == ("broken", None)


async def test_nothing_is_recorded_of_what_was_never_opened(mesh: Harness) -> None:
    mesh.router.scripts = [scripted("one", tamper=0)]
    assert (await mesh.chat()).status_code == 502

    assert (await mesh.chat()).status_code == 200
    await mesh.billing.until(lambda: mesh.billing.records)
    assert [record.outcome for record in mesh.billing.records] == ["completed"]


async def test_a_preamble_with_content_is_a_violation(mesh: Harness) -> None:
    mesh.router.scripts = [scripted("two", preamble_text="one")]

    assert (await mesh.chat()).status_code == 502
    await mesh.router.until(lambda: mesh.router.seen.violations)
    assert mesh.router.seen.violations == [lane_pb.VIOLATION_KIND_DELTA]


async def test_a_router_that_offers_without_end_is_not_sealed_to_without_end(
    mesh: Harness,
) -> None:
    mesh.router.default = Script(fails=True)

    assert (await mesh.chat()).status_code == 502
    assert len(mesh.router.seen.requests) == MAX_SEALED


async def test_a_tampered_first_chunk_is_reported_and_fails_with_502(mesh: Harness) -> None:
    mesh.router.scripts = [scripted("one", "two", tamper=0)]

    response = await mesh.chat(stream=True)

    assert response.status_code == 502
    assert response.json()["error"]["type"] == "provider_error"
    await mesh.router.until(lambda: mesh.router.seen.violations)
    assert mesh.router.seen.violations == [lane_pb.VIOLATION_KIND_UNOPENABLE]


async def test_a_tampered_later_chunk_ends_the_stream_with_one_error(mesh: Harness) -> None:
    gate = asyncio.Event()
    mesh.router.scripts = [scripted("one", "two", "three", tamper=1, pause=gate)]

    async with mesh.http.stream("POST", CHAT, json={**BODY, "stream": True}, headers=BEARER) as got:
        parts = got.aiter_text()
        text = await anext(parts)
        gate.set()
        text += "".join([part async for part in parts])

    assert_broken(text)
    await mesh.router.until(lambda: mesh.router.seen.violations)
    assert mesh.router.seen.violations == [lane_pb.VIOLATION_KIND_UNOPENABLE]


async def test_an_inflated_count_is_a_violation(mesh: Harness) -> None:
    mesh.router.scripts = [scripted("one", inflate=0)]

    assert (await mesh.chat()).status_code == 502
    await mesh.router.until(lambda: mesh.router.seen.violations)
    assert mesh.router.seen.violations == [lane_pb.VIOLATION_KIND_COUNTS]


async def test_more_tokens_than_bytes_can_hold_are_a_violation(mesh: Harness) -> None:
    from darkbloom_edge.delta import Delta

    lie = Delta(text="x", prompt_tokens=7, completion_tokens=258)
    mesh.router.scripts = [scripted(deltas=[lie, replace_finish(lie)])]

    assert (await mesh.chat()).status_code == 502
    await mesh.router.until(lambda: mesh.router.seen.violations)
    assert mesh.router.seen.violations == [lane_pb.VIOLATION_KIND_COUNTS]


def replace_finish(delta):
    return msgspec.structs.replace(delta, text="", finish_reason="stop")


@pytest.mark.parametrize(
    "change",
    [
        {"build": "dev/other"},
        {"weight_hash": "0" * 64},
        {"chunks": 1},
        {"sealed_to": 2},
        {"verdict_id": "ver_" + "0" * 32},
        {"request_id": "req_" + "0" * 32},
        {"finish_reason": "length"},
        {"completion_tokens": 1},
        {"prompt_tokens": 6},
    ],
)
async def test_a_terminal_that_says_something_else_than_came_is_a_violation(
    mesh: Harness, change: dict[str, object]
) -> None:
    def lie(terminal):
        return msgspec.structs.replace(terminal, **change)

    mesh.router.default = scripted("one", "two", terminal=lie)

    whole, stream = await mesh.chat(), await mesh.chat(stream=True)

    assert whole.status_code == 502
    assert_broken(stream.text)
    await mesh.router.until(lambda: len(mesh.router.seen.violations) == 2)
    assert len(mesh.router.seen.violations) == 2
    assert not mesh.billing.receipts


async def test_a_terminal_with_other_digests_is_a_violation(mesh: Harness) -> None:
    def lie(terminal):
        digests = msgspec.structs.replace(terminal.digests, content="0" * 64)
        return msgspec.structs.replace(terminal, digests=digests)

    mesh.router.scripts = [scripted("one", terminal=lie)]

    assert (await mesh.chat()).status_code == 502
    await mesh.router.until(lambda: mesh.router.seen.violations)
    assert mesh.router.seen.violations == [lane_pb.VIOLATION_KIND_TERMINAL]


async def test_without_a_terminal_there_is_no_success(valkey_url: str) -> None:
    async with gateway(valkey_url, terminal_s=0.1) as mesh:
        mesh.router.default = scripted("one", no_terminal=True)

        whole, stream = await mesh.chat(), await mesh.chat(stream=True)

        assert whole.status_code == 502
        assert_broken(stream.text)
        await mesh.router.until(lambda: len(mesh.router.seen.cancels) == 2)


async def test_silence_after_content_is_a_timeout(valkey_url: str) -> None:
    async with gateway(valkey_url, silence_s=0.1) as mesh:
        mesh.router.default = scripted("one", "two", pause=asyncio.Event())

        whole, stream = await mesh.chat(), await mesh.chat(stream=True)

        assert whole.status_code == 504
        assert whole.json()["error"]["type"] == "timeout"
        assert_broken(stream.text, "timeout")
        await mesh.router.until(lambda: len(mesh.router.seen.cancels) == 2)
        assert mesh.router.seen.cancels[0].reason == link_pb.CANCEL_REASON_TIMEOUT


async def test_no_content_in_time_is_429(valkey_url: str, monkeypatch) -> None:
    monkeypatch.setattr("darkbloom_gateway.seek.ROUTER_GRACE_S", 0.0)
    async with gateway(valkey_url, first_content_s=0.2) as mesh:
        mesh.router.scripts = [Script(silent=True)]

        response = await mesh.chat()

        assert response.status_code == 429
        assert response.headers["retry-after"]
        await mesh.router.until(lambda: mesh.router.seen.cancels)


async def test_a_quiet_stream_gets_comments_after_commit_only(valkey_url: str) -> None:
    async with gateway(valkey_url, keepalive_s=0.1) as mesh:
        gate = asyncio.Event()
        mesh.router.scripts = [scripted("one", "two", pause=gate)]
        request = mesh.http.stream("POST", CHAT, json={**BODY, "stream": True}, headers=BEARER)
        async with request as got:
            text = ""
            async for part in got.aiter_text():
                text += part
                if ": keep-alive\n\n" in text:
                    gate.set()

    assert text.startswith("data: ")
    assert text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("stream", [True, False])
async def test_a_consumer_that_hangs_up_cancels_the_provider(mesh: Harness, stream: bool) -> None:
    mesh.router.scripts = [scripted("one", "two", pause=asyncio.Event())]
    reader, writer = await asyncio.open_connection(*mesh.url.removeprefix("http://").split(":"))
    body = json.dumps({**BODY, "stream": stream}).encode()
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: "
        + BEARER["authorization"].encode()
        + b"\r\ncontent-length: %d\r\n\r\n" % len(body)
        + body
    )
    await mesh.router.until(lambda: mesh.router.seen.sent_chunks >= 2)
    if stream:
        await reader.readuntil(b"one")

    writer.close()

    await mesh.router.until(lambda: mesh.router.seen.cancels)
    cancel = mesh.router.seen.cancels[0]
    assert cancel.reason == link_pb.CANCEL_REASON_CLIENT_GONE
    assert cancel.opened.completion_tokens == 1 or not stream
    await mesh.until(lambda: mesh.worker.gate.inflight == 0)
    assert not mesh.billing.releases


async def test_a_consumer_that_leaves_before_content_cancels_too(mesh: Harness) -> None:
    mesh.router.scripts = [Script(silent=True)]
    asking = asyncio.ensure_future(mesh.chat())
    await mesh.router.until(lambda: mesh.router.seen.requests)

    asking.cancel()

    await mesh.router.until(lambda: mesh.router.seen.cancels)
    await mesh.until(lambda: mesh.worker.gate.inflight == 0)
    assert not mesh.billing.releases


async def test_a_reader_that_stalls_holds_back_its_own_provider_only(mesh: Harness) -> None:
    mesh.router.scripts = [scripted(*("x" * 60_000 for _ in range(200)))]
    request = mesh.http.stream("POST", CHAT, json={**BODY, "stream": True}, headers=BEARER)
    async with request as got:
        parts = got.aiter_bytes()
        await anext(parts)
        clock, before = SystemClock(), -1
        while mesh.router.seen.sent_chunks != before:
            before = mesh.router.seen.sent_chunks
            await clock.sleep(0.2)
        assert mesh.router.seen.sent_chunks < 180

        neighbour = await mesh.chat()
        assert neighbour.status_code == 200

        rest = b"".join([part async for part in parts])
    assert rest.endswith(b"data: [DONE]\n\n")


async def test_a_reader_that_never_reads_again_counts_as_gone(valkey_url: str) -> None:
    async with gateway(valkey_url, send_stall_s=0.2) as mesh:
        mesh.router.scripts = [scripted(*("x" * 60_000 for _ in range(200)))]
        request = mesh.http.stream("POST", CHAT, json={**BODY, "stream": True}, headers=BEARER)
        async with request as got:
            await anext(got.aiter_bytes())
            await mesh.router.until(lambda: mesh.router.seen.cancels)
            await mesh.until(lambda: mesh.worker.gate.inflight == 0)


async def test_a_router_that_is_lost_before_content_is_invisible(mesh: Harness) -> None:
    mesh.router.scripts = [Script(cut_lane=True), scripted("after")]

    response = await mesh.chat()

    assert response.json()["choices"][0]["message"]["content"] == "after"
    first, second = mesh.router.seen.opens
    assert first.request_id == second.request_id
    assert [header.sealed_to for header in mesh.router.seen.headers] == [1, 2]
    assert len(mesh.billing.holds) == 1
    assert not mesh.billing.releases


async def test_a_router_lost_after_content_breaks_the_stream(mesh: Harness) -> None:
    gate = asyncio.Event()
    mesh.router.scripts = [scripted("one", "two", pause=gate)]
    request = mesh.http.stream("POST", CHAT, json={**BODY, "stream": True}, headers=BEARER)
    async with request as got:
        parts = got.aiter_text()
        text = await anext(parts)
        mesh.router.lanes[-1].close("gone")
        text += "".join([part async for part in parts])

    assert_broken(text)


async def test_without_a_router_a_request_waits_and_then_gets_503(valkey_url: str) -> None:
    async with gateway(valkey_url, lane_wait_s=0.2) as mesh:
        mesh.worker.links.choose().refuse_new()

        response = await mesh.chat()

        assert response.status_code == 503
        assert response.json()["error"]["type"] == "service_unavailable"
        assert response.headers["retry-after"]
        assert not mesh.billing.holds


async def test_draining_answers_429_and_lets_answers_end(valkey_url: str) -> None:
    async with gateway(valkey_url, drain_linger_s=0.5) as mesh:
        gate = asyncio.Event()
        mesh.router.scripts = [scripted("one", "two", pause=gate)]
        asking = asyncio.ensure_future(mesh.chat(stream=True))
        await mesh.router.until(lambda: mesh.router.seen.sent_chunks >= 2)

        mesh.service.stop()
        await mesh.until(lambda: mesh.worker.gate.draining)
        refused, ready = await mesh.chat(), await mesh.http.get("/readyz")

        assert refused.status_code == 429
        assert refused.json()["error"]["type"] == "rate_limit_exceeded"
        assert refused.headers["retry-after"] == "3"
        assert ready.status_code == 503
        assert ready.json()["inflight"] == 1
        gate.set()
        assert (await asking).text.endswith("data: [DONE]\n\n")


async def test_without_valkey_limits_are_kept_by_the_process(valkey_url: str) -> None:
    from darkbloom_mesh.config import Secret

    async with gateway(
        valkey_url, redis_url=Secret("redis://127.0.0.1:1"), request_rate=0.01, request_burst=1
    ) as mesh:
        responses = [await mesh.chat() for _ in range(2)]

    assert [response.status_code for response in responses] == [200, 429]


async def test_a_bound_on_requests_in_flight_is_kept(valkey_url: str) -> None:
    async with gateway(valkey_url, max_inflight=1) as mesh:
        gate = asyncio.Event()
        mesh.router.scripts = [scripted("one", "two", pause=gate)]
        asking = asyncio.ensure_future(mesh.chat())
        await mesh.router.until(lambda: mesh.router.seen.sent_chunks >= 2)

        assert (await mesh.chat()).status_code == 503
        gate.set()
        assert (await asking).status_code == 200


async def test_frames_of_nobody_change_nothing(mesh: Harness) -> None:
    await mesh.chat()
    lane = mesh.router.lanes[-1]
    for stream in (1 << 40 | 77, 1 << 63 | 99, 5):
        lane.send_chunk(26, stream, 0, b"noise", 1)
        lane.send_control(103, stream, b"\xff\xff")

    assert (await mesh.chat()).status_code == 200


async def test_an_unreadable_offer_is_an_internal_error(mesh: Harness) -> None:
    asking = asyncio.ensure_future(mesh.chat(model="tiny"))
    mesh.router.default = Script(silent=True)
    await mesh.router.until(lambda: mesh.router.seen.opens)
    lane = mesh.router.lanes[-1]
    lane.send_control(103, 1 << 40 | 1, b"\xff\xff\xff")

    assert (await asking).status_code in (200, 500)


def test_scripts_are_values() -> None:
    assert replace(Script(), texts=("a",)).texts == ("a",)


@pytest.mark.parametrize("stalls_at", ["http.response.start", "http.response.body"])
@pytest.mark.parametrize("model", ["tiny", "absent"])
async def test_a_consumer_that_takes_nothing_holds_no_place_for_ever(
    valkey_url: str, stalls_at: str, model: str
) -> None:
    async with gateway(valkey_url, send_stall_s=0.2) as mesh:
        mesh.router.scripts = [scripted("one", "two", pause=asyncio.Event())]
        body = json.dumps({**BODY, "model": model, "stream": True}).encode()
        parts = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, object]:
            if parts:
                return parts.pop()
            return await asyncio.Event().wait()  # type: ignore[return-value]

        async def send(message: dict[str, object]) -> None:
            if message["type"] == stalls_at:
                await asyncio.Event().wait()

        headers = [(b"authorization", BEARER["authorization"].encode())]
        scope = {"type": "http", "method": "POST", "path": CHAT, "headers": headers}
        scope["query_string"] = b""
        async with asyncio.timeout(30):
            await mesh.worker.application()(scope, receive, send)

        assert mesh.worker.gate.inflight == 0
        if model == "tiny":
            await mesh.router.until(lambda: mesh.router.seen.cancels)
