"""`darkbloom status`: what the running agent is, whether it is trusted, and what it serves."""

import math
from datetime import UTC, datetime
from typing import Annotated

import msgspec
import typer
from darkbloom_mesh.clock import SystemClock
from rich.console import Console
from rich.markup import escape

from darkbloom_provider import lock, state
from darkbloom_provider.cli import context
from darkbloom_provider.state import AgentState

STALE_S = 90.0
"""Age from which a snapshot is no longer believed."""


def status(
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Show what the agent on this machine does, and why it gets requests or none.

    Exit code 0 when it runs and is registered, 1 otherwise.
    """
    config = context.config()
    home = config.folders
    snapshot = state.read(home.state)
    running = lock.holder(home.lock) is not None
    if json_:
        fields = msgspec.to_builtins(snapshot) if snapshot is not None else {}
        typer.echo(msgspec.json.encode({"running": running, **fields}).decode())
    else:
        _show(Console(highlight=False), snapshot, running=running)
    good = running and snapshot is not None and snapshot.connection == "registered"
    return 0 if good else 1


def age_s(snapshot: AgentState) -> float:
    """Return how old a snapshot is, in seconds."""
    try:
        written = datetime.fromisoformat(snapshot.updated_at).astimezone(UTC)
    except ValueError:
        return math.inf
    return (SystemClock().now() - written).total_seconds()


def _show_trust(console: Console, snapshot: AgentState) -> None:
    reason = f" — {escape(snapshot.trust_reason)}" if snapshot.trust_reason else ""
    console.print(
        f"Trust: {snapshot.trust_level} / {snapshot.trust_status or 'unknown'}"
        f"{f', admitted as {snapshot.admission}' if snapshot.admission else ''}{reason}"
    )
    if snapshot.trust_remedy:
        console.print(f"  to do: {escape(snapshot.trust_remedy)}", soft_wrap=True)


def _show(console: Console, snapshot: AgentState | None, *, running: bool) -> None:
    if snapshot is None:
        console.print("The agent has not run here yet. Start it with `darkbloom start`.")
        return
    if not running:
        console.print("The agent is [red]not running[/]. Start it with `darkbloom start`.")
        return
    stale = "[yellow]STALE[/] " if age_s(snapshot) > STALE_S else ""
    console.print(f"{stale}agent {snapshot.version}, process {snapshot.pid}, {snapshot.engine}")
    console.print(f"Router: {escape(snapshot.coordinator)} — {snapshot.connection}")
    if snapshot.last_error:
        console.print(f"Last error: [red]{escape(snapshot.last_error)}[/]")
    account = escape(snapshot.account_id) or "[yellow]linked to no account: no paid requests[/]"
    console.print(f"Earns for: {account}")
    _show_trust(console, snapshot)
    if snapshot.runtime_mismatches:
        parts = ", ".join(snapshot.runtime_mismatches)
        console.print(f"Code: [yellow]not a known release[/] ({parts})")
    for model in snapshot.accepted_models:
        console.print(f"Serves [green]{model}[/]")
    for routed in snapshot.routing:
        if not routed.eligible:
            console.print(
                f"No requests for {escape(routed.id)}: [yellow]{escape(routed.reason)}[/]"
                f" — {escape(routed.evidence)}; {escape(routed.remedy)}"
            )
    for rejected in snapshot.rejected_models:
        detail = f": {escape(rejected.detail)}" if rejected.detail else ""
        console.print(f"Not routed: {escape(rejected.id)} ({rejected.reason}){detail}")
    for slot in snapshot.slots:
        pace = f", {slot.decode_tps:.1f} tokens/s a request" if slot.decode_tps else ""
        console.print(
            f"Slot {slot.model}: {slot.state}, {slot.running} running, {slot.waiting} waiting, "
            f"{slot.budget_used} of {slot.budget_max} tokens reserved{pace}"
        )
    console.print(
        f"Served {snapshot.requests_served} requests, {snapshot.tokens_generated} tokens; "
        f"{snapshot.unacknowledged_terminals} not settled yet"
    )
