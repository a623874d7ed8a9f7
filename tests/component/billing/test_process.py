"""The room as a process: migrate, audit, and their exit codes."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from click.testing import Result
from darkbloom_billing.books.seal import seal
from darkbloom_billing.cli import cli
from typer.testing import CliRunner

from tests.component.billing.test_settlements import held
from tests.component.billing.world import START, open_database, owner, world
from tests.stores import Postgres


def run(url: str, *arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
    ours = os.environ.copy()  # noqa: TID251 - what a child inherits, without what is meant for us
    kept = {name: value for name, value in ours.items() if not name.startswith("DARKBLOOM")}
    environ: Mapping[str, str] = {
        **kept,
        "DATABASE_URL": url,
        "DARKBLOOM_ENV": "development",
        **more,
    }
    return subprocess.run(
        [sys.executable, "-m", "darkbloom_billing", *arguments],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def told(url: str, *arguments: str, **more: str) -> Result:
    """Run a command here, in a thread: a process would spend seconds on importing the room."""
    ours = dict.fromkeys(name for name in os.environ if name.startswith("DARKBLOOM"))  # noqa: TID251 - as above
    environ = {**ours, "DATABASE_URL": url, "DARKBLOOM_ENV": "development", **more}
    return await asyncio.to_thread(CliRunner().invoke, cli, list(arguments), env=environ)


async def test_migrate_runs_twice_and_an_empty_ledger_is_sound(cluster: Postgres) -> None:
    with cluster.database() as fresh:
        assert (await asyncio.to_thread(run, fresh, "migrate")).returncode == 0
        assert (await told(fresh, "migrate")).exit_code == 0
        audited = await told(fresh, "audit", "--json")
        assert audited.exit_code == 0, audited.output
        assert json.loads(audited.stdout)["ledger_violations"] == 0


async def test_the_audit_command_names_violations_and_exits_with_1(url: str) -> None:
    async with world(url) as w:
        await w.people()
        await w.settle(w.settlement(await held(w)))
    async with owner(url) as db:
        await db.execute("DELETE FROM billing.usage")
    audited = await told(url, "audit")
    assert audited.exit_code == 1
    assert "violation usage_differs: req_" in audited.stdout


async def test_the_head_command_prints_and_exports_the_sealed_chain(
    url: str, tmp_path: Path
) -> None:
    assert (await told(url, "head")).exit_code == 1
    async with world(url) as w:
        await w.people()
    async with owner(url) as db:
        await db.execute("SET session_replication_role = replica")
        await db.execute("UPDATE ledger.event SET created_at = now() - interval '2 minutes'")
    database = await open_database(url)
    await seal(database, now=START)
    await database.close()

    head = await told(url, "head", "--directory", str(tmp_path))
    assert json.loads(head.stdout)["height"] == 1
    copy = tmp_path / "block-0000000001.json"
    assert json.loads(copy.read_text()) == json.loads(head.stdout)
    seals = {"DARKBLOOM_BILLING_SEAL_DIRECTORY": str(tmp_path)}
    assert (await told(url, "audit", **seals)).exit_code == 0
    copy.write_text(json.dumps({**json.loads(copy.read_text()), "hash": "00"}))
    audited = await told(url, "audit", **seals)
    assert audited.exit_code == 1
    assert "violation block_not_exported: block 1" in audited.stdout


def test_an_unknown_variable_stops_the_start(url: str) -> None:
    refused = run(url, DARKBLOOM_BILLING_TYPO="1")
    assert refused.returncode == 78
    assert "DARKBLOOM_BILLING_TYPO: unknown variable" in refused.stderr
