"""`darkbloom-admin history` as a person who may read, against a real database."""

import asyncio
import csv
import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
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


class Reader:
    """Runs commands over one URL."""

    def __init__(self, url: str, login: str, directory: Path) -> None:
        file = directory / f"{login}.url"
        file.write_text(url.replace("postgresql://postgres@", f"postgresql://{login}@") + "\n")
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
    usage = await read.json("usage", "--since", "900w", "--account", CONSUMER)
    assert ({row["request_id"] for row in usage["rows"]}, usage["truncated"]) == ({*names}, False)
    code, out, err = await read("usage", "--since", "900w", "--limit", "1", "--format", "csv")
    (row,) = csv.DictReader(io.StringIO(out))
    assert (code, int(row["charge_micros"]), "more than 1" in err) == (0, charge, True)
    code, out, _ = await read("earnings", "--since", "900w", "--format", "ndjson")
    assert [json.loads(line)["account_id"] for line in out.splitlines()] == [PROVIDER, PROVIDER]

    story = (await read.json("request", names[0]))["rows"]
    assert [row["event"].partition(":")[0] for row in story][:2] == ["hold", "resolve"]
    assert sum(row["amount"] for row in story if row["code"] == "payout") == charge
    lines = (await read.json("statement", CONSUMER, "--since", "1h"))["rows"]
    assert {row["wallet"].rpartition(":")[2] for row in lines} >= {"promo", "charge"}
    assert (await read.json("withdrawals"))["rows"] == []

    # Whoever could write is sent away, and the role itself sees nobody.
    assert (await Reader(url, "postgres", tmp_path)("usage"))[0] == 4
    assert (await read("usage", "--since", "yesterday"))[0] == 2
    with psycopg.connect(url, autocommit=True, user=reader) as db:
        for statement in (
            "SELECT * FROM billing.app_user",
            "SELECT key_hash FROM billing.api_key",
            "SELECT stripe_account_id FROM billing.withdrawal",
            "INSERT INTO billing.usage SELECT * FROM billing.usage",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                db.execute(statement.encode())
