"""Records of erasures against a database that was set back to before some of their steps."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from darkbloom_billing.admin.erasure import Erasures
from darkbloom_billing.admin.erasure_log import ErasureLog
from darkbloom_billing.admin.erasure_records import Keeper
from darkbloom_billing.admin.model import ErasureState, Operator, Source
from darkbloom_billing.admin.parts import build_erasures
from darkbloom_billing.books import Books
from darkbloom_billing.config import BillingConfig
from darkbloom_billing.recovery.steps import replay_erasures
from darkbloom_billing.store.database import Database
from darkbloom_mesh.config import Secret
from darkbloom_mesh.errors import StoreUnavailableError
from darkbloom_mesh.testing import FakeClock

from tests.component.billing.world import CONSUMER, START, open_database, owner, world

OPERATOR = Operator(name="ops", source=Source.CLI)
_CLOSING = "SELECT closing_at IS NOT NULL FROM billing.account WHERE account_id = $1"
_STATES = "SELECT array_agg(state ORDER BY planned_at, erasure_id) FROM billing.erasure"
_BACK = """
    UPDATE billing.erasure SET state = 'pending', erased_at = NULL, proof = NULL
    WHERE erasure_id = $1
"""


class Away(Database):
    """Does not answer."""

    def __init__(self) -> None:
        """Connect to nothing."""

    async def run(self, work: Any) -> Any:
        raise StoreUnavailableError("away")


def settings(url: str, log: Path) -> BillingConfig:
    return BillingConfig(
        environment="development",
        database_url=Secret(url),
        erasure_directory=str(log),
        erasure_grace_s=600,
    )


async def confirmed(erasures: Erasures, clock: FakeClock, name: str) -> str:
    clock.jump(60)
    planned, token = await erasures.plan(OPERATOR, name, CONSUMER)
    await erasures.confirm(OPERATOR, planned.erasure_id, token, forfeit=True, force=False)
    return planned.erasure_id


async def set_back(url: str, open_id: str, *, forgotten: str = "") -> None:
    """Leave the database as it was while an erasure was in its grace."""
    async with owner(url) as db:
        await db.execute("DELETE FROM billing.erasure WHERE erasure_id = $1", forgotten)
        await db.execute(_BACK, open_id)
        await db.execute("SELECT billing.close_account($1, now())", CONSUMER)


async def read(url: str, statement: str, *arguments: object) -> Any:
    async with owner(url) as db:
        return await db.fetchval(statement, *arguments)


async def test_a_canceled_erasure_stays_canceled_after_a_restore(url: str, tmp_path: Path) -> None:
    clock = FakeClock(START)
    async with world(url, clock=FakeClock(START)) as w:
        await w.account(CONSUMER)
        database = await open_database(url)
        try:
            erasures = build_erasures(
                settings(url, tmp_path), database, Books(database, clock), clock
            )
            first = await confirmed(erasures, clock, "plan_1")
            await erasures.cancel(OPERATOR, first)
            await set_back(url, first)

            for _ in range(2):
                done = await replay_erasures(erasures, database, clock, ErasureLog(tmp_path))
                assert done == {"canceled": 1}
            clock.jump(10_000)
            assert await erasures.scrub_due() == 0
            assert await read(url, _STATES) == ["canceled"]
            assert await read(url, _CLOSING, CONSUMER) is False
        finally:
            await database.close()


@pytest.mark.parametrize("cancel_is_known", [True, False])
async def test_an_account_that_was_confirmed_twice_is_erased_once(
    url: str, tmp_path: Path, cancel_is_known: bool
) -> None:
    clock = FakeClock(START)
    async with world(url, clock=FakeClock(START)) as w:
        await w.account(CONSUMER)
        database = await open_database(url)
        try:
            erasures = build_erasures(
                settings(url, tmp_path), database, Books(database, clock), clock
            )
            first = await confirmed(erasures, clock, "plan_1")
            await erasures.cancel(OPERATOR, first)
            second = await confirmed(erasures, clock, "plan_2")
            await set_back(url, first, forgotten=second)
            if not cancel_is_known:
                (tmp_path / f"{first}.canceled.json").unlink()

            done = await replay_erasures(erasures, database, clock, ErasureLog(tmp_path))
            assert done["pending"] == 1
            assert await read(url, _STATES) == ["canceled", "pending"]
            assert await read(url, _CLOSING, CONSUMER) is True
            clock.jump(10_000)
            assert await erasures.scrub_due() == 1
            assert await read(url, _STATES) == ["canceled", "erased"]
        finally:
            await database.close()


async def test_what_cannot_be_written_down_does_not_undo_a_confirmation(
    url: str, tmp_path: Path
) -> None:
    clock = FakeClock(START)

    async with world(url, clock=FakeClock(START)) as w:
        await w.account(CONSUMER)
        database = await open_database(url)
        try:
            own = Erasures(
                Books(database, clock),
                database,
                clock,
                grace=timedelta(seconds=600),
                keep=Keeper(Away(), ErasureLog(tmp_path)).keep,
            )
            planned, token = await own.plan(OPERATOR, "plan_1", CONSUMER)
            for _ in range(2):
                done = await own.confirm(
                    OPERATOR, planned.erasure_id, token, forfeit=True, force=True
                )
                assert done.state is ErasureState.ERASED
        finally:
            await database.close()
