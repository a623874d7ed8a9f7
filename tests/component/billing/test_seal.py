"""Sealed history: whatever is changed behind a seal shows."""

from pathlib import Path
from typing import Any

import asyncpg
import pytest
from darkbloom_billing.audit import Auditor, Report, Violation, audit
from darkbloom_billing.books.seal import Sealer, export, exported, seal

from tests.component.billing.shop import DOLLAR, Shop, shop
from tests.component.billing.world import START, owner


async def older(db: "asyncpg.Connection[Any]", seconds: int = 61) -> None:
    """Let every event be older than it is; the seal itself is not asked about that."""
    await db.execute("SET session_replication_role = replica")
    await db.execute(
        f"UPDATE ledger.event SET created_at = created_at - interval '{seconds} s' "  # noqa: S608 - a number of ours
        "WHERE id > (SELECT coalesce(max(last_event), 0) FROM ledger.block)"
    )
    await db.execute("SET session_replication_role = origin")


async def sealed(s: Shop, url: str) -> None:
    """Two blocks: three deposits, then two sales."""
    await s.people("acct_a", "acct_b")
    async with owner(url) as db:
        for n in range(3):
            await s.books.deposit(f"cs_{n}", "acct_a", DOLLAR)
        assert await seal(s.database, now=START) is None
        await older(db)
        first = await seal(s.database, now=START)
        for _ in range(2):
            await s.sold("acct_a", "acct_b", 100)
        await older(db)
        second = await seal(s.database, now=START)
    assert first is not None
    assert second is not None
    assert (first.height, first.events, second.height, second.events) == (1, 3, 2, 4)
    assert second.previous == first.hash
    assert await seal(s.database, now=START) is None


async def report(s: Shop, **heads: Any) -> Report:
    return await audit(s.database, now=START, receipts_due=START, **heads)


@pytest.mark.parametrize(
    ("corruption", "check"),
    [
        ("UPDATE ledger.event SET body = '{}' WHERE id = 2", "block_events"),
        ("UPDATE ledger.event SET occurred_at = now() WHERE id = 2", "block_events"),
        ("UPDATE ledger.event SET result = '{}' WHERE id = 2", "block_events"),
        ("DELETE FROM ledger.event WHERE id = 2", "block_events"),
        ("UPDATE ledger.transfer SET created_at = now(), amount = 7 WHERE id = 1", "block_events"),
        ("UPDATE ledger.block SET hash = previous WHERE height = 1", "block_broken"),
        ("UPDATE ledger.block SET events = 9 WHERE height = 2", "block_events"),
        ("DELETE FROM ledger.block WHERE height = 1", "block_broken"),
    ],
)
async def test_the_auditor_names_what_was_changed_behind_a_seal(
    url: str, corruption: str, check: str
) -> None:
    async with shop(url) as s, owner(url) as db:
        await sealed(s, url)
        assert (await report(s)).violations == ()
        await db.execute("SET session_replication_role = replica")
        await db.execute(corruption)
        assert check in {violation.check for violation in (await report(s)).violations}


async def test_an_event_that_slips_in_behind_a_seal_shows(url: str) -> None:
    async with shop(url) as s, owner(url) as db:
        # Somebody keeps a number free, as an aborted command does.
        await s.people("acct_x")
        await s.books.deposit("cs_x", "acct_x", DOLLAR)
        free = await db.fetchval("SELECT nextval('ledger.event_id_seq')")
        await s.books.deposit("cs_y", "acct_x", DOLLAR)
        await older(db)
        await seal(s.database, now=START)
        assert (await report(s)).violations == ()
        await db.execute(
            """INSERT INTO ledger.event (id, idem_key, kind, body_hash, body, result, occurred_at)
               OVERRIDING SYSTEM VALUE VALUES ($1, 'x', 'x', '', '{}', '{}', now())""",
            free,
        )
        found = {violation.check for violation in (await report(s)).violations}
        assert found == {"block_events"}


async def test_a_chain_that_was_rebuilt_differs_from_the_exported_head(
    url: str, tmp_path: Path
) -> None:
    async with shop(url) as s, owner(url) as db:
        await sealed(s, url)
        sealer = Sealer(s.database, s.clock, tmp_path)
        block = await sealer.round()
        assert block is not None
        assert (await report(s, exported=exported(tmp_path))).violations == ()
        with pytest.raises(ValueError, match="says otherwise"):
            export(type(block)(**{**_fields(block), "hash": bytes(32)}), tmp_path)

        # Somebody changes an event and seals everything anew.
        await db.execute("SET session_replication_role = replica")
        await db.execute("UPDATE ledger.event SET body = body || '{\"x\": 1}' WHERE id = 1")
        await db.execute("DELETE FROM ledger.block")
        await db.execute("SET session_replication_role = origin")
        await seal(s.database, now=START)
        assert (await report(s)).violations == ()
        found = (await report(s, exported=exported(tmp_path))).violations
        assert [violation.check for violation in found] == ["block_not_exported"]


async def test_rounds_check_only_new_blocks_and_see_those(url: str) -> None:
    async with shop(url) as s, owner(url) as db:
        await sealed(s, url)
        auditor = Auditor(s.database)
        assert await auditor.round(now=START) == ()
        await db.execute("SET session_replication_role = replica")
        await db.execute("UPDATE ledger.event SET result = '{}' WHERE kind = 'deposit'")
        await s.sold("acct_a", "acct_b", 100)
        await older(db)
        await seal(s.database, now=START)
        assert await auditor.round(now=START) == ()
        await s.sold("acct_a", "acct_b", 100)
        await older(db)
        await seal(s.database, now=START)
        await db.execute("SET session_replication_role = replica")
        await db.execute("UPDATE ledger.event SET result = '{}' WHERE kind = 'settle'")
        (violation,) = await auditor.round(now=START)
        assert violation == Violation(check="block_events", what="block 4")


def _fields(block: Any) -> dict[str, Any]:
    return {name: getattr(block, name) for name in block.__dataclass_fields__}
