"""The client of the page, run by Node, before a gateway that lies: it refuses as Python does."""

import asyncio
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
from darkbloom_edge.delta import Delta
from darkbloom_edge.ids import new_id
from darkbloom_edge.signatures import to_base64
from darkbloom_edge.strict_json import parse_json_object

from tests.fakes.blind_mesh import MODEL, NOW, BlindMesh

JS = Path(str(files("darkbloom_gateway.console").joinpath("static", "js")))
SECRET = "a secret that nobody else may read"
PATIENCE_S = 60
Json = dict[str, Any]
_PAGE = """
const { createRequire } = await import("node:module");
globalThis.self = globalThis;
self.nacl = createRequire(import.meta.url)(new URL("$JS/../vendor/nacl-fast.js").pathname);
globalThis.sessionStorage = { getItem: () => null };
const real = globalThis.fetch;
globalThis.fetch = (path, options) => real("$URL" + path, { ...options, credentials: undefined });
Date.now = () => $NOW;
const { askEndToEnd } = await import("$JS/endtoend.js");
const body = { model: "$MODEL", messages: [{ role: "user", content: "$SECRET" }] };
let text = "";
let error = null;
try {
  await askEndToEnd({ body }, (part) => { text += part.text; });
} catch (found) {
  error = found.message;
}
// Timers that bound an answer are no reason to stay.
process.stdout.write(JSON.stringify([text, error]), () => process.exit(0));
"""
pytestmark = pytest.mark.tool("node")


@pytest.fixture
def mesh() -> BlindMesh:
    return BlindMesh()


async def ask(mesh: BlindMesh) -> tuple[str, str | None]:
    """Ask once; return what was shown, and the error."""

    class Gateway(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            content = self.rfile.read(int(self.headers.get("content-length", 0)))
            status, headers, body = answer(mesh, self.command, self.path, self.headers, content)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = _answer  # noqa: N815 - names of http.server

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Gateway) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            return await run(f"http://127.0.0.1:{server.server_address[1]}")
        finally:
            server.shutdown()
            thread.join()


def answer(
    mesh: BlindMesh, method: str, path: str, headers: Any, content: bytes
) -> tuple[int, dict[str, str], bytes]:
    if path == "/v1/receipts/keys":
        rows = {
            name: [{"key_id": key.key_id, "public_key": to_base64(key.public)}]
            for name, key in (("verdict_keys", mesh.attestation), ("receipt_keys", mesh.gateway))
        }
        return 200, {"content-type": "application/json"}, json.dumps(rows).encode()
    asked = httpx.Request(
        method, "https://mesh.test" + path, headers=dict(headers.items()), content=content
    )
    status, said, pieces = mesh.respond(asked)
    return status, said, b"".join(pieces)


async def run(url: str) -> tuple[str, str | None]:
    code = _PAGE
    for name, value in {
        "$JS": JS.as_uri(),
        "$URL": url,
        "$NOW": str(int(NOW.timestamp() * 1000)),
        "$MODEL": MODEL,
        "$SECRET": SECRET,
    }.items():
        code = code.replace(name, value)
    pipe = asyncio.subprocess.PIPE
    node = await asyncio.create_subprocess_exec(
        "node", "--input-type=module", "-e", code, stdout=pipe, stderr=pipe
    )
    async with asyncio.timeout(PATIENCE_S):
        out, wrong = await node.communicate()
    assert node.returncode == 0, wrong.decode()
    text, error = json.loads(out)
    return text, error


def asked_for(mesh: BlindMesh) -> list[Json]:
    return [parse_json_object(b, max_bytes=1 << 20) for b in mesh.bodies if b[:1] == b"{"]


async def test_the_page_reads_a_proven_answer(mesh: BlindMesh) -> None:
    assert await ask(mesh) == ("Hello, world.", None)
    assert SECRET in str(mesh.prompts[-1].messages)
    assert not any(SECRET.encode() in body for body in mesh.bodies)


@pytest.mark.parametrize(
    ("lie", "found"),
    [
        ({"requested_model": "dearer"}, "it is for another model"),
        ({"prompt_bound": 1 << 20}, "it changes the prompt's bound"),
        ({"output_bound": 1 << 20}, "it allows a longer answer"),
        ({"body_bytes": 1}, "it takes fewer bytes"),
    ],
    ids=["model", "prompt", "output", "bytes"],
)
async def test_an_offer_that_is_not_what_was_asked_is_declined_and_another_is_asked_for(
    mesh: BlindMesh, lie: Json, found: str
) -> None:
    mesh.change["offer"] = lambda offer: {**offer, **lie}

    text, error = await ask(mesh)

    assert (text, error) == ("", f"refused before anything was sealed: {found}")
    assert mesh.prompts == []
    assert mesh.declined == list(mesh.offers)
    assert [one["exclude"] for one in asked_for(mesh)] == [[], [mesh.provider_id]]


async def test_a_refused_machine_is_followed_by_another(mesh: BlindMesh) -> None:
    worse = mesh.provider_id

    def once(offer: Json) -> Json:
        mesh.change.clear()
        mesh.provider_id = new_id("prov")
        return {**offer, "verdict_sha256": "0" * 64}

    mesh.change["offer"] = once

    assert await ask(mesh) == ("Hello, world.", None)
    assert len(mesh.declined) == 1
    assert [one["exclude"] for one in asked_for(mesh)] == [[], [worse]]


async def test_an_offer_that_ran_out_is_asked_for_again(mesh: BlindMesh) -> None:
    mesh.refusals = [(410, {}, {"type": "offer_expired"})]

    assert await ask(mesh) == ("Hello, world.", None)
    assert [one["exclude"] for one in asked_for(mesh)] == [[], []]


async def test_more_tokens_than_bytes_are_not_believed(mesh: BlindMesh) -> None:
    mesh.answer = [Delta(text="a")] * 300
    assert (await ask(mesh))[1] is None

    mesh.answer = [Delta()] * 300
    assert (await ask(mesh))[1] == "the machine broke the rules: more tokens than bytes"
