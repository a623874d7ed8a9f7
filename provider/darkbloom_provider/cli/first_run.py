"""What `darkbloom start` asks whom it has never seen: account, models, memory while idle.

Only on a terminal, and only what no flag has answered.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from darkbloom_provider.file_edit import Value
from darkbloom_provider.picking import GIB, Shelf, switched

IDLE_DEFAULT_MINS = 60
MAX_IDLE_MINS = 10_080
TERMS = (
    "By starting you accept your network's terms for providers. Prompts are opened in this\n"
    "machine's memory only and never written down; what it earns goes to the linked account."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    """What the owner chose."""

    models: tuple[str, ...]
    download: tuple[str, ...]
    """Those of them that are not here yet."""
    idle_timeout_mins: int

    def changes(self) -> dict[str, Value | None]:
        """Return what goes into `provider.toml`."""
        return {
            "backend.enabled_models": self.models,
            "backend.idle_timeout_mins": self.idle_timeout_mins,
        }


def ask(console: Console, shelf: Shelf, chosen: Sequence[str] = ()) -> Answers:
    """Show the picker and the question of idle memory.

    Args:
        console: a terminal.
        shelf: what is offered; not empty.
        chosen: what was chosen before; those that are here when nothing was.
    """
    known = {one.id for one in shelf.offers}
    before = frozenset(chosen) & known or frozenset(one.id for one in shelf.offers if one.here)
    models = pick(console, shelf, before)
    return Answers(
        models=tuple(one.id for one in shelf.offers if one.id in models),
        download=tuple(one.id for one in shelf.offers if one.id in models and not one.here),
        idle_timeout_mins=ask_idle(console),
    )


def pick(console: Console, shelf: Shelf, chosen: frozenset[str]) -> frozenset[str]:
    """Let models be switched on and off until at least one is on and Enter is typed."""
    while True:
        show_shelf(console, shelf, chosen)
        words = "Numbers to switch, a for all, n for none, Enter to go on"
        typed = str(typer.prompt(words, default="", show_default=False))
        if typed.strip():
            try:
                chosen = switched(shelf, chosen, typed)
            except ValueError as error:
                console.print(f"[yellow]{escape(str(error))}[/]")
        elif chosen:
            return chosen
        else:
            console.print("[yellow]choose at least one model[/]")


def show_shelf(console: Console, shelf: Shelf, chosen: frozenset[str]) -> None:
    """Print what is offered, what is on, and what that takes of the memory."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    table.add_column("#", justify="right")
    table.add_column("model", overflow="fold")
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("needs", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for number, one in enumerate(shelf.offers, start=1):
        mark = "[green]\\[x][/]" if one.id in chosen else "\\[ ]"
        table.add_row(
            mark,
            str(number),
            escape(one.id),
            f"{one.size_bytes / 1e9:.1f} GB",
            f"{one.needs_gb} GB",
            "here" if one.here else "download",
        )
    console.print()
    console.print(table)
    needs, usable = shelf.needs_bytes(chosen) / GIB, shelf.usable_bytes / GIB
    console.print(f"Chosen: {len(chosen)}; loaded together {needs:.1f} of {usable:.1f} GB.")
    if needs > usable:
        console.print("[yellow]They take turns: each is loaded when it is asked for.[/]")


def ask_idle(console: Console) -> int:
    """Ask when an idle model gives its memory back; returns minutes, 0 for never."""
    console.print("\nWhen nobody asks for a model:")
    console.print("  1  always ready: it stays in memory")
    console.print(f"  2  free when idle: it leaves after {IDLE_DEFAULT_MINS} minutes")
    console.print("  3  after as many minutes as you say")
    answer = ""
    while answer not in ("1", "2", "3"):
        answer = str(typer.prompt("Choose", default="2")).strip()
    if answer == "1":
        return 0
    if answer == "2":
        return IDLE_DEFAULT_MINS
    return _minutes()


def _minutes() -> int:
    while True:
        typed = str(typer.prompt(f"Minutes, 1 to {MAX_IDLE_MINS}")).strip()
        if typed.isdecimal() and 1 <= int(typed) <= MAX_IDLE_MINS:
            return int(typed)
