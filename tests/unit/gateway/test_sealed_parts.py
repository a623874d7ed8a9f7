"""Parts of sealed requests: the memory of what came before, and what leaves sealed."""

import base64
from typing import Any

import orjson
import pytest
from darkbloom_edge.boxes import derive_shared_key, new_key_pair
from darkbloom_edge.sealed_request import HEADER_BYTES, AnswerSealer, Frame
from darkbloom_gateway.errors import ApiError, ClientGoneError
from darkbloom_gateway.replays import Replays
from darkbloom_gateway.sealed_answer import SealedSend
from darkbloom_mesh.errors import StoreUnavailableError
from darkbloom_mesh.testing import FakeClock
from nacl.bindings import crypto_box_open_easy_afternm

SHARED = derive_shared_key(new_key_pair().public, new_key_pair())
FRAME = Frame(time_ms=7, context=b"c" * 32)


class FakeMarks:
    def __init__(self) -> None:
        self.kept: set[bytes] = set()
        self.away = False
        self.asked = 0

    async def add(self, mark: bytes, seconds: int) -> bool:
        self.asked += 1
        if self.away:
            raise StoreUnavailableError("away")
        fresh = mark not in self.kept
        self.kept.add(mark)
        return fresh


async def test_a_shared_memory_that_is_away_is_left_alone_for_a_second() -> None:
    marks, clock = FakeMarks(), FakeClock()
    alone: list[int] = []
    marks.away = True
    replays = Replays(marks, clock, window_s=900, on_alone=lambda: alone.append(1))
    assert [await replays.first(bytes([n])) for n in range(5)] == [True] * 5
    assert (marks.asked, len(alone)) == (1, 5)
    marks.away = False
    clock.jump(1.1)
    assert await replays.first(b"new")
    assert (marks.asked, len(alone)) == (2, 5)


async def test_a_mark_passes_once_within_its_window() -> None:
    clock = FakeClock()
    replays = Replays(FakeMarks(), clock, window_s=900)
    assert await replays.first(b"a")
    assert await replays.first(b"b")
    assert not await replays.first(b"a")


async def test_a_mark_that_another_gateway_has_seen_does_not_pass() -> None:
    marks = FakeMarks()
    one, two = (Replays(marks, FakeClock(), window_s=900) for _ in range(2))
    assert await one.first(b"a")
    assert not await two.first(b"a")


async def test_without_the_shared_memory_a_full_worker_refuses_what_is_new() -> None:
    marks, clock = FakeMarks(), FakeClock()
    marks.away = True
    replays = Replays(marks, clock, window_s=900, max_kept=2)
    assert await replays.first(b"a")
    assert await replays.first(b"b")
    with pytest.raises(ApiError) as raised:
        await replays.first(b"c")
    assert raised.value.http_status == 503
    assert not await replays.first(b"a")
    clock.jump(901)
    assert await replays.first(b"c")


async def test_with_the_shared_memory_the_own_one_only_forgets() -> None:
    replays = Replays(FakeMarks(), FakeClock(), window_s=900, max_kept=2)
    assert [await replays.first(bytes([n])) for n in range(9)] == [True] * 9
    assert [await replays.first(bytes([n])) for n in range(9)] == [False] * 9


class Wire:
    """What left."""

    def __init__(self) -> None:
        self.messages: list[Any] = []

    async def __call__(self, message: Any) -> None:
        self.messages.append(dict(message))

    @property
    def body(self) -> bytes:
        return b"".join(one["body"] for one in self.messages if "body" in one)


def sealing(wire: Wire, *, framed: bool = True, spent: bool = False) -> SealedSend:
    sealer = AnswerSealer(SHARED, FRAME if framed else None, b"p" * 16)
    if spent:
        # The one thing that makes sealing fail: everything has been said.
        sealer.seal(b"", status=200, final=True)
    return SealedSend(wire, sealer, kid="k", media_type=b"application/x", path="")


def start(kind: bytes) -> dict[str, Any]:
    headers = [(b"content-type", kind), (b"content-length", b"5"), (b"x-other", b"1")]
    return {"type": "http.response.start", "status": 200, "headers": headers}


def part(body: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


def opened(text: bytes) -> bytes:
    data = base64.b64decode(text)
    return bytes(crypto_box_open_easy_afternm(data[24:], data[:24], SHARED))


def events_of(wire: Wire) -> list[bytes]:
    events = [event for event in wire.body.split(b"\n\n") if event.startswith(b"data: ")]
    return [opened(event.removeprefix(b"data: ")) for event in events]


async def test_events_are_sealed_when_complete_however_they_are_cut() -> None:
    wire = Wire()
    send = sealing(wire, framed=False)
    await send(start(b"text/event-stream; charset=utf-8"))
    for byte in b"event: a\ndata: 1\n\ndata: 2\n\ndata: unended":
        await send(part(bytes([byte])))
    assert events_of(wire) == [b"event: a\ndata: 1", b"data: 2"]
    await send(part(b"", more=False))
    assert events_of(wire)[2:] == [b"data: unended"]
    headers = dict(wire.messages[0]["headers"])
    assert headers[b"content-type"] == b"text/event-stream; charset=utf-8"
    assert b"content-length" not in headers
    assert headers[b"x-other"] == b"1"


async def test_comments_keep_the_line_alive_in_clear_and_take_no_place() -> None:
    wire = Wire()
    send = sealing(wire)
    await send(start(b"text/event-stream"))
    await send(part(b": keep-alive\n\n"))
    assert wire.body == b": keep-alive\n\n"
    await send(part(b"data: 1\n\n", more=False))
    (event,) = events_of(wire)
    assert event[2] == 1
    assert int.from_bytes(event[8:16], "big") == 0


async def test_an_end_without_an_event_is_still_authentic() -> None:
    wire = Wire()
    send = sealing(wire)
    await send(start(b"text/event-stream"))
    await send(part(b"data: 1\n\n"))
    await send(part(b"", more=False))
    first, last = events_of(wire)
    assert (first[2], last[2]) == (0, 1)
    assert last[HEADER_BYTES:] == b""


async def test_an_event_that_cannot_be_sealed_ends_the_stream_with_an_error() -> None:
    wire = Wire()
    send = sealing(wire, spent=True)
    await send(start(b"text/event-stream"))
    with pytest.raises(ClientGoneError):
        await send(part(b"data: secret\n\n"))
    assert orjson.loads(wire.body.removeprefix(b"data: "))["error"]["type"] == "encryption_failed"
    assert wire.messages[-1]["more_body"] is False
    assert b"secret" not in wire.body


async def test_a_body_that_cannot_be_sealed_is_an_error_instead() -> None:
    wire = Wire()
    send = sealing(wire, spent=True)
    await send(start(b"application/json"))
    await send(part(b'{"secret":', more=True))
    await send(part(b"1}", more=False))
    assert wire.messages[0]["status"] == 500
    assert orjson.loads(wire.body)["error"]["type"] == "encryption_failed"
    assert b"secret" not in wire.body


async def test_a_whole_body_is_one_final_box_with_its_status() -> None:
    wire = Wire()
    send = sealing(wire)
    await send({**start(b"application/json"), "status": 402})
    assert wire.messages == []
    await send(part(b'{"a":'))
    await send(part(b"1}", more=False))
    content = orjson.loads(wire.body)
    plain = opened(content["ciphertext"].encode())
    assert plain[:6] == bytes((1, 2, 1, 0, 402 >> 8, 402 & 255))
    assert plain[HEADER_BYTES:] == b'{"a":1}'
    headers = wire.messages[0]["headers"]
    assert headers.count((b"content-type", b"application/x")) == 1
    assert [value for name, value in headers if name == b"content-length"] == [
        b"%d" % len(wire.body)
    ]
