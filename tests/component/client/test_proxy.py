"""`darkbloom-proxy` on a real port, in front of a mesh that cannot read."""

import asyncio
import json
import socket
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import httpx
import httpx2
import openai
import pytest
from darkbloom_client import AsyncTransport
from darkbloom_client.proxy import command
from darkbloom_client.proxy.app import ProxyApp
from darkbloom_client.proxy.errors import ProxyError
from darkbloom_client.proxy.guard import Guard
from darkbloom_client.proxy.server import base_url, bind, make_server
from darkbloom_edge.signatures import to_base64

from tests.fakes.blind_mesh import MODEL, BlindMesh

SECRET = "a secret that nobody else may read"
ASK: Any = [{"role": "user", "content": SECRET}]
KEY = "sk-local-test"


@asynccontextmanager
async def proxy(mesh: BlindMesh, key: str | None = KEY, *, line: Any = None) -> AsyncIterator[str]:
    """Serve, and return the base URL."""
    listener = bind("127.0.0.1", 0, allow_remote=False)
    transport = AsyncTransport(mesh.policy(), inner=line or mesh.line(httpx), clock=mesh)
    app = ProxyApp(
        transport,
        upstream="https://mesh.test",
        api_key="sk-db-upstream",
        guard=Guard(key),
        about={"mode": "end_to_end"},
    )
    server = make_server(app)
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(_quiet(server).serve([listener]))
        try:
            yield base_url(listener)
        finally:
            server.should_exit = True
            async with asyncio.timeout(20):
                await serving


def _quiet(server: Any) -> Any:
    """Leave signals to the tests."""
    server.capture_signals = nullcontext
    return server


async def test_a_stock_sdk_streams_through_the_proxy() -> None:
    mesh = BlindMesh()
    async with proxy(mesh) as url:
        client = openai.AsyncOpenAI(base_url=url, api_key=KEY, max_retries=0)
        stream = await client.chat.completions.create(model=MODEL, messages=ASK, stream=True)
        pieces = [c.choices[0].delta.content or "" async for c in stream if c.choices]
        assert list((await client.models.list()).data) == []
        await client.close()

    assert "".join(pieces) == "Hello, world."
    assert SECRET in str(mesh.prompts[-1].messages)
    assert not any(SECRET.encode() in body for body in mesh.bodies)
    asked = mesh.headers[mesh.calls.index(("POST", "/v1/offers"))]
    assert asked["authorization"] == "Bearer sk-db-upstream"
    assert not any(KEY in str(headers) for headers in mesh.headers)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": f"bearer {KEY}"}, 200),
        ({"x-api-key": KEY}, 200),
        ({"x-api-key": KEY, "host": "evil.example"}, 401),
        ({"x-api-key": KEY, "host": "127.evil.example"}, 401),
        ({"x-api-key": KEY, "host": "[evil"}, 401),
        ({"x-api-key": KEY, "origin": "http://127.evil.example"}, 401),
        ({"x-api-key": KEY, "origin": "https://evil.example"}, 401),
        ({"x-api-key": KEY, "sec-fetch-site": "cross-site"}, 401),
        ({"x-api-key": KEY, "origin": "http://localhost:3000"}, 200),
    ],
    ids=[
        "none",
        "wrong",
        "bearer",
        "key",
        "rebound",
        "rebound-127",
        "no-name",
        "foreign-127",
        "foreign",
        "cross-site",
        "own",
    ],
)
async def test_only_programs_of_this_machine_with_its_key_may_ask(
    headers: dict[str, str], status: int
) -> None:
    async with proxy(BlindMesh()) as url, httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"{url}/models", headers=headers)

    assert answer.status_code == status


async def test_without_a_key_pages_of_other_sites_still_may_not() -> None:
    async with proxy(BlindMesh(), None) as url, httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(f"{url}/models")).status_code == 200
        stranger = {"origin": "https://evil.example"}
        assert (await client.get(f"{url}/models", headers=stranger)).status_code == 401


@pytest.mark.parametrize("path", ["/", "/health"])
@pytest.mark.parametrize(
    "headers",
    [
        {"host": "127.evil.example"},
        {"host": "evil.example"},
        {"origin": "https://evil.example"},
        {"sec-fetch-site": "cross-site"},
    ],
    ids=["rebound-127", "rebound", "foreign", "cross-site"],
)
async def test_what_needs_no_key_is_not_told_to_pages_of_other_sites(
    path: str, headers: dict[str, str]
) -> None:
    async with proxy(BlindMesh()) as url, httpx.AsyncClient(trust_env=False) as client:
        own = await client.get(url.removesuffix("/v1") + path)
        other = await client.get(url.removesuffix("/v1") + path, headers=headers)

    assert (own.status_code, own.json()) == (200, {"mode": "end_to_end"})
    assert other.status_code == 401
    assert "end_to_end" not in other.text


async def asked_raw(url: str, target: str) -> str:
    """Send one GET of exactly this target, and return the status line."""
    port = httpx.URL(url).port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"GET {target} HTTP/1.1\r\nhost: localhost\r\nx-api-key: {KEY}\r\n"
    writer.write(f"{head}connection: close\r\n\r\n".encode())
    async with asyncio.timeout(20):
        status = (await reader.read()).partition(b"\r\n")[0].decode()
    writer.close()
    return status


@pytest.mark.parametrize(
    "target",
    [
        "@evil.example/x",
        ".evil.example/x",
        ":80@evil.example/x",
        "https://evil.example/x",
        "*",
        "x",
    ],
)
async def test_a_target_that_is_no_path_goes_nowhere(target: str) -> None:
    mesh = BlindMesh()
    async with proxy(mesh) as url:
        assert "400" in await asked_raw(url, target)

    assert mesh.headers == []


@pytest.mark.parametrize(
    ("target", "sent"),
    [
        ("/v1/models%3Fa=b%23c?d=%26", "/v1/models%3Fa=b%23c?d=%26"),
        ("//evil.example/x", "//evil.example/x"),
        ("/@evil.example/x", "/@evil.example/x"),
    ],
)
async def test_a_path_reaches_the_gateway_as_it_was_written(target: str, sent: str) -> None:
    seen: list[httpx.URL] = []

    def respond(request: httpx.Request) -> httpx.Response:
        seen.append(request.url)
        return httpx.Response(200, content=b"{}")

    async with proxy(BlindMesh(), line=httpx.MockTransport(respond)) as url:
        assert "200" in await asked_raw(url, target)

    assert [(one.host, one.raw_path.decode()) for one in seen] == [("mesh.test", sent)]


async def test_one_transport_serves_clients_of_both_libraries() -> None:
    mesh = BlindMesh()
    transport = AsyncTransport(mesh.policy())
    async with proxy(mesh) as url:
        for library in (httpx, httpx2):
            client = library.AsyncClient(transport=transport, headers={"x-api-key": KEY})
            assert (await client.get(f"{url}/models")).json()["object"] == "list"
        await transport.aclose()


async def test_what_would_leave_in_plaintext_does_not() -> None:
    mesh = BlindMesh()
    async with proxy(mesh) as url, httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(
            f"{url}/embeddings", json={"input": SECRET}, headers={"x-api-key": KEY}
        )

    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "plaintext_path")
    assert mesh.calls == []


async def test_a_refusal_is_told_to_the_tool_by_name() -> None:
    mesh = BlindMesh()
    mesh.level = "none"
    async with proxy(mesh) as url, httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(
            f"{url}/chat/completions",
            json={"model": MODEL, "messages": ASK},
            headers={"x-api-key": KEY},
        )

    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "trust_too_low")


async def test_a_gateway_that_is_down_is_a_clean_error() -> None:
    def down(_request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    line = httpx.MockTransport(down)
    async with proxy(BlindMesh(), line=line) as url, httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(
            f"{url}/chat/completions",
            json={"model": MODEL, "messages": ASK},
            headers={"x-api-key": KEY},
        )

    assert answer.status_code == 502
    assert answer.json()["error"]["type"] == "provider_error"


async def test_a_tool_that_leaves_ends_the_sealed_stream_too() -> None:
    mesh = BlindMesh()
    left = asyncio.Event()

    class Endless(httpx.AsyncByteStream):
        def __init__(self, pieces: list[bytes]) -> None:
            self._first = pieces[0]

        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield self._first
            await asyncio.Event().wait()

        async def aclose(self) -> None:
            left.set()

    def respond(request: httpx.Request) -> httpx.Response:
        status, headers, pieces = mesh.respond(request)
        if request.url.path == "/v1/offers/answer":
            return httpx.Response(status, headers=headers, stream=Endless(pieces))
        return httpx.Response(status, headers=headers, content=b"".join(pieces))

    body = {"model": MODEL, "messages": ASK, "stream": True}
    async with proxy(mesh, line=httpx.MockTransport(respond)) as url:
        async with (
            httpx.AsyncClient(trust_env=False, headers={"x-api-key": KEY}) as client,
            client.stream("POST", f"{url}/chat/completions", json=body) as answer,
        ):
            async for line in answer.aiter_lines():
                if "Hello" in line:
                    break
        async with asyncio.timeout(20):
            await left.wait()


def test_an_address_that_others_can_reach_needs_to_be_meant() -> None:
    with pytest.raises(ProxyError, match="can be reached by others"):
        bind("0.0.0.0", 0, allow_remote=False)

    bind("0.0.0.0", 0, allow_remote=True).close()


def test_a_port_that_is_taken_is_told() -> None:
    taken = bind("127.0.0.1", 0, allow_remote=False)
    with taken, pytest.raises(ProxyError, match="cannot listen"):
        bind("127.0.0.1", taken.getsockname()[1], allow_remote=False)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    file = tmp_path / "keys.json"
    row = {"key_id": "k", "public_key": to_base64(bytes(32))}
    file.write_text(json.dumps({"verdict_keys": [row], "receipt_keys": []}))
    return file


@pytest.fixture(autouse=True)
def nobody_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands get as far as their announcement."""

    async def served(listener: socket.socket, *_rest: Any) -> None:
        listener.close()

    monkeypatch.setattr(command, "_serve", served)
    monkeypatch.setenv("DARKBLOOM_API_KEY", "sk-db-upstream")
    monkeypatch.delenv("DARKBLOOM_URL", raising=False)


START = ["--url", "https://mesh.test/v1", "--port", "0", "--app-id", "TEAM.app"]


def test_the_start_tells_policy_and_key_as_json(
    keys: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([*START, "--keys", str(keys), "--release", "rel_1", "--json"]) == 0

    told = json.loads(capsys.readouterr().out)
    assert told["base_url"].startswith("http://127.0.0.1:")
    assert told["api_key"].startswith("sk-local-")
    assert told["upstream"] == "https://mesh.test"
    assert told["policy"]["trust"] == "hardware"
    assert told["policy"]["allowed_releases"] == ["rel_1"]
    assert "sk-db-upstream" not in json.dumps(told)


def test_a_price_limit_is_told_whole(keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prices = ["--max-input-price", "5", "--max-output-price", "6"]
    more = ["--max-minimum-charge", "7", "--max-hold", "8"]

    assert command.main([*START, "--keys", str(keys), "--json", *prices]) == 0
    told = json.loads(capsys.readouterr().out)["policy"]["max_price"]
    assert told == {
        "input_micros": 5,
        "output_micros": 6,
        "minimum_micros": 100,
        "hold_micros": None,
    }
    assert command.main([*START, "--keys", str(keys), "--json", *prices, *more]) == 0
    told = json.loads(capsys.readouterr().out)["policy"]["max_price"]
    assert (told["minimum_micros"], told["hold_micros"]) == (7, 8)


def test_the_start_tells_the_same_to_people(keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([*START, "--keys", str(keys)]) == 0

    told = capsys.readouterr().out
    for words in ("http://127.0.0.1:", "local key", "sk-local-", "policy", "hardware", "TEAM.app"):
        assert words in told


def test_a_local_key_is_made_once_and_kept_from_others(
    keys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "local.key"
    arguments = [*START, "--keys", str(keys), "--local-key-file", str(file)]

    assert command.main(arguments) == 0
    made = file.read_text()
    assert command.main(arguments) == 0

    assert file.read_text() == made
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert made.strip() not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (lambda k: [*START[2:], "--url", "ftp://x", "--keys", k], 78, "http"),
        (lambda k: [*START[2:], "--url", "http://far.example", "--keys", k], 78, "plaintext"),
        (lambda k: [*START[2:], "--url", "http://127.evil.example", "--keys", k], 78, "plaintext"),
        (lambda k: [*START, "--keys", f"{k}.none"], 78, "cannot be read"),
        (lambda k: [*START[:4], "--keys", k], 78, "app_id"),
        (lambda k: [*START, "--keys", k, "--trust", "none"], 78, "--allow-unattested"),
        (lambda k: [*START, "--keys", k, "--max-input-price", "1"], 78, "both"),
        (lambda k: [*START, "--keys", k, "--max-hold", "1"], 78, "both"),
        (lambda k: [*START, "--keys", k, "--host", "0.0.0.0"], 78, "--allow-remote"),
        (lambda k: [*START, "--keys", k, "--host", "0.0.0.0", "--no-auth"], 78, "everybody"),
        (lambda k: [*START, "--keys", k, "--no-auth", "--local-key-file", "f"], 78, "contradict"),
        (lambda k: [*START], 64, "--keys"),
        (lambda k: [*START, "--keys", k, "--port", "http"], 64, "--port"),
    ],
    ids=[
        "scheme",
        "plaintext",
        "plaintext-127",
        "no-keys",
        "no-app",
        "trust",
        "half-a-price",
        "hold-alone",
        "remote",
        "remote-open",
        "both-keys",
        "usage",
        "port",
    ],
)
def test_a_start_that_cannot_be_kept_is_refused_in_one_line(
    keys: Path,
    arguments: Callable[[str], list[str]],
    code: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command.main(arguments(str(keys))) == code

    told = capsys.readouterr()
    assert said in told.err
    assert "Traceback" not in told.err
