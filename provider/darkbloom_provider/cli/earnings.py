"""`darkbloom earnings`: what this machine, and all of its owner's, have earned."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from darkbloom_edge.signatures import to_base64
from rich.console import Console
from rich.table import Table

from darkbloom_provider.account import Account, LoggedOutError, read_login
from darkbloom_provider.cli import context
from darkbloom_provider.config import ProviderConfig
from darkbloom_provider.device_key import open_device_key

MAX_ROWS = 1000
_MICRO = 1_000_000


def earnings(
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    this_machine: Annotated[
        bool, typer.Option("--this-machine", help="List the jobs of this machine only.")
    ] = False,
    limit: Annotated[
        int, typer.Option(min=1, max=MAX_ROWS, help="How many of the newest jobs to list.")
    ] = 10,
) -> None:
    """Show what your machines have earned: sums, machines, and the newest jobs.

    Earnings mature for some days before they can be spent or withdrawn.
    """
    config = context.config()
    found, rows = asyncio.run(_read(config, this_machine=this_machine, limit=limit))
    if json_:
        typer.echo(json.dumps({"summary": found, "earnings": rows}))
        return
    show(found, rows)


async def _read(
    config: ProviderConfig, *, this_machine: bool, limit: int
) -> tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]:
    stored = read_login(config.folders.login)
    if stored is None:
        raise LoggedOutError("this machine is not logged in", "run darkbloom login")
    key = open_device_key(config).public if this_machine else b""
    async with Account(stored.gateway, stored.token) as account:
        summary = await account.earnings_summary()
        return summary, await account.earnings(to_base64(key), limit)


def show(found: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Print sums, wallets, machines and jobs for a person."""
    console = Console(highlight=False)
    for words, field in (
        ("Earned", "lifetime"),
        ("  last 24 h", "last_24h"),
        ("  last 7 d", "last_7d"),
    ):
        jobs = found.get(f"{field}_jobs", 0)
        console.print(f"{words:<14} {usd(found.get(f'{field}_micro_usd')):>16}  {jobs} jobs")
    for words, field in (
        ("Spendable", "available_balance_micro_usd"),
        ("Withdrawable", "withdrawable_balance_micro_usd"),
        ("Maturing", "maturing_balance_micro_usd"),
    ):
        console.print(f"{words:<14} {usd(found.get(field)):>16}")

    machines = Table("machine", "earned", "jobs", "tokens")
    for machine in found.get("machines", ()):
        name = str(machine.get("name") or machine.get("machine_key", ""))[:40]
        earned = usd(machine.get("earnings_micro_usd"))
        machines.add_row(name, earned, str(machine.get("jobs")), str(machine.get("tokens")))
    console.print(machines)

    if not rows:
        console.print("No jobs yet.")
        return
    jobs_table = Table("time (UTC)", "model", "machine", "earned")
    for row in rows:
        jobs_table.add_row(
            str(row.get("created_at", ""))[:19],
            str(row.get("model", "")),
            str(row.get("machine", "")),
            usd(row.get("amount_micro_usd")),
        )
    console.print(jobs_table)


def usd(micros: object) -> str:
    """Write micro-USD as dollars with six decimals, without a float."""
    amount = micros if isinstance(micros, int) else 0
    sign = "-" if amount < 0 else ""
    return f"{sign}${abs(amount) // _MICRO}.{abs(amount) % _MICRO:06d}"
