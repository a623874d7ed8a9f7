"""`darkbloom earnings`: what this machine, and all of its owner's, have earned."""

import asyncio
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from darkbloom_edge.signatures import to_base64
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from darkbloom_provider.account import Account, LoggedOutError, read_login
from darkbloom_provider.cli import context
from darkbloom_provider.config import ProviderConfig
from darkbloom_provider.device_key import open_device_key

MAX_ROWS = 1000
_SPANS = (7, 30, 90)
_MICRO = 1_000_000
_SUMS = (
    ("Earned", "lifetime_micro_usd", "lifetime_jobs"),
    ("  last 24 h", "last_24h_micro_usd", "last_24h_jobs"),
    ("  last 7 d", "last_7d_micro_usd", "last_7d_jobs"),
    ("Available", "available_balance_micro_usd", ""),
    ("Withdrawable", "withdrawable_balance_micro_usd", ""),
    ("Maturing", "maturing_balance_micro_usd", ""),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What the gateway said."""

    summary: Mapping[str, Any]
    """Sums of the account and its machines."""
    work: Sequence[Mapping[str, Any]]
    """By UTC day, model and machine."""
    jobs: Sequence[Mapping[str, Any]]
    """The newest."""
    days: int
    """How far back `work` goes."""

    def sums(self, key: str) -> dict[str, tuple[int, int]]:
        """Return (micro-USD, jobs) by `model` or `day`."""
        micros: defaultdict[str, int] = defaultdict(int)
        jobs: defaultdict[str, int] = defaultdict(int)
        for row in self.work:
            micros[str(row.get(key, ""))] += _whole(row.get("earnings_micro_usd"))
            jobs[str(row.get(key, ""))] += _whole(row.get("jobs"))
        return {name: (micros[name], jobs[name]) for name in micros}


def earnings(
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    node: Annotated[
        bool,
        typer.Option(
            "--node", "--this-machine", help="Days, models and jobs of this machine only."
        ),
    ] = False,
    limit: Annotated[
        int, typer.Option(min=1, max=MAX_ROWS, help="How many of the newest jobs to list.")
    ] = 50,
    days: Annotated[int, typer.Option(help="How far back days and models go: 7, 30 or 90.")] = 7,
) -> None:
    """Show what your machines have earned: sums, days, models, machines, and the newest jobs.

    Earnings mature for some days before they can be spent or withdrawn.

    Examples: `darkbloom earnings --limit 5`, `darkbloom earnings --node --days 30 --json`.
    """
    if days not in _SPANS:
        raise typer.BadParameter("must be 7, 30 or 90", param_hint="--days")
    found = asyncio.run(_read(context.config(), node=node, limit=limit, days=days))
    if not json_:
        show(found)
        return
    facts = {
        "summary": found.summary,
        "days": found.days,
        "by_day": _listed(found, "day"),
        "by_model": _listed(found, "model"),
        "earnings": found.jobs,
    }
    typer.echo(json.dumps(facts))


async def _read(config: ProviderConfig, *, node: bool, limit: int, days: int) -> Found:
    stored = read_login(config.folders.login)
    if stored is None:
        raise LoggedOutError("this machine is not logged in", "run darkbloom login")
    machine = to_base64(open_device_key(config).public) if node else ""
    async with Account(stored.gateway, stored.token) as account:
        return Found(
            summary=await account.earnings_summary(),
            work=await account.days(machine, days),
            jobs=await account.earnings(machine, limit),
            days=days,
        )


def _listed(found: Found, key: str) -> list[dict[str, Any]]:
    return [
        {key: name, "earnings_micro_usd": micros, "jobs": jobs}
        for name, (micros, jobs) in sorted(found.sums(key).items())
    ]


def show(found: Found) -> None:
    """Print sums, wallets, days, models, machines and jobs for a person."""
    console = Console(highlight=False)
    for words, field, jobs in _SUMS:
        count = f"  {found.summary.get(jobs, 0)} jobs" if jobs else ""
        console.print(f"{words:<14}{usd(found.summary.get(field)):>16}{count}")
    _show_sums(console, f"Day (UTC), last {found.days}", found.sums("day"))
    _show_sums(console, "Model", found.sums("model"))
    _show_machines(console, found.summary.get("machines", ()))
    _show_jobs(console, found.jobs)


def _show_sums(console: Console, title: str, sums: Mapping[str, tuple[int, int]]) -> None:
    if not sums:
        return
    table = _table((title, "left"), ("earned", "right"), ("jobs", "right"))
    for name, (micros, jobs) in sorted(sums.items()):
        table.add_row(escape(name), usd(micros), str(jobs))
    console.print("", table, sep="\n")


def _show_machines(console: Console, machines: Sequence[Mapping[str, Any]]) -> None:
    if not machines:
        return
    table = _table(("Machine", "left"), ("earned", "right"), ("jobs", "right"), ("tokens", "right"))
    for machine in machines:
        name = str(machine.get("name") or machine.get("machine_key", ""))[:40]
        earned = usd(machine.get("earnings_micro_usd"))
        jobs, tokens = _whole(machine.get("jobs")), _whole(machine.get("tokens"))
        table.add_row(escape(name), earned, str(jobs), str(tokens))
    console.print("", table, sep="\n")


def _show_jobs(console: Console, jobs: Sequence[Mapping[str, Any]]) -> None:
    if not jobs:
        console.print("\nNo jobs yet. `darkbloom doctor` says what keeps them away.")
        return
    table = _table(("Newest (UTC)", "left"), ("model", "left"), ("earned", "right"))
    for row in jobs:
        when = str(row.get("created_at", ""))[:19].replace("T", " ")
        table.add_row(when, escape(str(row.get("model", ""))), usd(row.get("amount_micro_usd")))
    console.print("", table, sep="\n")


def _table(*columns: tuple[str, Any]) -> Table:
    """Return a table without rules, which reads the same in a pipe."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, side in columns:
        table.add_column(title, justify=side, no_wrap=side == "right", overflow="fold")
    return table


def usd(micros: object) -> str:
    """Write micro-USD as dollars with six decimals, without a float."""
    amount = _whole(micros)
    sign = "-" if amount < 0 else ""
    return f"{sign}${abs(amount) // _MICRO}.{abs(amount) % _MICRO:06d}"


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
