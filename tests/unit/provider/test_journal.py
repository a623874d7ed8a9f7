"""Terminals on disk: what was committed comes back, whatever happened to the end of the file."""

import asyncio
import errno
import os

import pytest
from darkbloom.common.v1.price_pb2 import SignedDocument
from darkbloom.router.v1.provider_link_pb2 import Terminal
from darkbloom_mesh.testing import FakeClock
from darkbloom_provider import journal
from darkbloom_provider.journal import Journal, Record
from darkbloom_provider.terminals import MAX_AGE_S, UnacknowledgedTerminals
from hypothesis import given, settings
from hypothesis import strategies as st

IDENTITY = bytes(range(32))


def record(name, at_ms=1_000):
    return Record(attempt_id=name, at_ms=at_ms, document=b"d" * 300, signature=b"s" * 70)


def opened(path, identity=IDENTITY, oldest_ms=0):
    found = Journal(path, identity)
    return found, [one.attempt_id for one in found.open(oldest_ms)]


def reread(path, **how):
    again, names = opened(path, **how)
    again.close()
    return names


@pytest.fixture
def path(tmp_path):
    return tmp_path / "terminals.journal"


def test_what_was_committed_comes_back_in_order_without_what_was_acknowledged(path):
    first, left = opened(path)
    assert left == []
    first.commit([record("a"), record("b")], [])
    first.commit([record("c")], ["a"])
    first.close()
    assert reread(path) == ["b", "c"]
    assert reread(path) == ["b", "c"]


def test_the_file_is_closed_to_others(path):
    first, _ = opened(path)
    first.commit([record("a")], [])
    first.close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_link_in_the_place_of_the_file_is_not_followed(path, tmp_path):
    target = tmp_path / "elsewhere"
    target.write_bytes(b"mine")
    path.symlink_to(target)
    with pytest.raises(OSError, match=r"symbolic|Too many"):
        opened(path)
    assert target.read_bytes() == b"mine"


@settings(max_examples=20)
@given(cut=st.integers(min_value=0, max_value=1300))
def test_a_torn_file_gives_back_every_whole_record_before_the_tear(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("torn") / "terminals.journal"
    first, _ = opened(path)
    first.commit([record("a")], [])
    one = path.stat().st_size
    first.commit([record("b")], [])
    two = path.stat().st_size
    first.close()
    os.truncate(path, min(cut, two))
    expected = ["a"] * (cut >= one) + ["b"] * (cut >= two)
    again, names = opened(path)
    assert names == expected
    # What comes after the tear is written behind what was saved.
    again.commit([record("c")], [])
    again.close()
    assert reread(path) == [*expected, "c"]


@settings(max_examples=20)
@given(where=st.integers(min_value=38, max_value=420), bit=st.integers(min_value=0, max_value=7))
def test_a_flipped_bit_ends_the_file_and_never_the_agent(tmp_path_factory, where, bit):
    path = tmp_path_factory.mktemp("flip") / "terminals.journal"
    first, _ = opened(path)
    first.commit([record("a")], [])
    first.close()
    data = bytearray(path.read_bytes())
    where = min(where, len(data) - 1)
    data[where] ^= 1 << bit
    path.write_bytes(bytes(data))
    assert reread(path) == []


def test_terminals_of_another_identity_are_not_ours(path):
    first, _ = opened(path)
    first.commit([record("a")], [])
    first.close()
    assert reread(path, identity=bytes(32)) == []


def test_terminals_that_no_hold_can_outlive_are_given_up(path):
    first, _ = opened(path)
    first.commit([record("old", 999), record("new", 1_000)], [])
    first.close()
    assert reread(path, oldest_ms=1_000) == ["new"]


def test_the_file_stays_small_however_many_terminals_pass_through(path):
    first, _ = opened(path)
    first.commit([record("stays")], [])
    for number in range(0, 2_000, 20):
        batch = [f"a{number + i}" for i in range(20)]
        first.commit([record(name) for name in batch], [*batch[:-1], f"a{number - 1}"])
        assert path.stat().st_size < 2 * journal.COMPACT_BYTES
    first.close()
    assert reread(path) == ["stays", "a1999"]


def test_a_disk_that_failed_has_everything_again_once_it_takes_the_file(path):
    first, _ = opened(path)
    first.commit([record("a")], [])
    folder = path.parent
    first.close()
    folder.chmod(0o500)
    try:
        if os.geteuid() != 0:
            with pytest.raises(PermissionError):
                first.commit([record("b")], [])
    finally:
        folder.chmod(0o700)
    first.commit([record("c")], [])
    first.close()
    assert reread(path)[-1] == "c"
    assert "a" in reread(path)


class Disk:
    """The calls that the journal makes; each can be told to fail."""

    def __init__(self, monkeypatch):
        self.failing = set()
        for call in ("pwrite", "fsync", "open"):
            monkeypatch.setattr(journal.os, call, self._failing(call, getattr(os, call)))

    def _failing(self, name, real):
        def called(*arguments, **named):
            if name in self.failing:
                raise OSError(errno.EIO, f"{name} fails")
            return real(*arguments, **named)

        return called


@pytest.fixture
def disk(monkeypatch):
    return Disk(monkeypatch)


def written(path, *names):
    first, _ = opened(path)
    first.commit([record(name) for name in names], [])
    first.close()


def test_a_disk_that_is_full_at_the_start_loses_nothing_that_was_read(path, disk):
    written(path, "a", "b")
    disk.failing = {"pwrite"}
    second, names = opened(path)
    assert names == ["a", "b"]
    with pytest.raises(OSError, match="pwrite fails"):
        second.commit([record("c")], [])
    disk.failing = set()
    second.commit([record("d")], ["a"])
    second.close()
    assert reread(path) == ["b", "c", "d"]


def test_a_file_that_could_not_be_read_is_set_aside_and_never_written_over(path, disk):
    for name, aside in (("a", ".unread"), ("b", ".unread-2")):
        path.unlink(missing_ok=True)
        written(path, name)
        later = Journal(path, IDENTITY)
        disk.failing = {"open"}
        with pytest.raises(OSError, match="open fails"):
            later.open(0)
        disk.failing = set()
        later.commit([record("new")], [])
        later.commit([record("more")], [])
        later.close()
        assert reread(path) == ["new", "more"]
        assert reread(path.with_name(path.name + aside)) == [name]


def test_after_a_failed_sync_the_next_commit_writes_a_whole_new_file(path, disk):
    first, _ = opened(path)
    first.commit([record("a")], [])
    before = path.stat().st_ino
    disk.failing = {"fsync"}
    with pytest.raises(OSError, match="fsync fails"):
        first.commit([record("b")], [])
    disk.failing = set()
    first.commit([record("c")], [])
    first.close()
    assert path.stat().st_ino != before
    assert reread(path) == ["a", "b", "c"]


def test_the_doctor_counts_without_knowing_the_identity(path):
    assert journal.count(path) == 0
    first, _ = opened(path)
    first.commit([record("a"), record("b")], [])
    first.close()
    assert journal.count(path) == 2


# The queue in front of it.


def terminal(name):
    return Terminal(terminal=SignedDocument(document=name.encode(), signature=b"sig"))


class Slow(Journal):
    """A disk that says what it was asked, in which company."""

    def __init__(self, path):
        super().__init__(path, IDENTITY)
        self.commits = []

    def commit(self, new, gone):
        self.commits.append(([one.attempt_id for one in new], list(gone)))
        super().commit(new, gone)


async def test_a_terminal_is_on_disk_before_it_is_sent_and_all_that_wait_travel_together(path):
    disk = Slow(path)
    kept = UnacknowledgedTerminals(disk, FakeClock())
    await kept.restore()
    sent, all_sent = [], asyncio.Event()

    def note(name):
        assert journal.count(path) >= 3
        sent.append(name)
        if len(sent) == 3:
            all_sent.set()

    for name in ("a", "b", "c"):
        kept.add(name, terminal(name), lambda name=name: note(name))
    assert sent == []
    writing = asyncio.create_task(kept.run())
    await asyncio.wait_for(all_sent.wait(), 30)
    assert sent == ["a", "b", "c"]
    assert disk.commits == [(["a", "b", "c"], [])]
    kept.acknowledge("a")
    kept.acknowledge("b")
    kept.acknowledge("c")
    await kept.close()
    writing.cancel()
    assert journal.count(path) == 0


async def test_a_new_process_takes_up_what_the_old_one_left(path):
    first = UnacknowledgedTerminals(Journal(path, IDENTITY), FakeClock())
    await first.restore()
    first.add("a", terminal("a"))
    first.add("b", terminal("b"))
    first.acknowledge("a")
    await first.close()
    second = UnacknowledgedTerminals(Journal(path, IDENTITY), FakeClock())
    assert await second.restore() == 1
    assert [(name, one) for name, one in second] == [("b", terminal("b"))]
    await second.close()


async def test_old_terminals_are_dropped_at_the_start(path):
    clock = FakeClock()
    first = UnacknowledgedTerminals(Journal(path, IDENTITY), clock)
    await first.restore()
    first.add("a", terminal("a"))
    await first.close()
    await clock.advance(MAX_AGE_S + 1)
    assert await UnacknowledgedTerminals(Journal(path, IDENTITY), clock).restore() == 0


class Full(Journal):
    """A disk that takes nothing."""

    def commit(self, new, gone):
        raise OSError("no space left on device")


async def test_a_full_disk_keeps_no_answer_back(path):
    kept = UnacknowledgedTerminals(Full(path, IDENTITY), FakeClock())
    sent = []
    kept.add("a", terminal("a"), lambda: sent.append("a"))
    await kept.close()
    assert sent == ["a"]
    assert kept.not_durable == 1
    assert len(kept) == 1
