"""`darkbloom-admin history` as a person who may read, against a real database."""

import asyncio
import csv
import io
import json
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from darkbloom_billing.history.questions import QUESTIONS
from darkbloom_billing.history.reader import ask
from darkbloom_mesh.config import Secret
from darkbloom_mesh.errors import ForbiddenError
from psycopg import sql

from tests.component.billing.world import CONSUMER, PROVIDER, world
from tests.stores import Postgres

PROGRAM = str(Path(sys.executable).with_name("darkbloom-admin"))
READER = "history_reader"


@pytest.fixture
def reader(cluster: Postgres, template: str) -> Iterator[str]:
    """A login of the role; the role itself came with the migration."""
    assert template
    with psycopg.connect(cluster.url(), autocommit=True) as admin:
        admin.execute(
            sql.SQL("CREATE ROLE {} LOGIN IN ROLE darkbloom_reader").format(sql.Identifier(READER))
        )
        yield READER
        admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(READER)))


def as_login(url: str, login: str) -> str:
    return url.replace("postgresql://postgres@", f"postgresql://{login}@")


class Reader:
    """Runs commands over one URL."""

    def __init__(self, url: str, login: str, directory: Path) -> None:
        file = directory / f"{login}.url"
        file.write_text(as_login(url, login) + "\n")
        self._environment = {
            "PATH": os.environ["PATH"],  # noqa: TID251 - a shell for the child
            "DARKBLOOM_ADMIN_REPLICA_URL_FILE": str(file),
            "COLUMNS": "400",
        }

    async def __call__(self, *words: str) -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            PROGRAM,
            "history",
            *words,
            env=self._environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        return process.returncode or 0, out.decode(), err.decode()

    async def json(self, *words: str) -> Any:
        code, out, err = await self(*words, "--json")
        assert code == 0, err
        return json.loads(out)


async def asked(url: str, login: str, name: str, *values: str) -> Any:
    """Ask in this process, about all time."""
    answer = await ask(
        Secret(as_login(url, login)),
        QUESTIONS[name],
        since=datetime(2020, 1, 1, tzinfo=UTC),
        until=datetime(2100, 1, 1, tzinfo=UTC),
        limit=100,
        values=values,
    )
    assert (answer.truncated, answer.is_replica, answer.lag_s) == (False, False, 0)
    return answer.rows


async def test_a_reader_sees_what_happened_and_can_do_nothing(
    url: str, reader: str, tmp_path: Path
) -> None:
    async with world(url) as w:
        await w.people()
        names = []
        for _ in range(2):
            order = w.order()
            await w.hold(order)
            (ended,) = await w.settle(w.settlement(order.request_id))
            names.append(order.request_id)
        charge = ended.charge_micros
    read = Reader(url, reader, tmp_path)

    # Billing's clock stood at a day of its own.
    code, out, err = await read("usage", "--since", "900w", "--limit", "1", "--format", "csv")
    (row,) = csv.DictReader(io.StringIO(out))
    assert (code, int(row["charge_micros"]), "more than 1" in err) == (0, charge, True)
    story = (await read.json("request", names[0]))["rows"]
    assert [row["event"].partition(":")[0] for row in story][:2] == ["hold", "resolve"]
    assert sum(row["amount"] for row in story if row["code"] == "payout") == charge

    usage = await asked(url, reader, "usage", CONSUMER, "", "")
    assert {row["request_id"] for row in usage} == {*names}
    assert await asked(url, reader, "usage", "acct_nobody", "", "") == []
    earned = await asked(url, reader, "earnings", "", "")
    assert [row["account_id"] for row in earned] == [PROVIDER, PROVIDER]
    lines = await asked(url, reader, "statement", CONSUMER)
    assert {row["wallet"].rpartition(":")[2] for row in lines} >= {"promo", "charge"}
    assert await asked(url, reader, "withdrawals", "") == []

    # Whoever could write is sent away, and the role itself sees nobody.
    with pytest.raises(ForbiddenError):
        await asked(url, "postgres", "withdrawals", "")
    with psycopg.connect(url, autocommit=True, user=reader) as db:
        for statement in (
            "SELECT * FROM billing.app_user",
            "SELECT key_hash FROM billing.api_key",
            "SELECT stripe_account_id FROM billing.withdrawal",
            "INSERT INTO billing.usage SELECT * FROM billing.usage",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                db.execute(statement.encode())
