"""A backup is one when its books balance and say what was sealed; nothing less counts."""

import asyncio
import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from darkbloom_billing.books.seal import export as export_head
from darkbloom_billing.books.seal import seal
from darkbloom_billing.config import BillingConfig
from darkbloom_billing.recovery.command import BackupCheck
from darkbloom_billing.recovery.verified import newest, note, watch
from darkbloom_local import backups
from darkbloom_local.backup_check import check as check_locally
from darkbloom_local.errors import LocalError
from darkbloom_local.stores import Postgres
from darkbloom_mesh.clock import SystemClock
from darkbloom_mesh.config import Secret
from darkbloom_mesh.migrate import migrate
from darkbloom_mesh.testing import FakeClock, settle

from tests.component.billing.shop import DOLLAR, Shop, shop
from tests.component.billing.test_seal import older
from tests.component.billing.world import START, owner

LATER = START + timedelta(days=1)


@pytest.fixture
def heads(tmp_path: Path) -> Path:
    made = tmp_path / "heads"
    made.mkdir()
    return made


async def sealed(s: Shop, url: str, heads: Path, *, at: datetime = START) -> int:
    """Seal one more deposit, and copy its head out."""
    await s.books.deposit(f"cs_{s.clock.now().timestamp()}", "acct_a", DOLLAR)
    s.clock.jump(1)
    async with owner(url) as db:
        await older(db)
    block = await seal(s.database, now=at)
    assert block is not None
    export_head(block, heads)
    return block.height


async def checked(url: str, heads: Path, *, at: datetime = LATER, **more: Any) -> dict[str, Any]:
    return await BackupCheck(
        config=BillingConfig(environment="development", database_url=Secret(url)),
        clock=FakeClock(LATER),
        heads=heads,
        record=heads,
        max_behind=timedelta(minutes=15),
        **more,
    ).run(at)


async def test_sound_books_that_say_what_was_sealed_are_written_down(url: str, heads: Path) -> None:
    async with shop(url) as s:
        await s.people("acct_a")
        await sealed(s, url, heads)
        await s.held("acct_a", DOLLAR // 2)
    assert newest(heads) is None
    told = await checked(url, heads)
    assert (told["sound"], told["problems"], told["heads_equal"]) == (True, [], 1), told
    assert newest(heads) == LATER
    # Heads that are sealed after the restore began cannot be in it.
    (heads / "block-0000000002.json").write_text(
        json.dumps({"height": 2, "hash": "00", "sealed_at": LATER.isoformat()}) + "\n"
    )
    told = await checked(url, heads, at=LATER - timedelta(seconds=1))
    assert (told["sound"], told["heads_given_up"], told["behind_s"]) == (True, 1, 0)
    told = await checked(url, heads, at=LATER + timedelta(minutes=15, seconds=1))
    assert (told["problems"], told["behind_s"]) == (["behind"], 901)
    assert newest(heads) == LATER


async def test_other_history_broken_books_and_nothing_at_all_are_no_backup(
    url: str, heads: Path, tmp_path: Path
) -> None:
    told = await checked(url, heads)
    assert told["problems"] == ["empty", "no_heads"]
    async with shop(url) as s:
        await s.people("acct_a")
        await sealed(s, url, heads)
        async with owner(url) as db:
            await db.execute("SET session_replication_role = replica")
            await db.execute(
                "UPDATE ledger.account SET cr = cr + 1 WHERE path = 'user:acct_a:credit'"
            )
    assert (await checked(url, heads))["problems"] == ["violations"]

    forged = tmp_path / "forged"
    forged.mkdir()
    head = json.loads((heads / "block-0000000001.json").read_text())
    (forged / "block-0000000001.json").write_text(json.dumps({**head, "hash": "00" * 32}) + "\n")
    told = await checked(url, forged)
    assert {"no_heads", "heads_differ"} <= set(told["problems"])
    assert told["heads_differ"] == [1]
    assert newest(heads) is newest(forged) is None


async def test_what_cannot_be_checked_is_a_result_and_no_traceback(
    url: str, heads: Path, tmp_path: Path
) -> None:
    told = await checked("postgresql:///nobody?host=/nowhere", heads)
    assert (told["sound"], told["problems"]) == (False, ["not_checked"])
    assert (await checked(url, tmp_path / "missing"))["problems"] == ["empty", "no_heads"]
    (heads / "block-0000000001.json").write_text("{}\n")
    assert (await checked(url, heads))["failed"] == "ValueError"
    assert newest(heads) is None


async def test_billing_shows_when_a_backup_was_last_found_sound(heads: Path) -> None:
    clock, shown = FakeClock(START), list[float]()
    assert newest(heads) is None
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(watch(heads, clock, shown.append))
        async with asyncio.timeout(30):
            while clock.sleeping == 0:
                await settle()
        note(heads, START, {"sound": True})
        note(heads, START - timedelta(days=7), {"sound": True})
        (heads / "verified-20991231T000000Z.json").write_text("{")
        (heads / "verified-someday.json").write_text("{}\n")
        await clock.advance(60)
        async with asyncio.timeout(30):
            while len(shown) == 1:
                await settle()
        watching.cancel()
    assert shown[:2] == [0.0, START.timestamp()]
    with pytest.raises(FileNotFoundError):
        newest(heads / "missing")


async def test_the_newest_backup_is_restored_proven_and_gone(tmp_path: Path, heads: Path) -> None:
    store, home = tmp_path / "store", tmp_path / "live"
    live = Postgres(home, durable=False, settings=backups.archiving(store, timeout_s=3600))
    live.prepare()
    backups.prepare_archive(live, store)
    child = live.launch()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    now = SystemClock().now().replace(microsecond=0)
    try:
        live.wait_ready(child)
        await asyncio.to_thread(
            migrate, Secret(live.url), package="darkbloom_billing", schema="billing"
        )
        with pytest.raises(LocalError, match="no base backup"):
            await asyncio.to_thread(check_locally, store, heads, now=now, scratch=scratch)
        async with shop(live.url) as s:
            await s.people("acct_a")
            await asyncio.to_thread(backups.base_backup, live, store)
            # Only the log has it.
            await sealed(s, live.url, heads, at=now - timedelta(hours=2))
            await asyncio.to_thread(backups.archive_now, live)
            told = await asyncio.to_thread(check_locally, store, heads, now=now, scratch=scratch)
            assert (told["sound"], told["exit"], told["heads_equal"]) == (True, 0, 1), told
            assert newest(heads) == now
            # The log stops here, and the mesh goes on.
            await sealed(s, live.url, heads, at=now - timedelta(hours=1))
            later = now + timedelta(seconds=1)
            told = await asyncio.to_thread(check_locally, store, heads, now=later, scratch=scratch)
            assert (told["problems"], told["exit"], told["behind_s"]) == (["behind"], 1, 3601)
            assert newest(heads) == now
    finally:
        child.stop(10)
    assert list(scratch.iterdir()) == []
