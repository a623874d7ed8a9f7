"""What the running room does by itself: earnings mature, history is sealed and audited."""

import asyncio
from pathlib import Path

from darkbloom_mesh.testing import FakeClock

from tests.component.billing.test_settlements import CHARGE, held
from tests.component.billing.world import PROVIDER, START, World, owner, world

WEEK_S = 7 * 86400.0


async def settled(w: World) -> str:
    """A request that was settled and countersigned."""
    await w.people()
    name = await held(w)
    await w.settle(w.settlement(name))
    async with owner(w.url) as db:
        await db.execute(
            "INSERT INTO billing.receipt VALUES ($1, $2, '', '', '', now())",
            name,
            b'{"opened":{"prompt_tokens":40,"completion_tokens":20}}',
        )
    return name


def gauge(w: World, name: str) -> float | None:
    return w.service.metrics.registry.get_sample_value(f"darkbloom_{name}")


async def test_earnings_become_withdrawable_after_a_week(url: str) -> None:
    clock = FakeClock(START)
    async with world(url, clock=clock) as w, asyncio.timeout(20):
        await settled(w)
        assert await w.balance(PROVIDER) == (0, 0, 0)
        clock.jump(WEEK_S)
        while (await w.balance(PROVIDER))[1] != CHARGE:
            clock.jump(60)
        assert await w.maturing(PROVIDER) == 0
        await w.sound()


async def test_history_is_sealed_copied_and_audited_in_rounds(url: str, tmp_path: Path) -> None:
    clock = FakeClock(START)
    async with world(url, clock=clock, seal_directory=str(tmp_path)) as w, asyncio.timeout(20):
        await settled(w)
        async with owner(url) as db:
            await db.execute("SET session_replication_role = replica")
            await db.execute("UPDATE ledger.event SET created_at = now() - interval '2 minutes'")
            while not any(tmp_path.glob("block-*.json")):  # noqa: ASYNC240 - a test's own files
                clock.jump(300)
                await w.balance(PROVIDER)
            await db.execute(
                "UPDATE ledger.account SET cr = cr + 1 WHERE path = 'user:acct_provider:maturing'"
            )
            # Both are read one after the other, and the edit may fall between them.
            while not (
                gauge(w, "billing_audit_violations") and gauge(w, "billing_ledger_imbalance_micros")
            ):
                clock.jump(300)
                await w.balance(PROVIDER)
        assert gauge(w, "billing_sealed_blocks") == 1
