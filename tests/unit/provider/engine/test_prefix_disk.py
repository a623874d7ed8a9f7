"""The SSD tier with blocks of plain bytes: what is found again, and what is never believed."""

import asyncio
import dataclasses
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from darkbloom_mesh.testing import FakeClock
from darkbloom_provider.engine.prefix import disk as disk_module
from darkbloom_provider.engine.prefix.allowance import DAY_S, FULL_DISK_PAUSE_S, Allowance
from darkbloom_provider.engine.prefix.block_file import (
    MAX_CHUNK_BYTES,
    BadBlockError,
    open_block,
    seal,
)
from darkbloom_provider.engine.prefix.cache import Prefix, PrefixCache
from darkbloom_provider.engine.prefix.codec import Lowered
from darkbloom_provider.engine.prefix.disk import ORPHAN_S, SUFFIX, SsdTier
from darkbloom_provider.engine.prefix.epoch import SCHEMA
from darkbloom_provider.engine.prefix.files import SCRATCH
from darkbloom_provider.engine.prefix.keys import CacheKeys, FileVault
from darkbloom_provider.engine.prefix.limits import DiskLimits, limits_of

ROOT = bytes(range(32))
WEIGHTS = "ab" * 32
BUILD = "org/model"
IDENTITY = {"library": "1.0"}
TOKENS = list(range(100, 117))
SECRET = b"what the prompt became"


@dataclasses.dataclass(frozen=True)
class Bytes:
    content: bytes

    @property
    def nbytes(self) -> int:
        return len(self.content)


class Plain:
    """A codec that has nothing to do."""

    def lower(self, block):
        return Lowered({"kind": "plain"}, [memoryview(block.content)])

    def lift(self, facts, content):
        assert facts["kind"] == "plain"
        return Bytes(content)


LIMITS = DiskLimits(floor_tokens=4, min_free_bytes=0, budget_bytes=1 << 20)


class Machine:
    """A disk and a clock that outlive the processes on them."""

    def __init__(self, root: Path) -> None:
        self.root, self.clock = root, FakeClock()
        self.free: int | None = 1 << 40
        self.tiers: list[SsdTier] = []

    def start(
        self, *, key=ROOT, identity=None, build=BUILD, **limits
    ) -> tuple[PrefixCache, SsdTier]:
        tier = SsdTier(
            self.root,
            CacheKeys(key),
            Plain(),
            self.clock,
            limits=dataclasses.replace(LIMITS, **limits),
            free_bytes=lambda: self.free,
        )
        self.tiers.append(tier)
        cache = PrefixCache(0, block_tokens=4, disk=tier, identity=identity or IDENTITY)
        cache.enter(build, WEIGHTS)
        return cache, tier

    def files(self) -> list[Path]:
        return sorted(self.root.glob(f"*/*{SUFFIX}"))


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    found = Machine(tmp_path / "kv3")
    yield found
    for tier in found.tiers:
        tier.close()


def planned(cache: PrefixCache, tokens=TOKENS, scope=b"a" * 32) -> Prefix:
    prefix = cache.plan(scope, WEIGHTS, tokens)
    assert prefix is not None
    return prefix


def blocks(count=4, mark=b"") -> list[Bytes]:
    return [Bytes(SECRET + mark + bytes([index]) * 50) for index in range(count)]


async def fill(machine: Machine, **how) -> tuple[PrefixCache, SsdTier]:
    cache, tier = machine.start(**how)
    cache.keep(planned(cache), 0, blocks())
    tier.settle()
    return cache, tier


async def found(cache: PrefixCache, **how) -> int:
    return len((await cache.stage(planned(cache, **how))).staged)


async def test_a_new_process_finds_what_the_old_one_wrote(machine):
    _, first = await fill(machine)
    assert (first.counts.written, len(first)) == (4, 4)
    first.close()
    cache, second = machine.start()
    staged = await cache.stage(planned(cache))
    assert list(staged.staged) == blocks()
    assert cache.find(staged, 4).tokens == 16
    assert second.counts.read == 4
    assert second.counts.bad == 0


async def test_another_scope_finds_nothing_and_touches_no_file(machine):
    cache, tier = await fill(machine)
    assert await found(cache, scope=b"b" * 32) == 0
    assert tier.counts.read == 0


async def test_what_is_there_is_not_written_again(machine):
    cache, tier = await fill(machine)
    assert cache.missing(planned(cache)) == 4
    tier.offer(planned(cache), 0, blocks())
    tier.settle()
    assert tier.counts.written == 4


async def test_a_reader_of_the_disk_learns_names_shapes_and_times_only(machine):
    await fill(machine)
    names = "".join(path.name for path in machine.files())
    assert len({path.name for path in machine.files()}) == 4
    for path in machine.root.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0
        if path.is_file():
            data = path.read_bytes()
            assert SECRET not in data
            assert (b"a" * 32) not in data
            assert (b"a" * 32).hex().encode() not in data
    assert BUILD not in "".join(str(path) for path in machine.root.rglob("*"))
    # The same tokens under another key have other names.
    other = CacheKeys(bytes(32))
    cache, _ = machine.start()
    prefix = planned(cache)
    assert all(other.tag(prefix.scope, name) not in names for name in prefix.chain)


@pytest.mark.parametrize(
    "change",
    [{"key": bytes(32)}, {"identity": {"library": "1.1"}}],
    ids=["another key", "another library"],
)
async def test_drift_empties_the_folder(machine, change):
    _, first = await fill(machine)
    first.close()
    cache, tier = machine.start(**change)
    assert machine.files() == []
    assert await found(cache) == 0
    assert len(tier) == tier.bytes == 0


async def test_another_build_keeps_its_own_folder(machine):
    _, first = await fill(machine)
    first.close()
    _, second = machine.start(build="org/other", identity={"library": "2"})
    assert len(machine.files()) == 4
    assert len(second) == 4


# Damage: a cold miss, never an error, and the file is gone.


@pytest.mark.parametrize("where", ["head", "middle", "end", "cut", "empty", "long"])
async def test_a_damaged_block_is_a_miss_and_is_removed(machine, where):
    cache, tier = await fill(machine)
    home = planned(cache)
    path = tier._paths(tier._homes[WEIGHTS], home)[1]
    data = bytearray(path.read_bytes())
    at = {"head": 0, "middle": len(data) // 2, "end": len(data) - 1}.get(where)
    if at is not None:
        data[at] ^= 1
    lengths = {"cut": bytes(data[:-9]), "empty": b"", "long": bytes(data) + b"x"}
    path.write_bytes(lengths.get(where, bytes(data)))
    assert await found(cache) == 1
    assert tier.counts.bad == 1
    assert not path.exists()
    # It is read and written anew.
    assert cache.missing(home) == 1
    cache.keep(home, 1, blocks()[1:])
    tier.settle()
    assert await found(cache) == 4


async def test_a_block_in_the_place_of_another_is_not_believed(machine):
    cache, tier = await fill(machine)
    paths = tier._paths(tier._homes[WEIGHTS], planned(cache))
    paths[2].write_bytes(paths[1].read_bytes())
    assert await found(cache) == 2
    assert tier.counts.bad == 1


async def test_a_block_of_an_earlier_epoch_is_not_believed(machine):
    cache, tier = await fill(machine)
    kept = {path: path.read_bytes() for path in machine.files()}
    tier.close()
    epoch = next(machine.root.glob("*/cache-epoch.json"))
    epoch.write_text(json.dumps({"schema": SCHEMA, "epoch": "", "identity": {}}))
    cache, again = machine.start()
    assert machine.files() == []
    for path, data in kept.items():
        path.write_bytes(data)
    cache.enter(BUILD, WEIGHTS)
    assert await found(cache) == 0
    assert again.counts.bad == 1


async def test_links_are_removed_and_never_followed(machine, tmp_path):
    cache, tier = await fill(machine)
    path = tier._paths(tier._homes[WEIGHTS], planned(cache))[0]
    target = tmp_path / "elsewhere"
    target.write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(target)
    assert await found(cache) == 0
    assert tier.counts.bad == 1
    assert not path.is_symlink()
    assert target.exists()


async def test_files_that_vanish_are_misses(machine):
    cache, tier = await fill(machine)
    for path in machine.files():
        path.unlink()
    assert await found(cache) == 0
    assert tier.counts.bad == 1


async def test_a_folder_that_cannot_be_made_switches_the_tier_off(machine):
    machine.root.parent.mkdir(exist_ok=True)
    machine.root.write_bytes(b"a file in the way")
    cache, tier = machine.start()
    cache.keep(planned(cache), 0, blocks())
    assert await found(cache) == 0
    assert tier.counts.written == 0


# Limits.


async def test_beginnings_below_the_floor_are_not_written(machine):
    cache, tier = await fill(machine, floor_tokens=17)
    assert tier.counts.written == 0
    assert cache.missing(planned(cache)) == 4


async def test_the_budget_holds_and_the_ends_of_chains_go_first(machine):
    facts = {"kind": "plain", "tag": "x" * 32, "epoch": "y" * 32}
    size = sum(map(len, seal([memoryview(blocks()[0].content)], facts, CacheKeys(ROOT))))
    cache, tier = await fill(machine, budget_bytes=3 * size + 20)
    assert tier.bytes <= 3 * size + 20
    assert len(machine.files()) == len(tier) == 3
    assert tier.counts.evicted == 1
    del cache


async def test_a_block_that_nobody_uses_is_removed_after_its_time(machine):
    cache, tier = await fill(machine, ttl_s=100.0)
    await machine.clock.advance(60)
    assert await found(cache) == 4
    await machine.clock.advance(60)
    tier.maintain()
    assert len(machine.files()) == 4
    await machine.clock.advance(101)
    assert await found(cache) == 0
    tier.maintain()
    assert machine.files() == []
    assert tier.counts.evicted == 4


async def test_low_disk_stops_writing_and_not_reading(machine):
    cache, tier = await fill(machine, min_free_bytes=1000)
    machine.free = 1050
    cache.keep(planned(cache, scope=b"c" * 32), 0, blocks())
    tier.settle()
    assert tier.counts.dropped == 1
    assert tier.counts.written == 4
    assert await found(cache) == 4


async def test_a_full_disk_pauses_writing_for_ten_minutes(machine, monkeypatch):
    cache, tier = machine.start()
    real, failing = disk_module.write_file, [True]

    def write(path, parts):
        if failing[0]:
            raise OSError(errno.ENOSPC, "no space left on device")
        return real(path, parts)

    monkeypatch.setattr(disk_module, "write_file", write)
    cache.keep(planned(cache), 0, blocks())
    tier.settle()
    failing[0] = False
    cache.keep(planned(cache), 0, blocks())
    tier.settle()
    assert (tier.counts.written, tier.counts.dropped) == (0, 2)
    await machine.clock.advance(FULL_DISK_PAUSE_S + 1)
    cache.keep(planned(cache), 0, blocks())
    tier.settle()
    assert tier.counts.written == 4


def test_a_days_bytes_fill_evenly_and_new_beginnings_leave_a_tenth():
    allowance = Allowance.full(1000, 0.0)
    assert allowance.take(900, 0.0, new=True)
    assert not allowance.take(1, 0.0, new=True)
    assert allowance.take(100, 0.0, new=False)
    assert not allowance.take(1, 0.0, new=False)
    assert allowance.take(500, DAY_S / 2, new=False)
    assert not allowance.take(1, DAY_S / 2, new=False)
    # Time that runs backwards gives nothing.
    assert not allowance.take(1, 0.0, new=False)


async def test_prompts_that_stage_at_the_same_time_share_one_bound(machine):
    cache, tier = await fill(machine)
    one = next(iter(machine.files())).stat().st_size
    tier._limits = dataclasses.replace(tier._limits, staged_bytes=one + blocks()[0].nbytes)
    held = await asyncio.gather(*(cache.stage(planned(cache)) for _ in range(4)))
    assert sum(len(plan.staged) for plan in held) == 2
    assert tier._staged_bytes <= tier._limits.staged_bytes


async def test_memory_for_staged_blocks_is_bounded_and_given_back(machine):
    cache, tier = await fill(machine)
    one = next(iter(machine.files())).stat().st_size
    tier._limits = dataclasses.replace(tier._limits, staged_bytes=2 * one + 100)
    held = await cache.stage(planned(cache))
    assert len(held.staged) == 2
    assert await found(cache) < 2
    del held
    # The reader lets go of what it has handed over before it takes the next order.
    await asyncio.get_running_loop().run_in_executor(tier._reader, int)
    assert tier._staged_bytes == 0
    assert await found(cache) == 2


async def test_an_offer_that_the_queue_cannot_take_is_dropped(machine):
    cache, tier = machine.start(queue_bytes=100)
    cache.keep(planned(cache), 0, blocks())
    tier.settle()
    assert (tier.counts.written, tier.counts.dropped) == (0, 1)


def test_the_time_to_live_can_only_be_shortened():
    assert limits_of(budget_gb=None, ttl_s=5000.0).ttl_s == 1800.0
    assert limits_of(budget_gb=None, ttl_s=60.0).ttl_s == 60.0
    assert limits_of(budget_gb=0.5, ttl_s=60.0).budget_bytes == 1 << 29


# A process that is killed.


async def test_what_a_killed_process_was_writing_is_removed(machine):
    _, tier = await fill(machine)
    tier.close()
    orphan = machine.files()[0].parent / f"{'0' * 32}{SUFFIX}.12345678{SCRATCH}"
    orphan.write_bytes(b"half a block")
    now_s = machine.clock.now().timestamp()
    os.utime(orphan, (now_s, now_s))
    # A start knows that nobody else writes here.
    machine.start()
    assert not orphan.exists()

    orphan.write_bytes(b"half a block")
    os.utime(orphan, (now_s, now_s))
    running = machine.tiers[-1]
    running.maintain()
    assert orphan.exists()
    await machine.clock.advance(ORPHAN_S + 1)
    running.maintain()
    assert not orphan.exists()


# The file.


def test_a_long_block_travels_in_chunks():
    data = bytes(MAX_CHUNK_BYTES + 1000)
    keys = CacheKeys(ROOT)
    parts = seal([memoryview(data)], {"tag": "t"}, keys)
    file = b"".join(parts)
    facts, content = open_block(file, {"tag": "t"}, keys)
    assert facts["chunks"] == 2
    assert content == data
    # The last chunk cannot be left away, nor the two swapped.
    one, two = (count.to_bytes(4, "little") for count in (1, 2))
    assert parts[3] == two
    head = b"".join(parts[:3])
    for forged in ((one, *parts[4:6]), (two, *parts[6:8], *parts[4:6]), (two, *parts[4:6])):
        with pytest.raises(BadBlockError):
            open_block(head + b"".join(forged), {"tag": "t"}, keys)


def test_two_files_of_one_block_share_no_bytes_of_ciphertext():
    keys = CacheKeys(ROOT)
    one, two = (seal([memoryview(b"x" * 64)], {}, keys)[-1] for _ in range(2))
    assert one != two


# The key.


def test_the_key_is_made_once_private_and_kept(tmp_path):
    vault = FileVault(tmp_path / "key")
    root = vault.root()
    assert len(root) == 32
    assert vault.root() == root
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    vault.forget()
    assert vault.root() != root


def test_a_key_that_others_can_read_is_refused(tmp_path):
    vault = FileVault(tmp_path / "key")
    vault.root()
    (tmp_path / "key").chmod(0o644)
    with pytest.raises(PermissionError):
        vault.root()


def test_half_a_key_is_replaced(tmp_path):
    (tmp_path / "key").write_bytes(b"half")
    (tmp_path / "key").chmod(0o600)
    assert len(FileVault(tmp_path / "key").root()) == 32
