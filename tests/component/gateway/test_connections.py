"""One connection against a hostile other end, by real sockets: sizes, counts, slowness."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from darkbloom_gateway.arrivals import Lines
from darkbloom_gateway.config import GatewayConfig
from darkbloom_gateway.connection import MAX_BODY_BYTES, MAX_HEADER_BYTES, MAX_PIPELINED
from darkbloom_gateway.listener import bind, make_listener
from darkbloom_gateway.wire import App, Receive, Scope, Send, send_json
from darkbloom_mesh.clock import SystemClock
from darkbloom_mesh.config import Secret

from tests.component.gateway.harness import BEARER, Harness, gateway
from tests.component.gateway.neighbours import API_KEY
from tests.fakes.router import scripted

pytestmark = pytest.mark.asyncio(loop_scope="session")

HEALTH = b"GET /health HTTP/1.1\r\nhost: x\r\n"
KEY = b"authorization: Bearer " + API_KEY.encode() + b"\r\n"
CHAT = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
STREAM = json.dumps(
    {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "stream": True}
).encode()
PATIENCE_S = 30


class Line:
    """A socket that says exactly what it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def say(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Read one response that says its length."""
        async with asyncio.timeout(PATIENCE_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().splitlines()
            pairs = [line.partition(": ") for line in head[1:] if line]
            headers = {name: value for name, _, value in pairs}
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return int(head[0].split()[1]), headers, body

    async def ended(self) -> bytes:
        """Read until the other end hangs up; what came before is returned."""
        rest = b""
        async with asyncio.timeout(PATIENCE_S):
            with contextlib.suppress(ConnectionError):
                while part := await self.reader.read(65_536):
                    rest += part
        return rest


@asynccontextmanager
async def line(to: Harness | tuple[str, int]) -> AsyncIterator[Line]:
    address = to if isinstance(to, tuple) else to.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(*address)
    try:
        yield Line(reader, writer)
    finally:
        writer.transport.abort()


def assert_refused(answer: tuple[int, dict[str, str], bytes], status: int) -> None:
    got, headers, body = answer
    error = json.loads(body)["error"]
    assert (got, error["type"], error["code"]) == (
        status,
        "invalid_request_error",
        "invalid_request_error",
    )
    assert headers["content-type"] == "application/json"
    assert headers["connection"] == "close"
    assert len(headers["x-request-id"]) == 12


@pytest.mark.parametrize(
    "sent",
    [
        HEALTH + b"x-a: b\r\n" * 128 + b"\r\n",
        HEALTH + b"x-a: " + b"b" * MAX_HEADER_BYTES + b"\r\n\r\n",
        HEALTH + b"x-a: " + b"b" * (MAX_HEADER_BYTES + 100),
        b"GET /" + b"b" * MAX_HEADER_BYTES + b" HTTP/1.1\r\nhost: x\r\n\r\n",
    ],
    ids=["count", "size", "unfinished", "target"],
)
async def test_headers_that_are_too_large_or_too_many_are_431(house: Harness, sent: bytes) -> None:
    async with line(house) as end:
        end.say(sent)
        assert_refused(await end.answer(), 431)
        assert await end.ended() == b""


async def test_headers_at_their_bounds_are_read(house: Harness) -> None:
    async with line(house) as end:
        end.say(HEALTH + b"x-a: b\r\n" * 127 + b"\r\n")
        assert (await end.answer())[0] == 200
        end.say(HEALTH + b"x-a: " + b"b" * (MAX_HEADER_BYTES - 100) + b"\r\n\r\n")
        assert (await end.answer())[0] == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /h\xc3\xa9 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n",
        CHAT + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        CHAT + b"content-length: 3\r\ncontent-length: 4\r\n\r\nabc",
        CHAT + b"content-length: -1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nx : y\r\n\r\n",
        b"GET /health HTTP/1.1\r\nx: a\x00b\r\n\r\n",
        HEALTH + b"Host: y\r\n\r\n",
        CHAT + KEY + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
        CHAT + KEY + b"transfer-encoding: gzip\r\n\r\nx",
    ],
    ids=[
        "words",
        "http2",
        "path",
        "connect",
        "smuggle",
        "lengths",
        "negative",
        "space",
        "nul",
        "hosts",
        "chunk",
        "coding",
    ],
)
async def test_what_is_not_http_is_400_in_json_and_hung_up_on(house: Harness, sent: bytes) -> None:
    async with line(house) as end:
        end.say(sent)
        assert_refused(await end.answer(), 400)
        assert await end.ended() == b""


async def test_an_offer_to_upgrade_is_answered_as_if_it_were_none(house: Harness) -> None:
    upgrade = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\n"
    body = STREAM.replace(b"true", b"false")
    async with line(house) as end:
        end.say(HEALTH + upgrade + b"\r\n")
        assert (await end.answer())[0] == 200
        end.say(CHAT + KEY + upgrade + b"content-length: %d\r\n\r\n" % len(body))
        end.say(body)
        assert (await end.answer())[0] == 200
        end.say(CHAT + KEY + upgrade + b"transfer-encoding: chunked\r\n\r\n")
        end.say(b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n" + HEALTH + upgrade + b"\r\n")
        assert [(await end.answer())[0] for _ in range(2)] == [200, 200]


async def test_headers_that_follow_a_body_change_nothing(house: Harness) -> None:
    async with line(house) as end:
        end.say(CHAT + KEY + b"transfer-encoding: chunked\r\n\r\n")
        body = STREAM.replace(b"true", b"false")
        end.say(b"%x\r\n" % len(body) + body + b"\r\n0\r\n")
        end.say(b"x-request-id: trailer\r\n\r\n")
        status, headers, _ = await end.answer()

    assert status == 200
    assert headers["x-request-id"] != "trailer"


async def test_requests_wait_in_line_up_to_a_bound(house: Harness) -> None:
    async with line(house) as end:
        end.say((HEALTH + b"\r\n") * (MAX_PIPELINED + 1))
        for _ in range(MAX_PIPELINED + 1):
            assert (await end.answer())[0] == 200
    async with line(house) as end:
        end.say((HEALTH + b"\r\n") * 1000)
        assert (await end.ended()).count(b"HTTP/1.1 200") <= MAX_PIPELINED + 1


async def test_a_body_above_every_ceiling_is_413_where_nobody_reads_it(house: Harness) -> None:
    async with line(house) as end:
        end.say(HEALTH + b"content-length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1))
        status, _, body = await end.answer()

    assert (status, json.loads(body)["error"]["type"]) == (413, "invalid_request_error")


async def test_an_answer_comes_before_the_rest_of_a_body_that_nobody_wants(
    house: Harness,
) -> None:
    rest = b"x" * 300_000
    async with line(house) as end:
        end.say(CHAT + b"content-length: 300001\r\n\r\nx")
        assert (await end.answer())[0] == 401
        # The rest is taken and dropped, and the line goes on.
        end.say(rest)
        end.say(HEALTH + b"\r\n")
        assert (await end.answer())[0] == 200


async def test_a_stray_byte_after_a_request_does_not_cut_its_answer(valkey_url: str) -> None:
    async with gateway(valkey_url, headers_s=1.0) as mesh, line(mesh) as end:
        gate = asyncio.Event()
        mesh.router.scripts = [scripted("one", "two", pause=gate)]
        end.say(CHAT + KEY + b"content-length: %d\r\n\r\n" % len(STREAM) + STREAM + b"\r\n")
        async with asyncio.timeout(PATIENCE_S):
            await end.reader.readuntil(b"one")
        await SystemClock().sleep(1.2)
        gate.set()
        async with asyncio.timeout(PATIENCE_S):
            assert b"[DONE]" in await end.reader.readuntil(b"0\r\n\r\n")


@pytest.fixture
def leaving(house: Harness) -> Iterator[Harness]:
    house.worker.gate.leaving = True
    yield house
    house.worker.gate.leaving = False


async def test_a_gateway_that_leaves_ends_each_line_with_its_answer(leaving: Harness) -> None:
    asked = CHAT + KEY + b"content-length: %d\r\n\r\n" % len(STREAM) + STREAM
    for request, status in ((asked, 429), (HEALTH + b"\r\n", 200)):
        async with line(leaving) as end:
            end.say(request)
            got, headers, _ = await end.answer()
            assert (got, headers["connection"]) == (status, "close")
            assert await end.ended() == b""


async def test_a_gateway_that_leaves_hears_a_request_out_before_it_ends_the_line(
    leaving: Harness,
) -> None:
    """Closing over what was not read would reset the connection, and take the answer with it."""
    half = b"x" * 500_000
    async with line(leaving) as end:
        end.say(CHAT + KEY + b"content-length: %d\r\n\r\n" % (2 * len(half)) + half)
        assert (await end.answer())[0] == 429
        end.say(half)
        async with asyncio.timeout(PATIENCE_S):
            assert await end.reader.read() == b""


async def test_an_operator_who_closes_all_gateways_ends_no_line(house: Harness) -> None:
    house.worker.gate.paused = True
    try:
        async with line(house) as end:
            end.say(CHAT + KEY + b"content-length: %d\r\n\r\n" % len(STREAM) + STREAM)
            status, headers, _ = await end.answer()
            assert (status, headers.get("connection")) == (429, None)
            end.say(HEALTH + b"\r\n")
            assert (await end.answer())[0] == 200
    finally:
        house.worker.gate.paused = False


@dataclass
class Bare:
    """The listener alone, in front of another application."""

    address: tuple[str, int]
    lines: Lines

    async def all_gone(self) -> None:
        clock = SystemClock()
        async with asyncio.timeout(PATIENCE_S):
            while self.lines.open:
                await clock.sleep(0.01)


@asynccontextmanager
async def listening(app: App, **changes: Any) -> AsyncIterator[Bare]:
    settings = {"environment": "development", "redis_url": Secret("redis://127.0.0.1:1")}
    config = GatewayConfig(**settings, listen="127.0.0.1:0", **changes)
    public = bind(config)
    listener = make_listener(app, config)
    serving = asyncio.ensure_future(listener.serve(sockets=[public]))
    try:
        yield Bare(public.getsockname()[:2], listener.config.http.manners.lines)
    finally:
        listener.should_exit = True
        async with asyncio.timeout(PATIENCE_S):
            await serving
        public.close()


async def fine(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send_json(send, 200, b"{}")


async def test_the_rest_of_a_body_does_not_keep_a_line_open() -> None:
    async with listening(fine, body_idle_s=0.2) as bare, line(bare.address) as end:
        end.say(CHAT + b"content-length: 1000\r\n\r\nx")
        assert (await end.answer())[0] == 200
        end.say(b"y")
        assert await end.ended() == b""
        await bare.all_gone()


async def test_headers_that_drip_are_hung_up_on_also_on_a_used_line() -> None:
    async with listening(fine, headers_s=1.0) as bare, line(bare.address) as end:
        clock = SystemClock()
        end.say(HEALTH + b"\r\n")
        assert (await end.answer())[0] == 200

        async def drip() -> None:
            while True:
                end.say(b"x")
                await clock.sleep(0.02)

        end.say(b"GET /health HTTP/1.1\r\nx-slow: ")
        dripping = asyncio.ensure_future(drip())
        assert await end.ended() == b""
        dripping.cancel()
        await asyncio.wait({dripping})


async def test_an_idle_line_is_closed() -> None:
    async with listening(fine, idle_s=1) as bare, line(bare.address) as end:
        end.say(HEALTH + b"\r\n")
        assert (await end.answer())[0] == 200
        assert await end.ended() == b""


@pytest.mark.parametrize("whole", [True, False])
async def test_who_does_not_read_an_answer_is_hung_up_on(whole: bool) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for more in [False] if whole else [True, False]:
            await send({"type": "http.response.body", "body": b"x" * (8 << 20), "more_body": more})

    async with listening(app, send_stall_s=0.3) as bare, line(bare.address) as end:
        end.writer.transport.pause_reading()
        end.say(HEALTH + b"\r\n")
        async with asyncio.timeout(PATIENCE_S):
            while not bare.lines.open:
                await SystemClock().sleep(0.01)
        await bare.all_gone()


async def test_a_chunk_that_is_none_ends_a_request_that_is_waited_for(house: Harness) -> None:
    async with line(house) as end:
        end.say(CHAT + KEY + b'transfer-encoding: chunked\r\n\r\n5\r\n{"mod\r\n')
        await SystemClock().sleep(0.05)
        end.say(b"zz\r\n")
        assert_refused(await end.answer(), 400)
        assert await end.ended() == b""


async def test_what_comes_after_an_answer_began_adds_no_second_one(house: Harness) -> None:
    gate = asyncio.Event()
    house.router.scripts = [scripted("one", "two", pause=gate)]
    async with line(house) as end:
        end.say(CHAT + KEY + b"content-length: %d\r\n\r\n" % len(STREAM) + STREAM)
        async with asyncio.timeout(PATIENCE_S):
            await end.reader.readuntil(b"one")
        end.say(b"nonsense\r\n\r\n")
        assert b"HTTP/1.1" not in await end.ended()
    gate.set()


async def test_who_reads_slowly_but_steadily_gets_the_whole_answer() -> None:
    size, step = 8 << 20, 512 << 10

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"%d" % size)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"x" * size, "more_body": False})

    async with listening(app, send_stall_s=1.0) as bare, line(bare.address) as end:
        end.say(HEALTH + b"\r\n")
        async with asyncio.timeout(PATIENCE_S):
            await end.reader.readuntil(b"\r\n\r\n")
            got = 0
            while got < size:
                got += len(await end.reader.readexactly(step))
                await SystemClock().sleep(0.2)
        assert got == size


async def test_what_is_left_of_an_answer_does_not_keep_a_line_open() -> None:
    """Less than what would stop a writer, said on a line that is then closed."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]}
        )
        for _ in range(200):
            await send({"type": "http.response.body", "body": b"x" * 30_000, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async with listening(app, send_stall_s=0.3) as bare, line(bare.address) as end:
        end.writer.transport.pause_reading()
        end.say(HEALTH + b"\r\n")
        async with asyncio.timeout(PATIENCE_S):
            while not bare.lines.open:
                await SystemClock().sleep(0.01)
        await bare.all_gone()


async def test_a_worker_has_so_many_lines() -> None:
    async with listening(fine, max_connections=3) as bare, AsyncExitStack() as stack:
        ends = [await stack.enter_async_context(line(bare.address)) for _ in range(4)]
        for end in ends[:3]:
            end.say(HEALTH + b"\r\n")
            assert (await end.answer())[0] == 200
        assert await ends[3].ended() == b""

        ends[0].writer.transport.abort()
        async with asyncio.timeout(PATIENCE_S):
            while bare.lines.open == 3:
                await SystemClock().sleep(0.01)
        another = await stack.enter_async_context(line(bare.address))
        another.say(HEALTH + b"\r\n")
        assert (await another.answer())[0] == 200


NOBODY = {"authorization": "Bearer sk-db-" + "0" * 64}


async def test_a_network_is_slowed_down_before_anybody_asks_who_it_is(valkey_url: str) -> None:
    async with gateway(valkey_url, network_rate=0.01, network_burst=2, proxies=1) as mesh:

        async def come(address: str, path: str = "/v1/messages") -> tuple[int, str | None, int]:
            headers = {**BEARER, "x-forwarded-for": address}
            before = mesh.billing.lookups
            got = await mesh.http.post(path, headers=headers, content=b"{")
            return got.status_code, got.headers.get("retry-after"), mesh.billing.lookups - before

        assert [(await come("6.6.6.6, 203.0.113.1"))[0] for _ in range(2)] == [400, 400]
        assert await come("7.7.7.7, 203.0.113.1") == (429, "60", 0)
        assert (await come("6.6.6.6, 203.0.113.2"))[0] == 400
        health = await mesh.http.get("/health", headers={"x-forwarded-for": "203.0.113.1"})
        assert health.status_code == 200


async def test_a_wrong_key_costs_its_network_more(valkey_url: str) -> None:
    async with gateway(valkey_url, network_rate=0.01, network_burst=10, proxies=1) as mesh:

        async def models(address: str, headers: dict[str, str]) -> int:
            headers = {**headers, "x-forwarded-for": address}
            return (await mesh.http.get("/v1/models", headers=headers)).status_code

        assert await models("203.0.113.1", NOBODY) == 401
        assert await models("203.0.113.1", BEARER) == 429
        assert [await models("203.0.113.2", BEARER) for _ in range(2)] == [200, 200]


async def test_only_the_line_that_our_proxy_wrote_is_believed(valkey_url: str) -> None:
    """A proxy may append a header of its own instead of to the one that the caller has sent."""
    async with gateway(valkey_url, network_rate=0.01, network_burst=1, proxies=1) as mesh:

        async def come(*lines: str) -> int:
            headers = [("x-forwarded-for", each) for each in lines]
            return (await mesh.http.get("/v1/pricing", headers=headers)).status_code

        assert await come("6.6.6.6", "203.0.113.1") == 200
        assert await come("7.7.7.7", "203.0.113.1") == 429
        assert await come("203.0.113.1", "203.0.113.2") == 200


async def test_nothing_of_what_is_refused_reaches_the_log(
    house: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    canary = b"canary-0ddba11"
    for sent in (
        canary + b"\r\n\r\n",
        b"GET /" + canary + b"\xff HTTP/1.1\r\nhost: x\r\n\r\n",
        HEALTH + (b"x-%b: y\r\n" % canary) * 200 + b"\r\n",
        HEALTH + b"upgrade: " + canary + b"\r\nconnection: upgrade\r\n\r\n",
        b"GET /v1/" + canary + b" HTTP/1.1\r\nhost: x\r\norigin: " + canary + b"\r\n\r\n",
    ):
        async with line(house) as end:
            end.say(sent)
            _, _, body = await end.answer()
            assert canary not in body

    said = capsys.readouterr()
    assert canary.decode() not in said.out + said.err
