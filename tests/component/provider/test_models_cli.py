"""`darkbloom models`: what touches the network, and the store, against a real server."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from darkbloom_edge.signatures import Ed25519Signer, to_base64
from darkbloom_mesh.clock import SystemClock
from darkbloom_provider.home import Home
from darkbloom_provider.models.store import ModelStore

from tests.component.provider.test_download import FILES, WEIGHTS, manifest_of
from tests.fakes.file_server import FileServer, file_server

SIGNER = Ed25519Signer(bytes(range(32)))
Command = Callable[..., Any]


@pytest_asyncio.fixture
async def server(home: Home, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FileServer]:
    async with file_server() as running:
        running.files |= {f"/m/{path}": data for path, data in FILES.items()}
        running.publish(manifest_of(), SIGNER, sources=[f"{running.url}/m"])
        monkeypatch.setenv("DARKBLOOM_PROVIDER_GATEWAY", running.url)
        yield running


@pytest.fixture
def run(cli: Command) -> Command:
    """Run a command on a thread, as the server is on this one."""

    async def command(*arguments: str) -> tuple[int, str, str]:
        found: tuple[int, str, str] = await asyncio.to_thread(cli, *arguments)
        return found

    return command


async def test_the_catalog_says_what_fits_and_what_is_here(
    server: FileServer, run: Command
) -> None:
    code, out, err = await run("models", "catalog", "--json")
    assert code == 0, err
    (row,) = json.loads(out)["models"]
    assert (row["id"], row["downloaded"], row["version"]) == ("org/one", "", "v1")
    assert row["needs_ram_gb"] > 0

    assert (await run("models", "download", "org/one", "--force"))[0] == 0
    (row,) = json.loads((await run("models", "catalog", "--json"))[1])["models"]
    assert row["downloaded"] == "active"
    text = (await run("models", "catalog", "--type", "text"))[1]
    assert "org/one" in text
    assert "yes" in text


async def test_a_download_is_verified_selected_and_listed(
    server: FileServer, run: Command, home: Home
) -> None:
    code, out, err = await run("models", "download", "org/one", "--force", "--json")
    assert code == 0, err
    events = [json.loads(line) for line in out.splitlines()]
    assert events[-1]["event"] == "done"
    assert [event["done_bytes"] for event in events[:-1]] == sorted(
        event["done_bytes"] for event in events[:-1]
    )

    store = ModelStore(home.models)
    store.verify(store.get("org/one"))
    assert store.selected("org/one") == "v1"
    assert (await run("models", "list", "--hash", "org/one"))[1].strip() == events[-1][
        "weight_hash"
    ]
    (row,) = json.loads((await run("models", "list", "--json"))[1])
    assert (row["id"], row["in_use"]) == ("org/one", False)
    again = await run("models", "download", "org/one", "--force")
    assert again[0] == 0


async def test_in_a_pipe_there_are_lines_and_no_bars(server: FileServer, run: Command) -> None:
    code, out, err = await run("models", "download", "org/one", "--force")

    assert code == 0
    assert "org/one v1 is in the store" in out
    lines = err.splitlines()
    assert lines[-1].endswith("org/one: 100 %")
    assert lines[0].startswith("trusting manifests of key")
    assert len(lines) <= 13
    assert "\x1b" not in out + err


async def test_the_key_of_the_first_manifest_is_pinned(
    server: FileServer, run: Command, home: Home
) -> None:
    assert (await run("models", "download", "org/one", "--force"))[0] == 0
    other = Ed25519Signer(bytes(32))
    server.publish(manifest_of(version="v2"), other, sources=[f"{server.url}/m"])

    code, _, err = await run("models", "download", "org/one", "--force")

    assert code == 1
    assert "not signed by a key that this machine trusts" in err
    assert str(home.manifest_keys) in err
    home.manifest_keys.unlink()
    assert (await run("models", "download", "org/one", "--force"))[0] == 0


async def test_keys_of_the_configuration_count_and_no_others(
    server: FileServer, run: Command, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = to_base64(Ed25519Signer(bytes(32)).public)
    monkeypatch.setenv("DARKBLOOM_PROVIDER_MANIFEST_KEYS", other)
    assert (await run("models", "download", "org/one", "--force"))[0] == 1

    monkeypatch.setenv("DARKBLOOM_PROVIDER_MANIFEST_KEYS", to_base64(SIGNER.public))
    assert (await run("models", "download", "org/one", "--force"))[0] == 0
    assert not home.manifest_keys.exists()


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        ("unsigned", "does not sign its manifests"),
        ("changed", "not signed by a key"),
        ("older", "names another build or version"),
        ("hashes", "different hashes"),
        ("unknown", "no such model"),
        ("garbled", "is not understood"),
        ("broken", "refused (500)"),
        ("nowhere", "says where org/one is"),
    ],
)
async def test_what_nobody_has_vouched_for_is_not_downloaded(
    server: FileServer, run: Command, home: Home, fault: str, named: str
) -> None:
    path = "/v1/models/catalog/manifest/org/one"
    if fault == "unsigned":
        server.headers[path] = {}
    elif fault == "changed":
        server.files[path] += b" "
    elif fault == "older":
        server.publish(manifest_of(version="v0"), SIGNER, sources=[])
        kept = server.files[path], server.headers[path]
        server.publish(manifest_of(), SIGNER, sources=[])
        server.files[path], server.headers[path] = kept
    elif fault == "hashes":
        entry = json.loads(server.files["/v1/models/catalog/org/one"])
        entry["versions"][0]["identity_sha256"] = "0" * 64
        server.files["/v1/models/catalog/org/one"] = json.dumps(entry).encode()
    elif fault == "unknown":
        del server.files["/v1/models/catalog/org/one"]
    elif fault == "garbled":
        server.files["/v1/models/catalog/org/one"] = b"<html>"
    elif fault == "broken":
        server.statuses["/v1/models/catalog/org/one"] = [500]
    else:
        # Folders are the owner's to name, and plain http leads to this machine only.
        places = ["file:///etc", "http://models.example/x", "s3://bucket/x"]
        server.publish(manifest_of(), SIGNER, sources=places)

    code, _, err = await run("models", "download", "org/one", "--force")

    assert code == 1
    assert named in err
    assert ModelStore(home.models).list() == []


async def test_a_place_and_a_mirror_of_the_owner_are_used(
    server: FileServer, run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.publish(manifest_of(), SIGNER, sources=[])
    share = tmp_path / "share"
    prefix = json.loads(manifest_of())["r2_prefix"]
    for path, data in FILES.items():
        (share / prefix / path).parent.mkdir(parents=True, exist_ok=True)
        (share / prefix / path).write_bytes(data)
    monkeypatch.setenv("DARKBLOOM_PROVIDER_MODEL_MIRRORS", f"file://{share}")
    assert (await run("models", "download", "org/one", "--force"))[0] == 0
    assert (await run("models", "remove", "org/one", "--force"))[0] == 0

    place = f"file://{share}/{prefix}"
    assert (await run("models", "download", "org/one", "--force", "--source", place))[0] == 0
    code, _, err = await run("models", "download", "org/one", "--source", "ftp://x")
    assert (code, "no place of model files" in err) == (1, True)


async def test_what_cannot_fit_is_refused_with_numbers(
    server: FileServer, run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARKBLOOM_PROVIDER_MEMORY_RESERVE_GB", "1000000")
    code, _, err = await run("models", "download", "org/one")

    assert code == 1
    assert "GB of memory" in err
    assert "--force" in err


async def test_without_a_gateway_the_remedy_is_said(cli: Command) -> None:
    code, _, err = await asyncio.to_thread(cli, "models", "catalog")

    assert code == 1
    assert "DARKBLOOM_PROVIDER_GATEWAY" in err


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C reaches children, also where this process was started with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
async def test_a_killed_download_goes_on_where_it_was(
    server: FileServer, home: Home, how: signal.Signals
) -> None:
    server.stalls["/m/model.safetensors"] = 2_500_000
    environment = {
        "PATH": os.environ["PATH"],  # noqa: TID251 - for a real child
        "DARKBLOOM_ENV": "development",
        "DARKBLOOM_PROVIDER_HOME": str(home.root),
        "DARKBLOOM_PROVIDER_GATEWAY": server.url,
    }
    command = [
        sys.executable,
        *("-m", "darkbloom_provider", "models", "download", "org/one", "--force"),
    ]

    async def begin() -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *command,
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    def staged_bytes() -> int:
        return sum(part.stat().st_size for part in home.models.glob("*/.parts-*/*"))

    async with asyncio.timeout(60):
        first = await begin()
        await server.stalled.wait()
        while staged_bytes() < 1 << 20:
            await SystemClock().sleep(0.02)
        first.send_signal(how)
        _, err = await first.communicate()
        assert first.returncode == (-9 if how == signal.SIGKILL else 1)
        if how != signal.SIGKILL:
            assert b"run the same command to go on" in err
        assert ModelStore(home.models).list() == []

        server.stalls.clear()
        server.asked.clear()
        second = await begin()
        out, err = await second.communicate()
    assert second.returncode == 0, err
    assert b"is in the store" in out
    (offset,) = [at for path, at in server.asked if path.endswith("safetensors")]
    assert 1 << 20 <= offset < len(WEIGHTS)
    store = ModelStore(home.models)
    store.verify(store.get("org/one"))
    assert list(home.models.glob("*/.parts-*")) == []


async def test_what_is_served_is_removed_by_force_only(
    server: FileServer, run: Command, home: Home
) -> None:
    assert (await run("models", "download", "org/one", "--force"))[0] == 0
    store = ModelStore(home.models)
    with store.use(store.get("org/one")):
        (row,) = json.loads((await run("models", "list", "--json"))[1])
        assert row["in_use"] is True
        assert "served" in (await run("models", "list", "--all"))[1]
        code, _, err = await run("models", "remove", "org/one")
        assert code == 1
        assert "being served" in err
        code, out, _ = await run("models", "remove", "org/one", "--force", "--json")
    assert (code, json.loads(out)) == (0, {"removed": "org/one", "version": "v1"})
    assert store.list() == []


async def test_a_link_in_the_store_is_not_followed(
    run: Command, home: Home, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    store = ModelStore(home.models)
    target = store.directory("org/one", "v1")
    target.parent.mkdir(parents=True)
    target.symlink_to(outside, target_is_directory=True)

    code, _, err = await run("models", "remove", "org/one", "--version", "v1", "--force")

    assert code == 1
    assert "not in the store" in err
    assert (outside / "precious").exists()


async def test_the_location_is_shown_tried_set_and_reset(
    run: Command, home: Home, tmp_path: Path
) -> None:
    shown = json.loads((await run("models", "location", "--json"))[1])
    assert (shown["path"], shown["source"]) == (str(home.models), "default")
    assert shown["free_bytes"] > 0

    disk = tmp_path / "disk" / "models"
    tried = await run("models", "location", str(disk), "--check", "--json")
    assert tried[0] == 0
    assert json.loads(tried[1])["ok"] is True
    assert not disk.exists()
    assert json.loads((await run("models", "location", "--json"))[1])["path"] == str(home.models)

    assert (await run("models", "location", str(disk)))[0] == 0
    moved = json.loads((await run("models", "location", "--json"))[1])
    assert (moved["path"], moved["source"]) == (str(disk), "file")

    (tmp_path / "file").write_text("x")
    assert (await run("models", "location", str(tmp_path / "file"), "--check"))[0] == 1
    assert (await run("models", "location", str(tmp_path / "file")))[0] == 1
    assert (await run("models", "location", "--reset"))[0] == 0
    assert json.loads((await run("models", "location", "--json"))[1])["path"] == str(home.models)
    assert (await run("models", "location", "x", "--reset"))[0] == 64
