"""`darkbloom schedule`: the hours of the week in which this machine is lent out."""

import json
import os
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import typer
from darkbloom_mesh.clock import SystemClock
from rich.console import Console
from rich.markup import escape

from darkbloom_provider.cli import context
from darkbloom_provider.errors import ProviderError
from darkbloom_provider.file_edit import edit
from darkbloom_provider.file_keys import SCHEDULE_ENABLED, SCHEDULE_WINDOWS
from darkbloom_provider.schedule import Schedule, Window, WindowError
from darkbloom_provider.window_words import as_row, parse_words
from darkbloom_provider.wording import until
from darkbloom_provider.zone import local_zone

LATER = "The agent takes it when it starts again: darkbloom restart"


def schedule(
    show: Annotated[bool, typer.Option("--show", help="Print the windows and stop.")] = False,
    add: Annotated[
        list[str] | None,
        typer.Option(help="Add a window, such as `mon-fri 22:00-06:00`; repeat for more."),
    ] = None,
    remove: Annotated[
        list[int] | None, typer.Option(help="Remove the window of this number; repeat for more.")
    ] = None,
    enable: Annotated[
        bool | None,
        typer.Option("--enable/--disable", help="Keep to the windows, or be open always."),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Choose when this machine serves; without flags, on a terminal, ask.

    A window whose end is not after its start goes on past midnight and belongs to the day on which
    it starts. When a window closes, running work is finished first. Times are those of the wall
    clock here, also when the clocks change.

    Examples: `darkbloom schedule --add "mon-fri 22:00-07:00" --add weekend`,
    `darkbloom schedule --remove 1`, `darkbloom schedule --disable`.
    """
    file = context.settings().file
    windows, enabled = list(file.windows), file.schedule_enabled
    changed = bool(add or remove or enable is not None)
    if changed and not show:
        windows = _without(windows, remove or ())
        windows += [_parse(text) for text in add or ()]
        enabled = enable if enable is not None else bool(windows) if add else enabled
        save(windows, enabled=enabled)
    elif not show and not json_ and sys.stdin.isatty():
        windows, enabled = _edit(windows, enabled=enabled)
        changed = True
        save(windows, enabled=enabled)
    _say(windows, enabled=enabled, changed=changed and not show, json_=json_)


def save(windows: Sequence[Window], *, enabled: bool) -> None:
    """Keep the windows in `provider.toml`."""
    rows = tuple(as_row(window) for window in windows)
    edit(
        context.config_path(),
        {SCHEDULE_ENABLED: enabled, SCHEDULE_WINDOWS: rows or None},
    )


def _say(windows: Sequence[Window], *, enabled: bool, changed: bool, json_: bool) -> None:
    zone = local_zone(os.environ.get("TZ"))  # noqa: TID251 - the system's own variable
    now = SystemClock().now()
    phase = Schedule(windows=tuple(windows) if enabled else (), zone=zone).at(now)
    if json_:
        facts = {
            "enabled": enabled,
            "windows": [as_row(window) for window in windows],
            "zone": str(zone),
            "open": phase.open,
            "until": phase.until.isoformat() if phase.until else None,
        }
        typer.echo(json.dumps(facts))
        return
    console = Console(highlight=False)
    list_windows(console, windows)
    if not enabled:
        console.print("Not in force: this machine is open always.")
    else:
        state = "[green]open[/]" if phase.open else "[yellow]closed[/]"
        console.print(f"Now {state}{_change(phase.until, phase.open, now)} ({escape(str(zone))}).")
    if changed:
        console.print(LATER)


def _change(moment: datetime | None, opened: bool, now: datetime) -> str:
    if moment is None:
        return ""
    zone = local_zone(os.environ.get("TZ"))  # noqa: TID251 - the system's own variable
    return f", {'closes' if opened else 'opens'} {until(moment, now, zone)}"


def list_windows(console: Console, windows: Sequence[Window]) -> None:
    """Print the windows with their numbers."""
    if not windows:
        console.print("No windows.")
    for number, window in enumerate(windows, start=1):
        past = "" if window.end > window.start else "  (to the next day)"
        console.print(f"{number}  {window}{past}")


def _edit(windows: list[Window], *, enabled: bool) -> tuple[list[Window], bool]:
    """Ask until Enter."""
    console = Console(highlight=False)
    console.print("When is this machine lent out? Type a window to add it,")
    console.print("`-1` to remove the first, `on` or `off`, and Enter when it is right.\n")
    while True:
        list_windows(console, windows)
        console.print("In force." if enabled else "Not in force: open always.")
        typed = str(typer.prompt("Window", default="", show_default=False)).strip()
        if not typed:
            return windows, enabled
        try:
            if typed in ("on", "off"):
                enabled = typed == "on"
            elif typed[0] == "-" and typed[1:].isdecimal():
                windows = _without(windows, (int(typed[1:]),))
            else:
                windows, enabled = [*windows, parse_words(typed)], True
        except (WindowError, ProviderError) as error:
            console.print(f"[yellow]{escape(str(error))}[/]")


def _parse(text: str) -> Window:
    try:
        return parse_words(text)
    except WindowError as error:
        raise typer.BadParameter(str(error), param_hint="--add") from None


def _without(windows: list[Window], numbers: Sequence[int]) -> list[Window]:
    for number in numbers:
        if not 1 <= number <= len(windows):
            raise ProviderError(
                f"there is no window {number}", "`darkbloom schedule --show` numbers them"
            )
    return [one for at, one in enumerate(windows, start=1) if at not in numbers]
