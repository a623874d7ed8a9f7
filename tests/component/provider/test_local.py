"""The owner's own endpoint, as an unchanged OpenAI client and as strangers meet it."""

import asyncio
import json
from contextlib import asynccontextmanager

import httpx
import openai
import pytest
from darkbloom_mesh.clock import SystemClock
from darkbloom_provider.engine.interface import Build
from darkbloom_provider.engine.scripted import ScriptedEngine
from darkbloom_provider.inventory import Inventory
from darkbloom_provider.loads import Loads
from darkbloom_provider.local.app import LocalApp
from darkbloom_provider.local.errors import LocalStartError, not_serving
from darkbloom_provider.local.key import read_or_make
from darkbloom_provider.local.record import read_record
from darkbloom_provider.local.server import LocalServer, bind
from darkbloom_provider.models.store import ModelStore
from darkbloom_provider.options import LocalEndpoint
from darkbloom_provider.shift import Kitchen

from tests.component.provider.models import BUILD, place_model
from tests.component.provider.test_process import process
from tests.fakes.provider_router import PATIENCE_S
from tests.media import data_url, png, seen

CANARY = "canary-10ca1"
HELLO = [{"role": "user", "content": "hello"}]


def scripted(**script):
    return [{"role": "user", "content": f"/script {json.dumps(script)}"}]


class Place:
    """A kitchen that can be taken away."""

    def __init__(self, kitchen: Kitchen) -> None:
        self.found: Kitchen | None = kitchen

    def kitchen(self) -> Kitchen:
        if self.found is None:
            raise not_serving("closed")
        return self.found


class Local:
    def __init__(self, server: LocalServer, place: Place, record, key) -> None:
        self.server, self.place, self.record, self.key = server, place, record, key
        self.root = server.base_url.removesuffix("/v1")

    @property
    def engine(self):
        return self.place.found.engine

    def openai(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(
            base_url=self.server.base_url,
            api_key=self.key.reveal() if self.key else "none",
            max_retries=0,
            timeout=PATIENCE_S,
        )

    def http(self, **headers) -> httpx.AsyncClient:
        bearer = {"authorization": f"Bearer {self.key.reveal()}"} if self.key else {}
        return httpx.AsyncClient(
            base_url=self.root, headers={**bearer, **headers}, timeout=PATIENCE_S
        )


@asynccontextmanager
async def opened(tmp_path, *, authenticated=True):
    clock = SystemClock()
    engine = ScriptedEngine(clock=clock)
    loads = Loads(engine, (Build(build_id=BUILD),), slots=1, clock=clock)
    place_model(tmp_path / "models")
    inventory = Inventory(ModelStore(tmp_path / "models").list())
    place = Place(Kitchen(engine=engine, loads=loads, inventory=inventory))
    key = read_or_make(tmp_path / "local_token") if authenticated else None
    ids = iter(range(10_000))
    app = LocalApp(place, key, clock, version="1.2.3", new_id=lambda: f"{next(ids):024x}")
    record = tmp_path / "local.json"
    endpoint = LocalEndpoint(port=0, authenticated=authenticated)
    server = LocalServer(bind(endpoint), app, key, record, clock, version="1.2.3")
    async with asyncio.timeout(PATIENCE_S * 3), asyncio.TaskGroup() as tasks:
        playing = tasks.create_task(engine.run())
        running = tasks.create_task(server.run())
        while not record.exists():
            await clock.sleep(0.005)
        try:
            yield Local(server, place, record, key)
        finally:
            server.stop()
            await asyncio.wait([running])
            await engine.close()
            await playing


@pytest.fixture
async def local(tmp_path):
    async with opened(tmp_path) as found:
        yield found


async def test_an_unchanged_openai_client_gets_its_answer_whole_and_streamed(local):
    async with local.openai() as client:
        listed = await client.models.list()
        assert [model.id for model in listed.data] == [BUILD]

        messages = scripted(text="one two three")
        whole = await client.chat.completions.create(model=BUILD, messages=messages)
        assert whole.choices[0].message.content == "one two three"
        assert whole.choices[0].finish_reason == "stop"
        assert whole.usage.completion_tokens == 3

        events = [
            event
            async for event in await client.chat.completions.create(
                model=BUILD,
                messages=messages,
                stream=True,
                stream_options={"include_usage": True},
            )
        ]
        text = "".join(e.choices[0].delta.content or "" for e in events if e.choices)
        assert text == "one two three"
        assert events[-1].usage.completion_tokens == 3
        assert [e.choices[0].finish_reason for e in events if e.choices][-1] == "stop"


async def test_the_other_dialects_of_openai_are_answered_too(local):
    directive = scripted(text="one two")[0]["content"]
    async with local.openai() as client:
        whole = await client.completions.create(model=BUILD, prompt=directive)
        assert whole.choices[0].text == "one two"
        streamed = await client.completions.create(model=BUILD, prompt=directive, stream=True)
        assert "".join([event.choices[0].text async for event in streamed]) == "one two"

        answer = await client.responses.create(model=BUILD, input=directive)
        assert answer.output_text == "one two"
        events = [
            event
            async for event in await client.responses.create(
                model=BUILD, input=directive, stream=True
            )
        ]
        assert events[-1].type == "response.completed"


async def test_all_requests_of_the_owner_share_one_scope_of_the_prefix_cache(local, monkeypatch):
    scopes, submit = [], local.engine.submit

    async def noted(job, sink):
        scopes.append(job.cache_scope)
        await submit(job, sink)

    monkeypatch.setattr(local.engine, "submit", noted)
    async with local.openai() as client:
        for _ in range(2):
            await client.chat.completions.create(model=BUILD, messages=scripted(text="a b"))

    assert len(scopes) == 2
    assert len(set(scopes)) == 1
    assert len(scopes[0]) == 32


async def test_images_are_refused_by_an_engine_without_eyes_and_never_fetched(local):
    async with local.http() as client:
        for url, said in (
            (data_url(png()), "text only"),
            ("https://example.com/a.png", "nothing is fetched here"),
        ):
            body = {"model": BUILD, "messages": seen(url)}
            answer = await client.post("/v1/chat/completions", json=body)
            assert answer.status_code == 400
            assert said in answer.json()["error"]["message"]


async def test_each_prompt_of_an_array_is_answered_in_its_place(local):
    words = ["one", "two", "three"]
    prompts = [f"/script {json.dumps({'text': word})}" for word in words]
    async with local.openai() as client:
        answer = await client.completions.create(model=BUILD, prompt=prompts)

    assert [choice.text for choice in answer.choices] == words


async def test_several_choices_come_back_in_one_answer(local):
    async with local.openai() as client:
        whole = await client.chat.completions.create(
            model=BUILD, messages=scripted(text="a b"), n=2
        )

    assert [choice.message.content for choice in whole.choices] == ["a b", "a b"]
    assert whole.usage.completion_tokens == 4


async def test_without_the_key_there_is_health_and_nothing_else(local):
    wrong = ("", "Bearer", "Bearer dk-local-x", f"bearer {local.key.reveal()}", "Basic x")
    async with httpx.AsyncClient(base_url=local.root, timeout=PATIENCE_S) as client:
        for path in ("/", "/health", "/v1/health"):
            answer = await client.get(path)
            assert (answer.status_code, answer.json()["status"]) == (200, "ok")
        for header in wrong:
            headers = {"authorization": header} if header else {}
            answer = await client.get("/v1/models", headers=headers)
            assert answer.status_code == 401
            assert answer.json()["error"]["type"] == "authentication_error"
            assert answer.headers["access-control-allow-origin"] == "*"
        preflight = await client.options("/v1/chat/completions")
        assert preflight.status_code == 204
        assert "authorization" in preflight.headers["access-control-allow-headers"]


async def test_an_endpoint_without_a_key_answers_only_to_loopback_names(tmp_path):
    async with opened(tmp_path, authenticated=False) as local, local.http() as client:
        assert (await client.get("/v1/models")).status_code == 200
        for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example"):
            answer = await client.get("/v1/models", headers={"host": host})
            assert answer.status_code == 403
            assert "access-control-allow-origin" not in answer.headers
        for named in (
            {"sec-fetch-site": "cross-site"},
            {"sec-fetch-site": "same-site", "origin": "http://localhost"},
            {"origin": "https://evil.example"},
            {"origin": "http://localhost.evil.example:80"},
            {"origin": "null"},
            {"origin": "http://[::1"},
            {"origin": ""},
        ):
            answer = await client.get("/v1/models", headers=named)
            assert (answer.status_code, answer.json()["error"]["type"]) == (403, "forbidden"), named
        for named in (
            {"sec-fetch-site": "same-origin", "origin": local.root},
            {"sec-fetch-site": "none"},
            {"origin": "http://localhost:3000"},
            {"origin": "http://[::1]:3000"},
        ):
            assert (await client.get("/v1/models", headers=named)).status_code == 200, named
        assert json.loads(local.record.read_text())["api_key"] == ""
        with pytest.raises(LocalStartError, match="reached by others"):
            bind(LocalEndpoint(host="0.0.0.0", port=0, authenticated=False))


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/v1/chat/completions", b"{", 400, "invalid_request_error"),
        ("POST", "/v1/chat/completions", b"[]", 400, "invalid_request_error"),
        ("POST", "/v1/chat/completions", {"messages": HELLO}, 400, "invalid_request_error"),
        (
            "POST",
            "/v1/chat/completions",
            {"model": BUILD, "messages": HELLO, "max_tokens": -1},
            400,
            "invalid_request_error",
        ),
        (
            "POST",
            "/v1/chat/completions",
            {"model": "other/model", "messages": HELLO},
            404,
            "model_not_found",
        ),
        (
            "POST",
            "/chat/completions",
            {"model": BUILD, "messages": scripted(refuse="queue_full")},
            503,
            "queue_full",
        ),
        ("GET", "/v1/chat/completions", None, 405, "invalid_request_error"),
        ("POST", "/v1/embeddings", {}, 501, "embeddings_not_configured"),
        ("POST", "/v1/tokenize", {"content": "x"}, 501, "tokenizer_not_available"),
        ("POST", "/v1/tokenize", {"content": 3}, 400, "invalid_request_error"),
        ("POST", "/v1/tokenize", {"model": "no"}, 404, "model_not_found"),
        ("POST", "/v1/tokenize", b"x", 400, "invalid_request_error"),
        ("GET", "/v1/nothing", None, 404, "invalid_request_error"),
    ],
    ids=lambda value: "",
)
async def test_what_cannot_be_answered_is_one_typed_error(local, method, path, body, status, code):
    content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    async with local.http() as client:
        answer = await client.request(method, path, content=content)

    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code
    assert ("retry-after" in answer.headers) == (status == 503)


async def test_bodies_above_the_ceiling_are_refused_before_they_are_read(local):
    key = local.key.reveal()
    for path, framing in (
        ("/v1/tokenize", "content-length: 5000000"),
        ("/v1/tokenize", "transfer-encoding: chunked"),
        ("/v1/chat/completions", f"content-length: {(16 << 20) + 1}"),
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", local.server.port)
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
        writer.write(f"{head}{framing}\r\n\r\n".encode())
        if "chunked" in framing:
            piece = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
            writer.write(piece * 65)
        answer = await reader.readline()
        writer.transport.abort()
        assert b" 413 " in answer


async def test_a_failure_before_content_is_json_and_after_it_one_error_chunk(local):
    early = {
        "model": BUILD,
        "stream": True,
        "messages": scripted(text="a", fail_before_content=True),
    }
    late = {
        "model": BUILD,
        "stream": True,
        "messages": scripted(text="a b c d", fail_after_deltas=2, interval_s=0.02),
    }
    async with local.http() as client:
        failed = await client.post("/v1/chat/completions", json=early)
        broken = await client.post("/v1/chat/completions", json=late)

    assert failed.status_code == 500
    assert failed.json()["error"]["code"] == "generation_failure"
    assert broken.status_code == 200
    *_, last = broken.text.strip().split("\n\n")
    chunk = json.loads(last.removeprefix("data: "))
    assert chunk["choices"][0]["finish_reason"] == "error"
    assert chunk["error"]["type"] == "generation_failure"
    assert "[DONE]" not in broken.text


async def test_a_client_that_hangs_up_frees_its_row(local):
    slow = {"model": BUILD, "stream": True, "messages": scripted(text="x " * 50, interval_s=0.2)}
    async with local.http() as client:
        async with client.stream("POST", "/v1/chat/completions", json=slow) as answer:
            await anext(answer.aiter_bytes())
            assert local.engine.slots()[0].num_running == 1
            assert local.place.found.guests.count == 1
        while local.engine.slots()[0].num_running:
            await SystemClock().sleep(0.01)
    await local.place.found.guests.gone()


async def test_local_work_is_in_the_slots_that_the_network_is_told(local):
    slow = {"model": BUILD, "stream": True, "messages": scripted(text="x " * 50, interval_s=0.2)}
    async with (
        local.http() as client,
        client.stream("POST", "/v1/chat/completions", json=slow) as answer,
    ):
        await anext(answer.aiter_bytes())
        slot = local.engine.slots()[0]
        assert slot.num_running == 1
        assert slot.active_token_budget_used > 0
        metrics = await client.get("/v1/metrics")
        assert f'darkbloom_local_running{{model="{BUILD}"}} 1' in metrics.text
        assert "darkbloom_local_requests 1" in metrics.text
        props = (await client.get("/props")).json()
        assert props["models"][0]["running"] == 1


async def test_outside_its_hours_the_machine_says_so(local):
    local.place.found, kept = None, local.place.found
    async with local.http() as client:
        answer = await client.get("/v1/models")
    local.place.found = kept

    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"


async def test_the_record_is_private_and_goes_with_its_server(tmp_path):
    async with opened(tmp_path) as local:
        assert local.record.stat().st_mode & 0o777 == 0o600
        found = read_record(local.record)
        assert found.base_url == local.server.base_url
        assert found.api_key == local.key.reveal()
        assert local.key.reveal() not in repr(found)
        with pytest.raises(LocalStartError, match="failed to bind"):
            bind(LocalEndpoint(port=local.server.port))
    assert not local.record.exists()


async def test_local_alone_asks_no_router_and_needs_no_account(tmp_path, monkeypatch, capsys):
    from darkbloom_provider.cli import run

    async with process(tmp_path, "127.0.0.1:1") as agent:
        await agent.start("--local", "--port", "0")
        await agent.ready()
        monkeypatch.setenv("DARKBLOOM_PROVIDER_HOME", str(agent.home))
        assert await asyncio.to_thread(run, ["local", "--json"]) == 0
        record = json.loads(capsys.readouterr().out)
        assert await asyncio.to_thread(run, ["local"]) == 0
        assert record["base_url"] in capsys.readouterr().out
        async with openai.AsyncOpenAI(
            base_url=record["base_url"], api_key=record["api_key"], timeout=PATIENCE_S
        ) as client:
            answer = await client.chat.completions.create(
                model=BUILD, messages=scripted(text=f"{CANARY} you said")
            )
            assert CANARY in answer.choices[0].message.content
            slow = await client.chat.completions.create(
                model=BUILD, messages=scripted(text="a b c d e", interval_s=0.1), stream=True
            )
            await anext(aiter(slow))
            assert agent.state()["connection"] == "local"
            stopping = asyncio.create_task(agent.stop())
            # What was let in is answered first.
            rest = [event async for event in slow]
            assert rest[-1].choices[0].finish_reason == "stop"
            assert await stopping == 0
        assert await asyncio.to_thread(run, ["local", "--json"]) == 1
        assert capsys.readouterr().out == "{}\n"
    written = [agent.log, *agent.home.rglob("*")]
    assert all(CANARY.encode() not in p.read_bytes() for p in written if p.is_file())
    key = record["api_key"].encode()
    assert [p.name for p in written if p.is_file() and key in p.read_bytes()] == ["local_token"]
