"""The table of docs/operations/drills.md: what the code says of a drill, and the last figures."""

from collections.abc import Mapping
from typing import Any

from tests.drills.drill import Drill

HEAD = "| Drill | What holds | Runbook | What is lost | Requests | Cents | Well after |"
_NO_FIGURE = "?"


def said(drill: Drill) -> str:
    """Return the part of a drill's row that the code decides."""
    links = ", ".join(f"[{name}](runbooks/{name}.md)" for name in drill.runbooks)
    return f"| `{drill.name}` | {drill.claim} | {links} | {drill.expected} |"


def row(drill: Drill, result: Mapping[str, Any]) -> str:
    """Return a drill's whole row."""
    if "recovery_s" not in result:
        why = result.get("skipped", "not measured")
        return f"{said(drill)} {_NO_FIGURE} | {_NO_FIGURE} | {why} |"
    lost, cents = result["lost_requests"], result["lost_cents"]
    return f"{said(drill)} {lost} | {cents:g} | {result['recovery_s']:.1f} s |"
