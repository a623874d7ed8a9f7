"""`darkbloom doctor`: why this machine earns nothing, and what to do about it."""

import os
import platform
from dataclasses import replace
from importlib import metadata
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from darkbloom_provider.checks import Check, Scene, look, run_checks
from darkbloom_provider.checks.model import AREAS
from darkbloom_provider.cli import context

_MARKS = {"pass": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "red")}
_RANK = ("pass", "warn", "fail")


def doctor(
    strict: Annotated[bool, typer.Option("--strict", help="Also fail on warnings.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    coordinator: Annotated[
        str | None, typer.Option(help="Probe this router (host:port) instead.")
    ] = None,
    support: Annotated[
        bool, typer.Option("--support", help="Print what a helper asks for, as one JSON object.")
    ] = False,
) -> int:
    """Check machine, models, link and trust; say what to do about each finding.

    Exit code 1 on any failure, with `--strict` also on any warning. Nothing is changed and nothing
    is sent: `--support` holds no key, no token and no content.
    """
    settings = context.settings()
    if coordinator is not None:
        config = replace(settings.config, coordinator=coordinator)
        for problem in config.problems():
            raise typer.BadParameter(problem.partition(": ")[2], param_hint="--coordinator")
        settings = replace(settings, config=config)
    scene = look(settings, dict(os.environ))  # noqa: TID251 - looked at, not read for values
    checks = run_checks(scene)
    if support:
        typer.echo(msgspec.json.encode(_support(scene, checks)).decode())
    elif json_:
        typer.echo(msgspec.json.encode(checks).decode())
    else:
        show(Console(highlight=False), checks)
    bad = {"fail", "warn"} if strict else {"fail"}
    return 1 if any(check.result in bad for check in checks) else 0


def show(console: Console, checks: list[Check]) -> None:
    """Print one line for each area, then each check, with what to do below what is not well."""
    width = max(len(area) for area in AREAS)
    for area in AREAS:
        here = [check for check in checks if check.area == area]
        if not here:
            continue
        worst = max((check.result for check in here), key=_RANK.index)
        mark, colour = _MARKS[worst]
        said = ", ".join(check.name for check in here if check.result == worst != "pass")
        console.print(
            f"[{colour}]{mark}[/] [bold]{area:<{width}}[/]  {escape(said) or 'well'}",
            soft_wrap=not console.is_terminal,
        )
    for area in AREAS:
        here = [check for check in checks if check.area == area]
        if here:
            console.print(f"\n[bold]{area}[/]")
        for check in here:
            _show_one(console, check)
    counts = {word: sum(c.result == word for c in checks) for word in _RANK}
    console.print(f"\n{counts['pass']} passed, {counts['warn']} warnings, {counts['fail']} failed")


def _show_one(console: Console, check: Check) -> None:
    mark, colour = _MARKS[check.result]
    _fold(console, Text(mark, style=colour), Text(f"{check.name}: {check.detail}"))
    if check.fix and check.result != "pass":
        _fold(console, Text("   "), Text.assemble(("fix: ", "bold"), check.fix))


def _fold(console: Console, head: Text, text: Text) -> None:
    """Print one finding: folded behind its mark on a terminal, one line in a pipe."""
    if not console.is_terminal:
        console.print(head + " " + text, soft_wrap=True)
        return
    row = Table.grid(padding=(0, 1, 0, 0))
    row.add_row(head, text)
    console.print(row)


def _support(scene: Scene, checks: list[Check]) -> dict[str, object]:
    """Gather facts for whoever helps: versions, which settings differ, the agent's own state."""
    return {
        "version": metadata.version("darkbloom-provider"),
        "python": platform.python_version(),
        "system": platform.platform(),
        "hardware": {
            "model": scene.hardware.machine_model,
            "chip": scene.hardware.chip_name,
            "memory_gb": round(scene.hardware.memory_gb, 1),
        },
        "settings": {
            name: source for name, source in scene.settings.sources.items() if source != "default"
        },
        "models": [one.manifest.model_id for one in scene.stored],
        "state": scene.snapshot,
        "checks": checks,
    }
