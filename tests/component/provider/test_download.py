"""Downloads from real servers that cut, lie, change and stall."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
import pytest_asyncio
from darkbloom_edge.manifest import (
    FileRole,
    ManifestFile,
    build_manifest,
    parse_manifest,
    role_of,
)
from darkbloom_edge.model_source import parse_source
from darkbloom_mesh.clock import SystemClock
from darkbloom_mesh.testing import FakeClock
from darkbloom_provider.models import store as store_module
from darkbloom_provider.models.download import Downloader, Progress
from darkbloom_provider.models.errors import (
    DiskFullError,
    ManifestError,
    ModelBusyError,
)
from darkbloom_provider.models.sources.interface import AlteredError, RefusedError, SourceError
from darkbloom_provider.models.sources.opening import SourceSettings, open_source
from darkbloom_provider.models.sources.s3 import S3Access
from darkbloom_provider.models.store import ModelStore, StoredModel

from tests.fakes.file_server import FileServer, file_server

WEIGHTS = b"".join(hashlib.sha256(bytes([n % 251])).digest() * 64 for n in range(1500))
FILES = {"config.json": b"{}", "sub/tokenizer.json": b'{"a":1}', "model.safetensors": WEIGHTS}
PLAIN = SourceSettings(plain_http=True)
COMMIT = "a" * 40


def manifest_of(
    files: Mapping[str, bytes] = FILES, version: str = "v1", model_id: str = "org/one"
) -> bytes:
    entries = [
        ManifestFile(
            path=path,
            size_bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            role=role_of(path) or FileRole.OTHER,
        )
        for path, data in files.items()
    ]
    return build_manifest(model_id, version, entries, "2026-01-01T00:00:00Z")


@pytest_asyncio.fixture
async def server() -> AsyncIterator[FileServer]:
    async with file_server() as running:
        running.files |= {f"/m/{path}": data for path, data in FILES.items()}
        yield running


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "store")


class Fetch:
    """Downloads into one store, waiting next to nothing."""

    def __init__(self, store: ModelStore) -> None:
        self.store = store
        self.seen: list[Progress] = []

    async def __call__(
        self, *places: str, document: bytes | None = None, settings: SourceSettings = PLAIN
    ) -> StoredModel:
        data = manifest_of() if document is None else document
        downloader = Downloader(store=self.store, clock=SystemClock(), uniform=lambda: 0.001)
        sources = [open_source(parse_source(text, plain_http=True), settings) for text in places]
        try:
            async with asyncio.timeout(60):
                return await downloader.fetch(parse_manifest(data), data, sources, self.seen.append)
        finally:
            for source in sources:
                await source.close()


@pytest.fixture
def fetch(store: ModelStore) -> Fetch:
    return Fetch(store)


def hidden(store: ModelStore) -> list[str]:
    """What of a download is left beside the versions."""
    return sorted(
        entry.name
        for build in store.root.iterdir()
        for entry in build.iterdir()
        if entry.name.startswith((".staging", ".parts"))
    )


async def test_a_version_is_fetched_whole_and_verifies(server: FileServer, fetch: Fetch) -> None:
    stored = await fetch(f"{server.url}/m")

    fetch.store.verify(stored)
    assert (stored.directory / "model.safetensors").read_bytes() == WEIGHTS
    assert hidden(fetch.store) == []
    assert {one.path: one.done_bytes for one in fetch.seen} == {
        path: len(data) for path, data in FILES.items()
    }


async def test_what_is_there_is_not_fetched_again(server: FileServer, fetch: Fetch) -> None:
    await fetch(f"{server.url}/m")
    server.asked.clear()

    await fetch(f"{server.url}/m")

    assert server.asked == []


async def test_a_cut_connection_is_resumed_where_it_broke(server: FileServer, fetch: Fetch) -> None:
    server.cuts["/m/model.safetensors"] = [2_000_000, 500_000]

    fetch.store.verify(await fetch(f"{server.url}/m"))

    offsets = [offset for path, offset in server.asked if path == "/m/model.safetensors"]
    assert offsets == [0, 2_000_000, 2_500_000]


async def test_a_server_without_ranges_is_read_from_the_beginning(
    server: FileServer, fetch: Fetch
) -> None:
    server.cuts["/m/model.safetensors"] = [2_000_000]
    server.ranges = False

    fetch.store.verify(await fetch(f"{server.url}/m"))


async def test_a_download_that_failed_goes_on_with_the_next_call(
    server: FileServer, fetch: Fetch
) -> None:
    server.cuts["/m/model.safetensors"] = [1_500_000, *[0] * 4]
    with pytest.raises(SourceError):
        await fetch(f"{server.url}/m")
    assert len(hidden(fetch.store)) == 2
    assert fetch.store.list() == []
    server.asked.clear()

    fetch.store.verify(await fetch(f"{server.url}/m"))

    assert server.asked == [("/m/model.safetensors", 1_500_000)]
    assert hidden(fetch.store) == []


async def test_a_file_that_changed_between_attempts_is_read_anew(
    server: FileServer, fetch: Fetch
) -> None:
    right = server.files["/m/model.safetensors"]
    server.files["/m/model.safetensors"] = bytes(len(right))
    server.cuts["/m/model.safetensors"] = [1_500_000, *[0] * 4]
    with pytest.raises(SourceError):
        await fetch(f"{server.url}/m")
    server.files["/m/model.safetensors"] = right

    fetch.store.verify(await fetch(f"{server.url}/m"))


@pytest.mark.parametrize("fault", ["wrong", "longer", "shorter", "missing", "denied", "busy"])
async def test_what_is_not_the_file_is_never_published(
    server: FileServer, fetch: Fetch, fault: str
) -> None:
    path = "/m/model.safetensors"
    if fault == "wrong":
        server.files[path] = WEIGHTS[:-1] + bytes([WEIGHTS[-1] ^ 1])
    elif fault == "longer":
        server.files[path] = WEIGHTS + b"x"
    elif fault == "shorter":
        server.files[path] = WEIGHTS[:-1]
    elif fault == "missing":
        del server.files[path]
    elif fault == "denied":
        server.admit = lambda asked, _headers: asked != path
    else:
        server.statuses[path] = [503] * 10

    with pytest.raises(SourceError) as caught:
        await fetch(f"{server.url}/m")

    assert server.url in str(caught.value)
    assert isinstance(caught.value, AlteredError) == (fault in {"wrong", "longer"})
    assert fetch.store.list() == []


async def test_the_next_place_is_asked_where_one_lies(server: FileServer, fetch: Fetch) -> None:
    server.files |= {f"/bad/{path}": data[::-1] for path, data in FILES.items()}

    stored = await fetch(f"{server.url}/bad", f"{server.url}/m")

    fetch.store.verify(stored)


async def test_a_server_that_says_nothing_more_is_given_up(
    server: FileServer, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    from darkbloom_provider.models.sources import http

    monkeypatch.setattr(http, "SILENCE_S", 0.2)
    server.stalls["/m/model.safetensors"] = 0

    with pytest.raises(SourceError, match="ReadTimeout"):
        await fetch(f"{server.url}/m")


async def test_a_trickle_is_no_download() -> None:
    from darkbloom_provider.models.download import PACE_S, _Pace

    clock = FakeClock()
    pace = _Pace(clock)
    await clock.advance(PACE_S)
    pace.count(1 << 20, "here")
    await clock.advance(PACE_S)
    with pytest.raises(SourceError, match="too slow"):
        pace.count(100, "here")


async def test_redirects_are_followed_to_allowed_places_only(
    server: FileServer, fetch: Fetch
) -> None:
    for path in FILES:
        server.redirects[f"/r/{path}"] = f"/m/{path}"
        server.redirects[f"/out/{path}"] = "http://models.example/x"
        server.redirects[f"/file/{path}"] = "file:///etc/hostname"
        server.redirects[f"/loop/{path}"] = f"/loop/{path}"
        server.redirects[f"/name/{path}"] = "https://xn--a/x"
        server.redirects[f"/port/{path}"] = "http://127.0.0.1:99999/x"

    for wrong, named in (
        *(("out", "not https"), ("file", "not https"), ("loop", "circles")),
        *(("name", "no address"), ("port", "no address")),
    ):
        with pytest.raises(RefusedError, match=named):
            await fetch(f"{server.url}/{wrong}")
    # The next place is asked.
    fetch.store.verify(await fetch(f"{server.url}/name", f"{server.url}/r"))


async def test_a_hub_repository_is_read_at_its_commit(server: FileServer, fetch: Fetch) -> None:
    server.files = {f"/org/name/resolve/{COMMIT}/{p}": data for p, data in FILES.items()}

    settings = SourceSettings(hub=server.url, plain_http=True)
    fetch.store.verify(await fetch(f"hf:org/name@{COMMIT}", settings=settings))


async def test_an_s3_store_is_read_with_signed_requests_and_resumed(
    server: FileServer, fetch: Fetch
) -> None:
    server.files = {f"/bucket/a/{path}": data for path, data in FILES.items()}
    server.admit = lambda _path, headers: headers.get("authorization", "").startswith(
        "AWS4-HMAC-SHA256 Credential=id/"
    )
    server.cuts["/bucket/a/model.safetensors"] = [1_500_000]
    access = S3Access(endpoint=server.url, key_id="id", secret="secret")
    settings = SourceSettings(s3=access, plain_http=True)

    fetch.store.verify(await fetch("s3://bucket/a", settings=settings))

    offsets = [at for path, at in server.asked if path.endswith("safetensors")]
    assert len(offsets) == 2
    assert 1_000_000 < offsets[1] <= 1_500_000
    assert "secret" not in repr(access)


async def test_an_s3_store_that_refuses_is_named(server: FileServer, fetch: Fetch) -> None:
    server.files = {f"/bucket/a/{path}": data for path, data in FILES.items()}
    server.admit = lambda _path, headers: "authorization" in headers
    settings = SourceSettings(s3=S3Access(endpoint=server.url), plain_http=True)

    with pytest.raises(RefusedError, match="s3://bucket/a refuses"):
        await fetch("s3://bucket/a", settings=settings)


async def test_a_folder_is_read_but_its_links_are_not(fetch: Fetch, tmp_path: Path) -> None:
    folder = tmp_path / "share"
    for path, data in FILES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    (folder / "model.safetensors").rename(tmp_path / "elsewhere")
    (folder / "model.safetensors").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RefusedError):
        await fetch(f"file://{folder}")

    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")
    with pytest.raises(RefusedError, match="plain file"):
        await fetch(f"file://{folder}")

    (folder / "model.safetensors").unlink()
    (tmp_path / "elsewhere").rename(folder / "model.safetensors")
    fetch.store.verify(await fetch(f"file://{folder}"))


async def test_equal_files_of_another_version_are_linked_not_fetched(
    server: FileServer, fetch: Fetch
) -> None:
    first = await fetch(f"{server.url}/m")
    server.files["/n/config.json"] = b'{"new":1}'
    server.asked.clear()

    document = manifest_of(FILES | {"config.json": b'{"new":1}'}, version="v2")
    second = await fetch(f"{server.url}/n", document=document)

    assert server.asked == [("/n/config.json", 0)]
    fetch.store.verify(second)
    name = "model.safetensors"
    assert (first.directory / name).samefile(second.directory / name)
    fetch.store.remove("org/one", "v1")
    fetch.store.verify(second)


async def test_a_file_that_has_rotted_is_not_reused(server: FileServer, fetch: Fetch) -> None:
    first = await fetch(f"{server.url}/m")
    weights = first.directory / "model.safetensors"
    weights.write_bytes(bytes(len(WEIGHTS)))

    stored = await fetch(f"{server.url}/m", document=manifest_of(version="v2"))

    fetch.store.verify(stored)


async def test_a_full_disk_is_said_before_anything_is_fetched(
    server: FileServer, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "DISK_MARGIN_BYTES", 1 << 60)

    with pytest.raises(DiskFullError):
        await fetch(f"{server.url}/m")

    assert server.asked == []


async def test_a_file_cannot_also_be_a_folder(server: FileServer, fetch: Fetch) -> None:
    files = {"a": b"1", "a/b": b"2", "model.safetensors": b"3"}
    server.files = {f"/m/{path}": data for path, data in files.items()}

    with pytest.raises(ManifestError, match="also a folder"):
        await fetch(f"{server.url}/m", document=manifest_of(files))


async def test_a_cancelled_download_keeps_what_has_come(server: FileServer, fetch: Fetch) -> None:
    server.stalls["/m/model.safetensors"] = 2_500_000
    running = asyncio.create_task(fetch(f"{server.url}/m"))
    async with asyncio.timeout(30):
        await server.stalled.wait()
        while not any(one.done_bytes >= 1 << 20 for one in fetch.seen):
            await asyncio.wait([running], timeout=0.01)

    with pytest.raises(ModelBusyError):
        await Fetch(fetch.store)(f"{server.url}/m")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    server.stalls.clear()
    server.asked.clear()

    fetch.store.verify(await fetch(f"{server.url}/m"))
    (offset,) = [at for path, at in server.asked if path.endswith("safetensors")]
    assert offset >= 1 << 20


async def test_half_a_download_of_another_manifest_is_thrown_away(
    server: FileServer, fetch: Fetch
) -> None:
    server.cuts["/m/model.safetensors"] = [1_500_000, *[0] * 4]
    with pytest.raises(SourceError):
        await fetch(f"{server.url}/m")
    server.files["/m/config.json"] = b'{"other":1}'

    document = manifest_of(FILES | {"config.json": b'{"other":1}'})
    fetch.store.verify(await fetch(f"{server.url}/m", document=document))

    assert hidden(fetch.store) == []
