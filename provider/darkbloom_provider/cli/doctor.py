"""`darkbloom doctor`: why this machine earns nothing, and what to do about it."""

import os
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.markup import escape

from darkbloom_provider.checks import Check, run_checks
from darkbloom_provider.cli import context

_MARKS = {"pass": "[green]✓[/]", "warn": "[yellow]![/]", "fail": "[red]✗[/]"}


def doctor(
    strict: Annotated[bool, typer.Option("--strict", help="Also fail on warnings.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Check machine, models, link and trust; say what to do about each finding.

    Exit code 1 on any failure, with `--strict` also on any warning.
    """
    config = context.config()
    checks = run_checks(config, dict(os.environ))  # noqa: TID251 - looked at, not read for values
    if json_:
        typer.echo(msgspec.json.encode(checks).decode())
    else:
        _show(Console(highlight=False), checks)
    bad = {"fail", "warn"} if strict else {"fail"}
    return 1 if any(check.result in bad for check in checks) else 0


def _show(console: Console, checks: list[Check]) -> None:
    for check in checks:
        console.print(
            f"{_MARKS[check.result]} {check.name}: {escape(check.detail)}", soft_wrap=True
        )
        if check.fix and check.result != "pass":
            console.print(f"    {escape(check.fix)}", soft_wrap=True)
    counts = {word: sum(c.result == word for c in checks) for word in ("pass", "warn", "fail")}
    console.print(f"{counts['pass']} passed, {counts['warn']} warnings, {counts['fail']} failed")
