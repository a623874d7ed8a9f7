"""`darkbloom-publish`, from a folder of weights to a name that is rolled out."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from darkbloom.registry.v1 import registry_service_pb2 as pb
from darkbloom_edge.manifest import parse_manifest
from darkbloom_mesh.testing import FakeClock
from darkbloom_registry.changes import Scope
from darkbloom_registry.cli.main import cli
from darkbloom_registry.store import PostgresStore
from structlog.testing import capture_logs
from typer.testing import CliRunner

from tests.component.registry.harness import publishing_key, served

BUILD = "org/model"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    folder = tmp_path / "weights"
    (folder / "deep").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "config.json").write_bytes(b"{}")
    (folder / "deep" / "tokenizer.json").write_bytes(b"{}")
    (folder / "README.md").write_text("nobody checks this")
    (folder / ".cache.json").write_text("hidden")
    return folder


def publish(*arguments: object, code: int = 0, **environment: str) -> str:
    result = CliRunner().invoke(cli, [str(one) for one in arguments], env=environment)
    assert result.exit_code == code, (result.output, result.exception)
    return result.output if code else result.stdout


def hashed(weights: Path, version: str = "v1") -> Path:
    out = weights.parent / f"{version}.json"
    publish("hash", weights, "--id", BUILD, "--version", version, "-o", out)
    return out


def test_a_snapshot_is_hashed_into_a_manifest_of_what_is_checked(weights: Path) -> None:
    manifest = parse_manifest(hashed(weights).read_bytes())
    assert [file.path for file in manifest.files] == [
        "config.json",
        "deep/tokenizer.json",
        "model.safetensors",
    ]
    assert (manifest.model_id, manifest.version) == (BUILD, "v1")


def test_what_is_no_snapshot_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no weights")
    said = publish("hash", tmp_path, "--id", BUILD, "--version", "v1", code=1)
    assert "holds no file of a model" in said
    said = publish("hash", tmp_path, "--id", "../up", "--version", "v1", code=1)
    assert "darkbloom-publish:" in said


def test_an_upload_to_a_folder_has_the_manifest_last_and_never_another_one(
    weights: Path, tmp_path: Path
) -> None:
    manifest, shelf = hashed(weights), tmp_path / "shelf"
    to = ("upload", weights, "--to", f"file://{shelf}", "--manifest", manifest)
    source = publish(*to).strip()
    prefix = parse_manifest(manifest.read_bytes()).r2_prefix
    assert source == f"file://{shelf}/{prefix}"
    assert (shelf / prefix / "model.safetensors").read_bytes() == b"weights"
    assert (shelf / prefix / "manifest.json").read_bytes() == manifest.read_bytes()
    assert not (shelf / prefix / "README.md").exists()
    assert publish(*to).strip() == source

    (weights / "model.safetensors").write_bytes(b"WEIGHTS")
    assert "model.safetensors: not the file that was hashed" in publish(*to, code=1)
    hashed(weights)
    assert "another version of this name is there already" in publish(*to, code=1)
    assert (shelf / prefix / "model.safetensors").read_bytes() == b"weights"
    assert not list(shelf.rglob("*.part"))


def test_who_began_an_upload_first_has_the_place(weights: Path, tmp_path: Path) -> None:
    manifest, shelf = hashed(weights), tmp_path / "shelf"
    to = ("upload", weights, "--to", f"file://{shelf}", "--manifest", manifest)
    place = shelf / parse_manifest(manifest.read_bytes()).r2_prefix
    place.mkdir(parents=True)
    (place / ".reserved").write_text("somebody else's files")

    assert "another version of this name is there already" in publish(*to, code=1)
    assert [file.name for file in place.iterdir()] == [".reserved"]


def test_a_place_older_than_reservations_stays_its_owners(weights: Path, tmp_path: Path) -> None:
    manifest, shelf = hashed(weights), tmp_path / "shelf"
    to = ("upload", weights, "--to", f"file://{shelf}", "--manifest", manifest)
    source = publish(*to).strip()
    mine = manifest.read_bytes()
    place = shelf / parse_manifest(mine).r2_prefix
    (place / ".reserved").unlink()

    (weights / "model.safetensors").write_bytes(b"WEIGHTS")
    hashed(weights)
    assert "another version of this name is there already" in publish(*to, code=1)
    assert not (place / ".reserved").exists()
    (weights / "model.safetensors").write_bytes(b"weights")
    manifest.write_bytes(mine)
    assert publish(*to).strip() == source


@contextmanager
def bucket(unsized: str = "nothing") -> Iterator[tuple[str, dict[str, bytes], list[str]]]:
    """A store that speaks enough of S3: signed PUT, conditional PUT, GET, HEAD.

    Args:
        unsized: End of the names whose size it does not tell.
    """
    held: dict[str, bytes] = {}
    order: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if not self.headers.get("authorization", "").startswith(
                "AWS4-HMAC-SHA256 Credential=me"
            ):
                self._say(403)
            elif self.headers.get("if-none-match") == "*" and self.path in held:
                self._say(412)
            else:
                held[self.path] = body
                order.append(self.path)
                self._say(200)

        def do_GET(self) -> None:
            self._say(200 if self.path in held else 404, held.get(self.path, b""))

        def do_HEAD(self) -> None:
            if self.path.endswith(unsized):
                self.send_response(200)
                self.end_headers()
                return
            self._say(200 if self.path in held else 404, held.get(self.path, b""), head=True)

        def _say(self, status: int, body: bytes = b"", *, head: bool = False) -> None:
            self.send_response(status)
            self.send_header("etag", '"one"')
            self.send_header("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(b"" if head else body)

        def log_message(self, *_: Any) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", held, order
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_an_upload_to_a_store_is_signed_and_conditional(weights: Path) -> None:
    manifest = hashed(weights)
    keys = {"AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "secret"}
    with bucket() as (endpoint, held, order):
        to = ("upload", weights, "--to", "s3://models", "--manifest", manifest)
        at = ("--endpoint", endpoint)
        source = publish(*to, *at, **keys).strip()
        prefix = parse_manifest(manifest.read_bytes()).r2_prefix
        assert source == f"s3://models/{prefix}"
        assert held[f"/models/{prefix}/model.safetensors"] == b"weights"
        assert order[0] == f"/models/{prefix}/.reserved"
        assert order[-1] == f"/models/{prefix}/manifest.json"
        assert len(held) == 5
        publish(*to, *at, **keys)
        wrong = keys | {"AWS_ACCESS_KEY_ID": "you"}
        assert "the store refuses" in publish(*to, *at, code=1, **wrong)

        (weights / "model.safetensors").write_bytes(b"other")
        hashed(weights)
        before = dict(held)
        assert "is there already" in publish(*to, *at, code=1, **keys)
        # Also where nobody reserved the place: it is older than reservations.
        del held[f"/models/{prefix}/.reserved"], before[f"/models/{prefix}/.reserved"]
        assert "is there already" in publish(*to, *at, code=1, **keys)
        assert held == before
    assert "is not set" in publish(*to, *at, code=1, AWS_ACCESS_KEY_ID="")
    assert "--to must be" in publish(*to[:3], "https://host/x", *to[4:], code=1)


@pytest.mark.parametrize("kind", ["s3", "http", "file"])
async def test_a_half_upload_is_not_registered(weights: Path, tmp_path: Path, kind: str) -> None:
    """Each file is looked for first, of its size; where none is told it is counted."""
    manifest = hashed(weights)
    facts = tmp_path / "facts.json"
    facts.write_text("{}")
    prefix = parse_manifest(manifest.read_bytes()).r2_prefix
    with bucket(unsized="config.json") as (endpoint, held, _):
        source = {
            "s3": f"s3://models/{prefix}",
            "http": f"{endpoint}/models/{prefix}",
            "file": f"file://{tmp_path}/models/{prefix}",
        }[kind]

        async def registers(*, there: dict[str, bytes]) -> str:
            held.clear()
            held.update({f"/models/{prefix}/{name}": data for name, data in there.items()})
            for name, data in there.items():
                place = tmp_path / "models" / prefix / name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(data)
            # Nobody listens there: whoever gets so far has found every file.
            at = ("--target", "127.0.0.1:1", "register", facts, "--manifest", manifest)
            more = ("--endpoint", endpoint) if kind == "s3" else ()
            return await asyncio.to_thread(publish, *at, "--source", source, *more, code=1)

        files = {
            "model.safetensors": b"weights",
            "config.json": b"{}",
            "deep/tokenizer.json": b"{}",
        }
        assert "manifest.json: " in await registers(there=files)
        whole = {**files, "manifest.json": manifest.read_bytes()}
        (tmp_path / "models" / prefix / "config.json").unlink(missing_ok=True)
        lacks = {name: data for name, data in whole.items() if name != "config.json"}
        assert "config.json: " in await registers(there=lacks)
        shorter = {**whole, "model.safetensors": b"weight"}
        assert "6 bytes there, 7 in the manifest" in await registers(there=shorter)
        other = {**whole, "manifest.json": b"{}"}
        assert "not the one that is registered" in await registers(there=other)
        assert source not in await registers(there=whole)


@pytest.fixture
def quiet() -> Iterator[None]:
    """Nothing of the registry's log: it would be printed to where a command's thread prints."""
    with capture_logs():
        yield


@pytest.mark.usefixtures("quiet")
async def test_a_model_goes_from_a_folder_to_a_rollout(
    store: PostgresStore, clock: FakeClock, weights: Path, tmp_path: Path
) -> None:
    key_file = tmp_path / "key"
    key_file.write_text(await publishing_key(store, "somebody", *Scope))
    facts = tmp_path / "facts.json"
    described = {
        "id": BUILD,
        "family": "test",
        "architecture": "llama",
        "quantization": "4bit",
        "max_context_length": 1024,
        "max_output_length": 512,
        "min_ram_gb": 64,
        "capabilities": ["chat"],
        "model_type": "text",
    }
    facts.write_text(json.dumps(described))
    manifest = hashed(weights)

    async with served(store, clock) as registry:
        at = ("--target", registry.target, "--key-file", key_file)

        async def run(*arguments: object, code: int = 0) -> str:
            return await asyncio.to_thread(publish, *at, *arguments, code=code)

        registered = json.loads(
            await run(
                "register",
                facts,
                "--manifest",
                manifest,
                "--promote",
                "--source",
                "hf:a/b@" + "0" * 40,
                "--no-check",
            )
        )
        assert registered["build"]["active_version"] == "v1"
        await registry.register("org/before")
        pointed = json.loads(await run("alias", "name", "org/before"))
        assert pointed["alias"]["desired_build"] == "org/before"

        assert pointed["propagation"]["committed"]
        assert not pointed["propagation"]["propagated"]
        assert pointed["propagation"]["generation"] == pointed["generation"]
        for generation in (99, 1):
            confirmed = pb.ConfirmCatalogRequest(
                session=f"s{generation}",
                room="router",
                replica=f"r-{generation}",
                generation=generation,
            )
            await registry.call("ConfirmCatalog", confirmed)

        begun = await run(
            "--wait-s", 0, "rollout", "start", "name", BUILD, "--step", 5, "--step", 100
        )
        assert "step           1/2 (5 %)" in begun
        assert "started by     somebody" in begun
        rollout_id = next(word for word in begun.split() if word.startswith("roll_"))
        assert "not yet at router r-1" in begun
        confirmed.generation = 99
        await registry.call("ConfirmCatalog", confirmed)
        assert "at all 2 replicas" in await run("rollout", "pause", rollout_id)
        assert "running" in await run("rollout", "resume", rollout_id)
        gone = await run("rollout", "revert", rollout_id, "--reason", "it smells")
        assert "reverted" in gone
        shown = json.loads(await run("rollout", "show", rollout_id, "--json"))
        assert (shown["state"], shown["reason"]) == ("ROLLOUT_STATE_REVERTED", "it smells")
        assert "it smells" in await run("rollout", "list")
        assert "no such rollout" in await run("rollout", "show", "roll_none", code=1)
        left = json.loads(await run("status", BUILD, "deprecated"))
        assert left["build"]["status"] == "BUILD_STATUS_DEPRECATED"
        changes = json.loads(await run("changes"))["changes"]
        assert [row["action"] for row in changes[:3]] == ["status", "rollout", "rollout"]
        assert json.loads(await run("states"))["states"] == []
        assert "active version is not retired" in await run("retire", BUILD, "v1", code=1)


@pytest.mark.usefixtures("quiet")
async def test_what_is_published_is_looked_at_and_changed(
    store: PostgresStore, clock: FakeClock
) -> None:
    async with served(store, clock) as registry:

        async def run(*arguments: object, code: int = 0) -> str:
            at = ("--target", registry.target)
            return await asyncio.to_thread(publish, *at, *arguments, code=code)

        weight_hash = (await registry.register(BUILD)).build.weight_hash
        await registry.register("org/next")
        await registry.alias("name", BUILD)
        start = ("rollout", "start", "name", "org/next", "--step", 5, "--step", 100)
        assert "nobody follows" in await run(*start)
        held = pb.BuildHolding(build=BUILD, wished=2, holding=1, current=1, warm=1)
        confirmed = pb.ConfirmCatalogRequest(
            session="s", room="router", replica="r-0", generation=99, holdings=[held]
        )
        await registry.call("ConfirmCatalog", confirmed)
        view = await run("status", BUILD)
        assert "wanted to hold it  2, 1 of them hold the active version" in view
        assert "hold it            1\n" in view
        assert "loadable           proven" in view
        assert "of name at 5 %" in view
        assert json.loads(await run("status", BUILD, "--json"))["now"]["wished"] == 2
        assert json.loads(await run("propagation"))["propagated"]
        assert json.loads(await run("check", BUILD, weight_hash))["accepted"]
        more = ("--capability", "chat", "--capability", "tools", "--marketplace-slug", "a/b")
        said = json.loads(await run("update", BUILD, *more))
        assert said["build"]["capabilities"] == ["chat", "tools"]
        assert "must name some of" in await run("update", BUILD, code=1)
        (moving,) = json.loads(await run("rollout", "list", "--json"))["rollouts"]
        await run("rollout", "revert", moving["rollout_id"])
        assert "which, or --delete" in await run("alias", "name", code=1)
        assert json.loads(await run("alias", "name", "--delete"))["propagation"]["propagated"]
        assert json.loads(await run("aliases"))["aliases"] == []
