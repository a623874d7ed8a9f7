"""A running shift's models: wishes of the network, fetches of the owner, exchanges of versions."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from darkbloom_edge.manifest import FileRole, ManifestFile, build_manifest, parse_manifest
from darkbloom_edge.signatures import Ed25519Signer
from darkbloom_mesh.clock import SystemClock
from darkbloom_provider import exchange as exchange_module
from darkbloom_provider import stock as stock_module
from darkbloom_provider.engine.errors import load_failed
from darkbloom_provider.engine.interface import Build
from darkbloom_provider.engine.scripted import ScriptedEngine
from darkbloom_provider.exchange import Exchange
from darkbloom_provider.inventory import Inventory
from darkbloom_provider.loads import Loads
from darkbloom_provider.models.download import Downloader
from darkbloom_provider.models.fetching import Fetcher
from darkbloom_provider.models.sources.opening import SourceSettings
from darkbloom_provider.models.store import ModelStore
from darkbloom_provider.stock import Rules, Stock
from darkbloom_provider.wishes import Reason, Tracked, Wish, WishState

from tests.fakes.file_server import FileServer, file_server

SIGNER = Ed25519Signer(bytes(range(32)))


def version(name: str, build: str = "dev/new") -> tuple[bytes, bytes]:
    """Return the manifest and the one file of a scripted build's version."""
    config = json.dumps({"model_type": "scripted", "version": name}).encode()
    entry = ManifestFile(
        path="config.json",
        size_bytes=len(config),
        sha256=hashlib.sha256(config).hexdigest(),
        role=FileRole.CONFIG,
    )
    return build_manifest(build, name, [entry], "2026-01-01T00:00:00Z"), config


class Engine(ScriptedEngine):
    """Refuses to load what it is told to."""

    broken: frozenset[str] = frozenset()

    async def load(self, build: Build) -> None:
        if build.directory.name in self.broken:
            raise load_failed("broken on purpose")
        await super().load(build)


@dataclass
class Machine:
    """A shift without a stream."""

    server: FileServer
    store: ModelStore
    inventory: Inventory
    engine: Engine
    stock: Stock
    loads: Loads
    told: list[Tracked] = field(default_factory=list)
    announced: list[list[str]] = field(default_factory=list)

    def allow(self, **changes: Any) -> None:
        """Change the rules."""
        self.stock._rules = replace(self.stock._rules, **changes)

    def wish_changed(self, tracked: Tracked) -> None:
        self.told.append(tracked)

    def publish(self, name: str, build: str = "dev/new") -> Wish:
        document, config = version(name, build)
        self.server.files[f"/m/{name}/config.json"] = config
        self.server.publish(document, SIGNER, sources=[f"{self.server.url}/m/{name}"])
        found = parse_manifest(document)
        return Wish(build=build, version=name, weight_hash=found.aggregate_sha256)

    def place(self, name: str, build: str = "dev/new") -> None:
        document, config = version(name, build)
        with self.store.staging(build, name) as staging:
            (staging / "config.json").write_bytes(config)
            self.store.publish(staging, document)

    def serving(self, build: str = "dev/new") -> str:
        found = self.inventory.get(build)
        return (
            found.manifest.version if found is not None and build in self.inventory.hosted else ""
        )

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not holds():
                await SystemClock().sleep(0.01)

    async def settled(self) -> Tracked:
        """Return the one wish once nothing more will come of it for now."""
        over = (WishState.DONE, WishState.FAILED, WishState.REFUSED)
        await self.until(lambda: all(one.state in over for one in self.stock.wishes.all()))
        (tracked,) = self.stock.wishes.all()
        return tracked


@pytest_asyncio.fixture
async def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Machine]:
    monkeypatch.setattr(stock_module, "SCAN_S", 0.05)
    monkeypatch.setattr(exchange_module, "IDLE_CHECK_S", 0.01)
    clock, store, inventory = SystemClock(), ModelStore(tmp_path / "store"), Inventory()
    engine = Engine(clock=clock)
    loads = Loads(engine, (), slots=2, clock=clock)
    announced: list[list[str]] = []

    def changed() -> None:
        announced.append([model.weight_hash for model in inventory.models])

    async with file_server() as server:
        stock = Stock(
            store=store,
            inventory=inventory,
            exchange=Exchange(
                store=store,
                inventory=inventory,
                engine=engine,
                loads=loads,
                clock=clock,
                uniform=lambda: 0.0,
                jitter_s=60.0,
                changed=changed,
            ),
            make_fetcher=lambda: Fetcher(
                gateway=server.url,
                keys={SIGNER.key_id: SIGNER.public},
                pins_file=tmp_path / "pins",
                settings=SourceSettings(plain_http=True),
            ),
            downloader=Downloader(store=store, clock=clock, uniform=lambda: 0.0, parallel=1),
            rules=Rules(
                prefetch=True,
                serves=lambda build: build.startswith("dev/"),
                fits=lambda _size: True,
                capabilities={"a"},
            ),
            clock=clock,
        )
        made = Machine(server, store, inventory, engine, stock, loads, announced=announced)
        stock.listener = made
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(engine.run()), tasks.create_task(stock.run())]
            yield made
            for task in running:
                task.cancel()
        inventory.release()
        await engine.close()


async def test_a_wish_is_downloaded_loaded_and_announced(machine: Machine) -> None:
    wish = machine.publish("v1")
    machine.stock.desire([wish], 1)

    assert (await machine.settled()).state is WishState.DONE
    assert machine.serving() == "v1"
    assert machine.loads.warm("dev/new")
    assert machine.announced == [[wish.weight_hash]]
    assert [one.state for one in machine.told][-1] is WishState.DONE
    assert WishState.DOWNLOADING in {one.state for one in machine.told}
    assert machine.store.selected("dev/new") == "v1"
    assert machine.store.in_use("dev/new", "v1")


async def test_a_new_version_takes_the_place_of_the_old_one(machine: Machine) -> None:
    old = machine.publish("v1")
    machine.stock.desire([old], 1)
    await machine.settled()

    new = machine.publish("v2")
    machine.stock.desire([new], 2)

    assert (await machine.settled()).state is WishState.DONE
    assert machine.serving() == "v2"
    # Between the two the network is told that nothing is served.
    assert machine.announced == [[old.weight_hash], [], [new.weight_hash]]
    assert machine.loads.warm("dev/new")
    assert not machine.store.in_use("dev/new", "v1")
    assert [one.manifest.version for one in machine.store.served()] == ["v2"]


async def test_a_version_that_does_not_load_leaves_the_old_one_serving(machine: Machine) -> None:
    machine.stock.desire([machine.publish("v1")], 1)
    await machine.settled()
    machine.engine.broken = frozenset({"v2"})

    machine.stock.desire([machine.publish("v2")], 2)

    tracked = await machine.settled()
    assert (tracked.state, tracked.reason) == (WishState.FAILED, Reason.LOAD_FAILED)
    assert machine.serving() == "v1"
    assert machine.loads.warm("dev/new")
    assert machine.store.selected("dev/new") == "v1"


async def test_a_new_build_that_does_not_load_is_never_offered(machine: Machine) -> None:
    machine.engine.broken = frozenset({"v1"})
    machine.stock.desire([machine.publish("v1")], 1)

    assert (await machine.settled()).reason is Reason.LOAD_FAILED
    assert machine.announced == []
    assert machine.inventory.builds == ()


async def test_a_request_that_runs_ends_before_the_exchange(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nobody() -> None:
        """Take nothing from the store: a try of its own would shut the old version meanwhile."""

    monkeypatch.setattr(machine.stock, "_take_new", nobody)
    machine.stock.desire([machine.publish("v1")], 1)
    await machine.settled()
    monkeypatch.setattr(exchange_module, "IDLE_CHECKS", 3)
    async with machine.loads.held("dev/new"):
        machine.stock.desire([machine.publish("v2")], 2)
        assert (await machine.settled()).reason is Reason.BUSY
        assert machine.serving() == "v1"

    monkeypatch.setattr(exchange_module, "IDLE_CHECKS", 1000)
    machine.stock.desire([machine.publish("v2")], 3)
    assert (await machine.settled()).state is WishState.DONE
    assert machine.serving() == "v2"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("fits", Reason.DOES_NOT_FIT),
        ("capabilities", Reason.CAPABILITY_MISSING),
        ("prefetch", Reason.PREFETCH_OFF),
        ("hash", Reason.CORRUPT),
        ("bytes", Reason.UNREACHABLE),
        ("altered", Reason.CORRUPT),
        ("signature", Reason.UNTRUSTED_MANIFEST),
        ("catalog", Reason.NOT_IN_CATALOG),
        ("gateway", Reason.UNREACHABLE),
    ],
)
async def test_each_refusal_has_its_word(machine: Machine, fault: str, reason: Reason) -> None:
    wish = machine.publish("v1")
    if fault == "fits":
        machine.allow(fits=lambda _size: False)
    elif fault == "prefetch":
        machine.allow(prefetch=False)
    elif fault == "capabilities":
        entry = json.loads(machine.server.files["/v1/models/catalog/dev/new"])
        entry["required_provider_capabilities"] = ["b"]
        machine.server.files["/v1/models/catalog/dev/new"] = json.dumps(entry).encode()
    elif fault == "hash":
        wish = Wish(build="dev/new", version="v1", weight_hash="0" * 64)
    elif fault == "bytes":
        machine.server.files["/m/v1/config.json"] = b"{}"
    elif fault == "altered":
        altered = machine.server.files["/m/v1/config.json"].swapcase()
        machine.server.files["/m/v1/config.json"] = altered
    elif fault == "signature":
        other = Ed25519Signer(bytes(32))
        machine.server.publish(version("v1")[0], other, sources=[])
    elif fault == "catalog":
        del machine.server.files["/v1/models/catalog/dev/new"]
    else:
        machine.server.statuses["/v1/models/catalog/dev/new"] = [500]

    machine.stock.desire([wish], 1)

    tracked = await machine.settled()
    assert tracked.reason is reason
    assert machine.serving() == ""
    assert machine.told[-1].reason is reason


async def test_what_the_owner_fetches_is_served_without_a_restart(machine: Machine) -> None:
    machine.place("v1")
    await machine.until(lambda: machine.serving() == "v1")

    assert machine.loads.warm("dev/new")
    assert len(machine.announced) == 1


async def test_what_is_in_the_store_is_not_downloaded(machine: Machine) -> None:
    machine.allow(prefetch=False)
    wish = machine.publish("v1")
    machine.place("v1")
    machine.stock.desire([wish], 1)

    assert (await machine.settled()).state is WishState.DONE
    assert machine.server.asked == []


async def test_a_wish_that_was_refused_is_fulfilled_when_the_owner_fetches_it(
    machine: Machine,
) -> None:
    machine.allow(prefetch=False)
    machine.stock.desire([machine.publish("v1")], 1)
    assert (await machine.settled()).reason is Reason.PREFETCH_OFF

    machine.place("v1")

    await machine.until(lambda: machine.stock.wishes.all()[0].state is WishState.DONE)
    assert machine.serving() == "v1"


async def test_a_corrupt_version_in_the_store_is_refused_once(machine: Machine) -> None:
    machine.place("v1")
    target = machine.store.directory("dev/new", "v1")
    size = (target / "config.json").stat().st_size
    (target / "config.json").write_bytes(b" " * size)
    machine.place("v1", "dev/other")

    await machine.until(lambda: machine.serving("dev/other") == "v1")
    assert machine.serving() == ""


async def test_a_download_that_nobody_wants_any_more_is_ended(machine: Machine) -> None:
    wish = machine.publish("v1")
    machine.server.stalls["/m/v1/config.json"] = 0
    machine.stock.desire([wish], 1)
    async with asyncio.timeout(30):
        await machine.server.stalled.wait()

    machine.stock.desire([], 2)
    second = machine.publish("v9", "dev/second")
    machine.stock.desire([second], 3)

    assert (await machine.settled()).state is WishState.DONE
    assert machine.serving("dev/second") == "v9"
    assert machine.serving() == ""


async def test_a_command_of_the_network_fetches_the_active_version(machine: Machine) -> None:
    machine.publish("v1")
    assert machine.stock.command("dev/new")

    assert (await machine.settled()).state is WishState.DONE
    assert machine.serving() == "v1"


async def test_an_exchange_that_has_begun_is_finished_though_nobody_wants_it_any_more(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.stock.desire([machine.publish("v1")], 1)
    await machine.settled()
    monkeypatch.setattr(exchange_module, "IDLE_CHECKS", 100_000)
    async with machine.loads.held("dev/new"):
        machine.stock.desire([machine.publish("v2")], 2)
        await machine.until(lambda: machine.serving() == "")
        machine.stock.desire([], 3)
        await SystemClock().sleep(0.05)

    await machine.until(lambda: machine.serving() == "v2")
    assert machine.loads.warm("dev/new")


async def test_a_store_that_cannot_be_used_ends_nothing(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_arguments: object) -> None:
        raise PermissionError(13, "no")

    monkeypatch.setattr(ModelStore, "publish", broken)
    machine.stock.desire([machine.publish("v1")], 1)
    assert (await machine.settled()).reason is Reason.STORE_UNUSABLE

    monkeypatch.undo()
    machine.stock.desire([machine.publish("v1")], 2)
    await machine.until(lambda: machine.serving() == "v1")
