"""A canary in prompts and answers sings nowhere: only gateway and provider memory ever held it."""

import asyncio
import hashlib
import json
import os
import re
import resource
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import pytest_asyncio
from darkbloom_local.mesh import Mesh
from darkbloom_local.models import SCRIPTED
from darkbloom_local.process import Child, Command
from darkbloom_mesh.telemetry import SPAN_ATTRIBUTES

from tests.mesh import places
from tests.mesh.collector import Collector
from tests.mesh.harness import SHORT_LEASES, Books, Consumer, Fleet, until
from tests.sealed_client import CHAT, FRAMED, PLAIN, SealedCall

pytestmark = [pytest.mark.mesh, pytest.mark.asyncio(loop_scope="session")]

ABORTED = ("gateway", "router", "provider")
"""Who is made to crash with the canary in or near him."""


@dataclass
class Bird:
    """A secret, and what was sent around it."""

    song: str = field(default_factory=lambda: f"canary-{secrets.token_hex(16)}")
    bodies: list[bytes] = field(default_factory=list)
    request_ids: list[str] = field(default_factory=list)
    trace_id: str = field(default_factory=lambda: secrets.token_hex(16))
    job_ids: list[str] = field(default_factory=list)

    @property
    def needles(self) -> list[bytes]:
        """What must be found nowhere: the song, its digests, and those of whole bodies."""
        whole = [digest for body in self.bodies for digest in places.digests(body)]
        return [*places.spellings(self.song), *whole]


@pytest.fixture(scope="module")
def core_files_wanted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Let processes of this module dump core, into a directory of their own."""
    here, limits = Path.cwd(), resource.getrlimit(resource.RLIMIT_CORE)
    there = tmp_path_factory.mktemp("cores")
    resource.setrlimit(resource.RLIMIT_CORE, (limits[1], limits[1]))
    os.chdir(there)
    yield there
    os.chdir(here)
    resource.setrlimit(resource.RLIMIT_CORE, limits)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def cage(state: Path, core_files_wanted: Path) -> AsyncIterator[tuple[Mesh, Collector]]:
    """A mesh that logs and traces all it can."""
    with Collector() as collector:
        told = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "DARKBLOOM_LOG_LEVEL": "debug",
        }
        environment = {room: {**SHORT_LEASES.get(room, {}), **told} for room in places.ROOMS}
        async with Mesh(state, environment=environment, records=True, durable=False) as mesh:
            await Fleet(mesh).wait_routable()
            yield mesh, collector


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def bird(cage: tuple[Mesh, Collector]) -> Bird:
    """A canary that has flown through every kind of request, good and bad."""
    mesh, _ = cage
    bird, consumer = Bird(), Consumer(mesh)
    for number, (body, expected) in enumerate(_bodies(bird.song)):
        request_id = f"flight-{number}-{secrets.token_hex(4)}"
        headers = {
            "x-request-id": request_id,
            "traceparent": f"00-{bird.trace_id}-{secrets.token_hex(8)}-01",
        }
        answer = await consumer.post(body, headers=headers)
        assert answer.status_code == expected, (number, answer.text[:300])
        bird.bodies.append(body)
        bird.request_ids.append(request_id)
        bird.job_ids += [answer.headers.get("x-inference-job-id", "")]
        if expected == 200 and b'"stream": true' in body:
            bird.bodies.append(answer.content)

    # One of the bad requests has cost the provider its trust.
    await mesh.restart("provider")
    await Fleet(mesh).wait_routable()
    await _sealed(bird, mesh)
    # Somebody hangs up in the middle, and somebody asks for strange things.
    async with consumer.streaming(text=f"{bird.song} " * 500, interval_s=0.01) as reading:
        await reading.words(5)
    await consumer.get(f"/v1/{bird.song}")
    await consumer.get(f"/v1/models/{bird.song}")
    await consumer.get(f"/v1/payments/usage?page_token={bird.song}&limit={bird.song}")
    await Consumer(mesh, f"sk-db-{bird.song}").post(b"{}")
    await Books(mesh).quiet()
    return bird


async def _sealed(bird: Bird, mesh: Mesh) -> None:
    """Send sealed requests: whole, streamed, refused once opened, replayed, and broken ones."""
    async with httpx.AsyncClient(base_url=mesh.url, timeout=30) as http:
        page = (await http.get("/v1/encryption-key")).json()
        bodies = [(body, status) for body, status in _bodies(bird.song) if len(body) < 10_000]
        for number, (body, status) in enumerate(bodies[:4] + bodies[6:9]):
            call = SealedCall(page, mesh.api_key, body, media_type=(FRAMED, PLAIN)[number % 2])
            answer = await call.post(http)
            assert answer.status_code == status, (number, answer.text[:300])
            streams = b'"stream": true' in body
            opened = b"\n\n".join(call.events(answer)) if streams else call.whole(answer)
            assert bird.song.encode() in opened or status != 200
            bird.bodies += [body, opened]
            assert (await call.post(http)).status_code == 400
        bare = {**call.headers, "content-type": FRAMED}
        for broken in (bodies[0][0], json.dumps({**call.envelope, "kid": bird.song}).encode()):
            answer = await http.post(CHAT, content=broken, headers=bare)
            assert answer.status_code == 400


def _bodies(song: str) -> Iterator[tuple[bytes, int]]:
    """Give every kind of body with the song in it, and the status that it gets."""
    tool = {
        "type": "function",
        "function": {
            "name": "look",
            "description": song,
            "parameters": {"type": "object", "properties": {song: {"type": "string"}}},
        },
    }

    def chat(script: dict[str, Any], **more: Any) -> bytes:
        turns = [
            {"role": "system", "content": f"remember {song}"},
            {"role": "user", "content": f"/script {json.dumps(script)}"},
        ]
        return json.dumps({"model": SCRIPTED, "messages": turns, **more}).encode()

    said = {"text": f"you said {song} to me", "reasoning": f"hm, {song}"}
    called = {**said, "tool_calls": [{"name": "look", "arguments": {"for": song}}]}
    yield chat(called, tools=[tool]), 200
    yield chat(called, tools=[tool], stream=True), 200
    yield chat(said, stop=[song]), 200
    yield chat({"json": {song: song}}, response_format={"type": "json_object"}), 200
    yield chat({"text": f"{song} " * 20_000, "delta_tokens": 500}), 200
    yield chat({**said, "fail_before_content": True}), 502
    yield chat({**said, "fail_after_deltas": 3, "interval_s": 0.1}, stream=True), 200
    yield json.dumps({"model": "gpt", "messages": song}).encode(), 400
    yield json.dumps({"model": song, "messages": [{"role": "user", "content": "a"}]}).encode(), 404
    yield b'{"model": "x", "messages": [{"role": "user", "content": "' + song.encode(), 400
    yield chat(said, temperature=song), 400
    yield chat(said, response_format={"type": song}), 400
    yield chat(said, n=99), 400
    yield b'{"a": "' + song.encode() * 500_000 + b'"}', 413
    yield chat({**said, "inflate_tokens": 100_000}), 502


async def test_the_search_finds_what_is_there(cage: tuple[Mesh, Collector], bird: Bird) -> None:
    """Otherwise silence would prove nothing."""
    mesh, collector = cage

    async def traced() -> bool:
        return len({span.room for span in collector.of_trace(bird.trace_id)}) > 1

    await until(traced, "spans of the requests have arrived")
    files = places.files_of(mesh.state.root)
    assert places.holding(files, [mesh.mesh_token.reveal().encode()]) == ["keys/mesh-token"]
    provider_id = mesh.ready("provider")["provider_id"].encode()
    assert "logs/router.jsonl" in places.holding(files, [provider_id])
    assert [f"logs/{room}.jsonl" for room in sorted(places.ROOMS)] == places.holding(
        files, [b'"msg": "serving"']
    )

    job_ids = [job.encode() for job in bird.job_ids if job]
    assert "table billing.usage" in places.holding(places.rows_of(mesh), job_ids)
    assert places.keys_of(mesh)
    assert places.holding(await places.metrics(mesh), [b"darkbloom_requests_received_total"])


async def test_the_canary_is_in_no_log_no_file_and_no_page_of_the_stores(
    cage: tuple[Mesh, Collector], bird: Bird
) -> None:
    mesh, _ = cage
    assert places.holding(places.files_of(mesh.state.root), bird.needles) == []


async def test_the_canary_is_in_no_row_and_no_key(cage: tuple[Mesh, Collector], bird: Bird) -> None:
    mesh, _ = cage
    assert places.holding(places.rows_of(mesh), bird.needles) == []
    assert places.holding(places.keys_of(mesh), bird.needles) == []


async def test_the_canary_is_in_no_metric_and_no_trace(
    cage: tuple[Mesh, Collector], bird: Bird
) -> None:
    mesh, collector = cage
    assert places.holding(await places.metrics(mesh), bird.needles) == []
    bodies = {f"trace {number}": body for number, body in enumerate(list(collector.bodies))}
    assert bodies
    assert places.holding(bodies, bird.needles) == []
    assert not [span for span in collector.spans if "provider" in span.room]
    said = {key for span in collector.spans for key in span.attributes}
    assert said <= set(SPAN_ATTRIBUTES)


async def test_no_request_made_a_label_that_its_list_does_not_have(
    cage: tuple[Mesh, Collector], bird: Bird
) -> None:
    mesh, _ = cage
    folded = re.compile(rb"^darkbloom_labels_folded_total\{[^\n]*", re.MULTILINE)
    pages = await places.metrics(mesh)
    found = {name: folded.findall(page) for name, page in pages.items()}
    assert {name: lines for name, lines in found.items() if lines} == {}


async def test_here_a_process_that_aborts_would_leave_a_core_file(
    core_files_wanted: Path,
) -> None:
    """The proof that the next test could fail."""
    program = f"import os; x = {secrets.token_hex(8)!r}; os.abort()"
    child = Child.start(
        Command(
            name="aborts",
            argv=[sys.executable, "-c", program],
            env={},
            log=core_files_wanted / "log",
        )
    )
    assert await asyncio.to_thread(child.wait, 30) == -signal.SIGABRT
    child.kill()
    if not _cores(core_files_wanted):
        pytest.skip("this kernel sends core files elsewhere")
    _clear(core_files_wanted)


async def test_a_crash_in_the_middle_of_a_request_leaves_no_core_file(
    cage: tuple[Mesh, Collector], bird: Bird, core_files_wanted: Path
) -> None:
    mesh, _ = cage
    for name in ABORTED:
        assert _core_limits(mesh.pids[name]) in (None, ["0", "0"]), name
        async with Consumer(mesh).streaming(text=f"{bird.song} " * 500, interval_s=0.02) as reading:
            await reading.words(3)
            pid = mesh.pids[name]
            os.kill(pid, signal.SIGABRT)

            async def over(pid: int = pid) -> bool:
                return _ended(pid)

            await until(over, f"{name} is gone")
        mesh.kill(name)
        await mesh.restart(name)
        await Fleet(mesh).wait_routable()

    assert _cores(core_files_wanted) == []
    assert places.holding(places.files_of(mesh.state.root), bird.needles) == []
    await Books(mesh).clean()


def _ended(pid: int) -> bool:
    """Say whether a child has ended; we have not waited for it yet."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _core_limits(pid: int) -> list[str] | None:
    """Return soft and hard limit of a process's core file; None where the system does not tell."""
    try:
        rows = Path(f"/proc/{pid}/limits").read_text().splitlines()
    except FileNotFoundError:
        return None
    (row,) = [row for row in rows if row.startswith("Max core file size")]
    return row.split()[4:6]


def _cores(directory: Path) -> list[Path]:
    return list(directory.glob("core*"))


def _clear(directory: Path) -> None:
    for core in _cores(directory):
        core.unlink()


async def test_digests_in_receipts_mean_nothing_without_their_key(
    cage: tuple[Mesh, Collector], bird: Bird
) -> None:
    mesh, _ = cage
    answer = (await Consumer(mesh).ask(text=bird.song)).json()
    rows = places.rows_of(mesh)
    plain = hashlib.sha256(bird.song.encode()).hexdigest()
    assert places.holding(rows, [plain.encode(), answer["receipt"]["receipt_key"].encode()]) == []


async def test_a_request_reaches_the_consumer_with_its_song(
    cage: tuple[Mesh, Collector], bird: Bird
) -> None:
    """The canary did sing: it was in the answers."""
    mesh, _ = cage
    async with httpx.AsyncClient(timeout=30) as http:
        answer = await http.post(
            f"{mesh.url}/v1/chat/completions",
            headers={"authorization": f"Bearer {mesh.api_key}"},
            content=bird.bodies[0],
        )
    assert bird.song in answer.text
