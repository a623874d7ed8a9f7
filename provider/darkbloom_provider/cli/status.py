"""`darkbloom status`: what the running agent is, whether it is trusted, and what it serves."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated

import msgspec
import typer
from darkbloom_edge.memory import min_ram_gb
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from darkbloom_provider.checks import Scene, files, live, look
from darkbloom_provider.cli import context
from darkbloom_provider.cli.idle import words as idle_words
from darkbloom_provider.schedule import Schedule
from darkbloom_provider.state import AgentState
from darkbloom_provider.wording import span, until

_WELL = frozenset({"registered", "closed", "local"})
"""Connections of an agent that does what its owner wants."""


def status(
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Show what the agent on this machine does, and why it gets requests or none.

    Exit code 0 when it runs and is registered, rests by its schedule, or serves only locally;
    1 otherwise. `darkbloom doctor` says what to do.
    """
    scene = look(context.settings(), dict(os.environ))  # noqa: TID251 - looked at only
    snapshot = scene.snapshot
    if json_:
        fields = msgspec.to_builtins(snapshot) if snapshot is not None else {}
        typer.echo(msgspec.json.encode({**_facts(scene), **fields}).decode())
    else:
        show(Console(highlight=False), scene)
    return 0 if snapshot is not None and snapshot.connection in _WELL else 1


def _facts(scene: Scene) -> dict[str, object]:
    snapshot = scene.snapshot
    return {
        "running": snapshot is not None,
        "stale": snapshot is not None and _stale(scene, snapshot),
        "config_path": str(scene.settings.file.path),
        "idle_timeout_mins": scene.config.idle_timeout_mins,
        "private_only": scene.config.private_only,
        "schedule": [str(window) for window in scene.settings.windows],
        "not_loaded": dict(not_loaded(scene)),
    }


def show(console: Console, scene: Scene) -> None:
    """Print it for a person: the machine, the agent, its standing, its models."""
    snapshot = scene.snapshot
    if snapshot is None:
        ran = scene.config.folders.state.exists()
        word = "is [red]not running[/]" if ran else "has not run here yet"
        console.print(f"The agent {word}. Start it with `darkbloom start`.", soft_wrap=True)
    else:
        _show_agent(console, scene, snapshot)
    _show_wishes(console, scene)
    if snapshot is not None:
        _show_standing(console, snapshot)
        _show_downloads(console, snapshot)
        _show_slots(console, snapshot)
    for name, why in not_loaded(scene):
        _line(console, "Not loaded", f"{escape(name)}: {escape(why)}")
    if snapshot is not None:
        _line(
            console,
            "Served",
            f"{snapshot.requests_served} requests, {snapshot.tokens_generated} tokens; "
            f"{snapshot.unacknowledged_terminals} not settled yet",
        )


def not_loaded(scene: Scene) -> Iterator[tuple[str, str]]:
    """Yield each model of the store that is not in memory, and why."""
    snapshot = scene.snapshot
    slots = {slot.model: slot.state for slot in snapshot.slots} if snapshot is not None else {}
    chosen = {one.manifest.model_id: one for one in files.wanted(scene)}
    for name in sorted({one.manifest.model_id for one in scene.stored}):
        state = slots.get(name)
        if state in ("running", "idle"):
            continue
        if name not in chosen:
            yield name, "not chosen to be served"
        elif min_ram_gb(chosen[name].manifest.total_size_bytes) > round(scene.hardware.memory_gb):
            yield name, "too large for this machine"
        elif snapshot is None:
            yield name, "the agent does not run"
        elif state == "crashed":
            yield name, "its engine failed; the agent's log says how"
        elif state == "reloading":
            yield name, "it is being loaded"
        else:
            yield name, "nobody asks for it; the next request loads it"


def _show_agent(console: Console, scene: Scene, snapshot: AgentState) -> None:
    stale = "[yellow]STALE[/] " if _stale(scene, snapshot) else ""
    up = _uptime(snapshot, scene.clock.now())
    _line(
        console,
        "Agent",
        f"{stale}{escape(snapshot.version)}, process {snapshot.pid}{up}, {escape(snapshot.engine)}",
    )
    router = escape(snapshot.coordinator) or "none yet"
    _line(console, "Router", f"{router} — {_connection(scene, snapshot)}")
    if snapshot.last_error:
        _line(console, "Last error", f"[red]{escape(snapshot.last_error)}[/]")


def _connection(scene: Scene, snapshot: AgentState) -> str:
    if snapshot.connection != "closed" or snapshot.opens_at is None:
        return snapshot.connection
    try:
        opens = datetime.fromisoformat(snapshot.opens_at).astimezone(UTC)
    except ValueError:
        return snapshot.connection
    return f"closed by the schedule, opens {until(opens, scene.clock.now(), scene.zone)}"


def _show_wishes(console: Console, scene: Scene) -> None:
    """Print what the owner has asked for."""
    facts = scene.hardware
    _line(console, "Machine", f"{escape(facts.chip_name)}, {facts.memory_gb:.0f} GB")
    file = scene.settings.file
    there = "" if file.exists else " (not there: defaults hold)"
    _line(console, "Config", f"{escape(str(file.path))}{there}")
    windows = scene.settings.windows
    phase = Schedule(windows=windows, zone=scene.zone).at(scene.clock.now())
    shown = "; ".join(map(str, windows)) or "always open"
    _line(console, "Schedule", shown if phase.open else f"[yellow]closed now[/] ({shown})")
    _line(console, "When idle", idle_words(scene.config.idle_timeout_mins))
    if scene.config.private_only:
        _line(console, "Serves", "[yellow]only its owner[/] (private_only)")


def _show_standing(console: Console, snapshot: AgentState) -> None:
    account = escape(snapshot.account_id) or "[yellow]linked to no account: no paid requests[/]"
    _line(console, "Earns for", account)
    reason = f" — {escape(snapshot.trust_reason)}" if snapshot.trust_reason else ""
    _line(
        console,
        "Trust:",
        f"{escape(snapshot.trust_level)} / {escape(snapshot.trust_status or 'unknown')}"
        f"{f', admitted as {escape(snapshot.admission)}' if snapshot.admission else ''}{reason}",
    )
    if snapshot.trust_remedy:
        _line(console, "", f"to do: {escape(snapshot.trust_remedy)}")
    if snapshot.runtime_mismatches:
        parts = ", ".join(map(escape, snapshot.runtime_mismatches))
        _line(console, "Code", f"[yellow]not a known release[/] ({parts})")
    for model in snapshot.accepted_models:
        _line(console, "Serves", f"[green]{escape(model)}[/]")
    for routed in snapshot.routing:
        if not routed.eligible:
            _line(
                console,
                "No requests",
                f"for {escape(routed.id)}: [yellow]{escape(routed.reason)}[/]"
                f" — {escape(routed.evidence)}; {escape(routed.remedy)}",
            )
    for rejected in snapshot.rejected_models:
        detail = f": {escape(rejected.detail)}" if rejected.detail else ""
        _line(console, "Not routed", f"{escape(rejected.id)} ({escape(rejected.reason)}){detail}")


def _show_downloads(console: Console, snapshot: AgentState) -> None:
    for one in snapshot.downloads:
        done = f", {one.done_bytes:,} of {one.total_bytes:,} bytes" if one.total_bytes else ""
        why = f": [yellow]{escape(one.reason)}[/], see docs/models.md" if one.reason else ""
        text = f"{escape(one.model)} {escape(one.version)}, {escape(one.state)}{done}{why}"
        _line(console, "Wanted", text)


def _show_slots(console: Console, snapshot: AgentState) -> None:
    for slot in snapshot.slots:
        pace = f", {slot.decode_tps:.1f} tokens/s a request" if slot.decode_tps else ""
        _line(
            console,
            "Slot",
            f"{escape(slot.model)}: {slot.state}, {slot.running} running, {slot.waiting} waiting, "
            f"{slot.budget_used} of {slot.budget_max} tokens reserved{pace}",
        )


def _stale(scene: Scene, snapshot: AgentState) -> bool:
    return live.age_s(snapshot, scene.clock) > live.STALE_S


def _uptime(snapshot: AgentState, now: datetime) -> str:
    try:
        started = datetime.fromisoformat(snapshot.started_at).astimezone(UTC)
    except ValueError:
        return ""
    return f", up {span((now - started).total_seconds())}"


def _line(console: Console, head: str, text: str) -> None:
    """Print one fact; folded under itself on a terminal, whole in a pipe."""
    if not console.is_terminal:
        console.print(f"{head:<11} {text}", soft_wrap=True)
        return
    row = Table.grid(padding=(0, 1))
    row.add_column(width=11, style="bold")
    row.add_column(overflow="fold")
    row.add_row(head, text)
    console.print(row)
