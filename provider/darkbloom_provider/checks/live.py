"""What the running agent knows: its stream, and what the router says of it."""

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from darkbloom_mesh.clock import Clock

from darkbloom_provider import journal
from darkbloom_provider.agent import STATE_INTERVAL_S
from darkbloom_provider.checks.model import Check, Scene
from darkbloom_provider.checks.network import minimum_version
from darkbloom_provider.code_release import file_hash
from darkbloom_provider.state import AgentState
from darkbloom_provider.wishes import Reason
from darkbloom_provider.wording import span

STALE_S = max(8 * STATE_INTERVAL_S, 90.0)
"""Age from which a snapshot is no longer believed."""

_MEANT: Mapping[str, str] = {
    "registered": "registered",
    "closed": "rests by the schedule",
    "local": "serves only this machine's own programs, as it was started",
}
"""Connections that are as the owner wants them."""
_PASSING: Mapping[str, str] = {
    "loading": "models are being loaded",
    "draining": "running work is being finished",
}
_DOWNLOAD_FIXES: Mapping[str, str] = {
    Reason.DISK_FULL: "make room, or `darkbloom models location PATH`",
    Reason.DOES_NOT_FIT: "nothing: this machine is too small for it",
    Reason.CAPABILITY_MISSING: "nothing: this machine cannot serve it",
    Reason.PREFETCH_OFF: "nothing, or fetch it yourself: `darkbloom models download ORG/NAME`",
    Reason.NO_GATEWAY: "`darkbloom config set coordinator.gateway https://…`",
    Reason.UNTRUSTED_MANIFEST: "ask your operator for the catalog's new key (docs/models.md)",
    Reason.NOT_IN_CATALOG: "nothing: the network has taken it back",
    Reason.UNREACHABLE: "look at `coordinator health`; it is tried again by itself",
    Reason.STORE_UNUSABLE: "`darkbloom models location --check` says what is wrong",
    Reason.CORRUPT: "`darkbloom models download ORG/NAME` asks the next place",
    Reason.LOAD_FAILED: "`darkbloom models verify`; `darkbloom logs` says how it failed",
}
"""What an owner can do about each reason."""


def checks(scene: Scene) -> Iterator[Check]:
    """Look at the running agent through its snapshot."""
    snapshot = scene.snapshot
    if snapshot is None:
        yield Check(
            name="daemon",
            area="agent",
            result="fail",
            detail="the agent does not run",
            fix="`darkbloom start`",
        )
        yield _usage(journal.count(scene.config.folders.terminals))
        return
    yield Check(name="daemon", area="agent", result="pass", detail=f"process {snapshot.pid}")
    yield _fresh(snapshot, scene.clock)
    yield _connected(snapshot)
    yield from _protected(snapshot)
    if scene.awake is not None:
        yield _sleep(awake=scene.awake)
    yield minimum_version(snapshot.version, snapshot.min_version)
    if snapshot.connection == "registered":
        yield binary(snapshot, file_hash(Path(sys.executable).resolve()))
        yield from (check(snapshot) for check in _LIVE_CHECKS)


def age_s(snapshot: AgentState, clock: Clock) -> float:
    """Return how old a snapshot is, in seconds."""
    try:
        written = datetime.fromisoformat(snapshot.updated_at).astimezone(UTC)
    except ValueError:
        return math.inf
    return (clock.now() - written).total_seconds()


def _fresh(snapshot: AgentState, clock: Clock) -> Check:
    age = age_s(snapshot, clock)
    if age <= STALE_S:
        return Check(
            name="daemon state freshness", area="agent", result="pass", detail="just written"
        )
    shown = span(age) if math.isfinite(age) else "unknown"
    return Check(
        name="daemon state freshness",
        area="agent",
        result="fail",
        detail=f"the agent last wrote its state {shown} ago",
        fix="it hangs, or its disk is full: look at `disk space`, then start it again",
    )


def _connected(snapshot: AgentState) -> Check:
    said = _MEANT.get(snapshot.connection)
    if said is not None:
        return Check(name="daemon connected", area="agent", result="pass", detail=said)
    waits = _PASSING.get(snapshot.connection)
    if waits is not None and not snapshot.last_error:
        return Check(
            name="daemon connected",
            area="agent",
            result="warn",
            detail=waits,
            fix="wait a minute, then ask again",
        )
    return Check(
        name="daemon connected",
        area="agent",
        result="fail",
        detail=snapshot.last_error or snapshot.connection,
        fix="look at `stream transport`, then at `darkbloom logs`",
    )


def _protected(snapshot: AgentState) -> Iterator[Check]:
    """Yield what the agent measured of its own protection."""
    rows = (
        ("debugger", "anti_debug_enabled", "no other program may look into its memory"),
        ("core dumps", "core_dumps_disabled", "its memory is never written to disk"),
    )
    for name, field, what in rows:
        holds = snapshot.protections.get(field)
        if holds is not None:
            yield Check(
                name=name,
                area="trust",
                result="pass" if holds else "fail",
                detail=what if holds else f"not in force: {what}",
                fix="" if holds else "end what traces it (debugger, profiler), then start it again",
            )


def _sleep(*, awake: bool) -> Check:
    return Check(
        name="sleep prevention",
        area="machine",
        result="pass" if awake else "warn",
        detail="the machine stays awake while it serves"
        if awake
        else "the machine may fall asleep, and then earns nothing",
        fix=""
        if awake
        else "serve in the background (`darkbloom start`), or switch sleep off in the settings",
    )


def _trust(snapshot: AgentState) -> Check:
    detail = f"{snapshot.trust_level} / {snapshot.trust_status or 'unknown'}"
    why = snapshot.trust_reason
    if snapshot.trust_status == "untrusted":
        return Check(
            name="trust level",
            area="trust",
            result="fail",
            detail=f"{detail}: {why}" if why else detail,
            fix=snapshot.trust_remedy or f"correct what it names ({why})"
            if why
            else "look at the agent's log, then start it again",
        )
    if snapshot.admission != "public":
        admitted = snapshot.admission or "nobody"
        return Check(
            name="trust level",
            area="trust",
            result="warn",
            detail=f"{detail}, admitted for: {admitted}{f' ({why})' if why else ''}",
            fix=snapshot.trust_remedy or "public requests need hardware evidence",
        )
    return Check(name="trust level", area="trust", result="pass", detail=detail)


def _runtime(snapshot: AgentState) -> Check:
    if snapshot.runtime_verified is False or snapshot.runtime_mismatches:
        parts = ", ".join(snapshot.runtime_mismatches) or "code release"
        return Check(
            name="runtime integrity",
            area="trust",
            result="fail",
            detail=f"not a known release: {parts}",
            fix="`darkbloom update`, or install a released version of the agent",
        )
    return Check(
        name="runtime integrity", area="trust", result="pass", detail="no mismatch reported"
    )


def _level(snapshot: AgentState) -> Check:
    """Say whether the level that the router gives is the one that its requests ask for."""
    below = [one for one in snapshot.routing if not one.eligible and one.reason == "trust_floor"]
    if below:
        return Check(
            name="coordinator trust",
            area="trust",
            result="warn",
            detail="; ".join(f"{one.id}: {one.evidence}" for one in below),
            fix="correct what `trust level` names; public requests ask for more than this machine "
            "has proven",
        )
    return Check(
        name="coordinator trust",
        area="trust",
        result="pass",
        detail=f"it gives {snapshot.trust_level}, and no build asks for more",
    )


def binary(snapshot: AgentState, digest: str) -> Check:
    """Say whether the router knows this interpreter.

    Args:
        snapshot: what the router said.
        digest: SHA-256 of the interpreter, as measured here, hex.
    """
    shown = f"interpreter {digest[:12]}"
    if "python" in snapshot.runtime_mismatches:
        return Check(
            name="binary hash",
            area="trust",
            result="fail",
            detail=f"{shown}, not the one of a known release",
            fix="`darkbloom update`, or install a released version of the agent",
        )
    known = "as a known release has it" if snapshot.runtime_verified else "the router names none"
    return Check(name="binary hash", area="trust", result="pass", detail=f"{shown}, {known}")


def _routed(snapshot: AgentState) -> Check:
    if snapshot.accepted_models:
        accepted = ", ".join(snapshot.accepted_models)
        return Check(
            name="coordinator models", area="models", result="pass", detail=f"routed: {accepted}"
        )
    refused = "; ".join(f"{m.id}: {m.reason} {m.detail}".strip() for m in snapshot.rejected_models)
    return Check(
        name="coordinator models",
        area="models",
        result="fail",
        detail=refused or "the router accepted no model",
        fix="serve a build of the catalog, with the catalog's bytes",
    )


def _loads(snapshot: AgentState) -> Check:
    crashed = [slot.model for slot in snapshot.slots if slot.state == "crashed"]
    return Check(
        name="recent model load",
        area="models",
        result="fail" if crashed else "pass",
        detail=f"its engine failed: {', '.join(crashed)}"
        if crashed
        else f"in memory: {', '.join(slot.model for slot in snapshot.slots) or 'none now'}",
        fix="`darkbloom models verify`, then `darkbloom restart`; `darkbloom logs` says how it was"
        if crashed
        else "",
    )


def _downloads(snapshot: AgentState) -> Check:
    stuck = [one for one in snapshot.downloads if one.state in ("failed", "refused")]
    if not stuck:
        coming = ", ".join(one.model for one in snapshot.downloads)
        detail = f"on their way: {coming}" if coming else "nothing is wanted that is not here"
        return Check(name="model downloads", area="models", result="pass", detail=detail)
    fixes = (_DOWNLOAD_FIXES.get(one.reason, "it is tried again by itself") for one in stuck)
    return Check(
        name="model downloads",
        area="models",
        result="warn",
        detail="; ".join(f"{one.model}: {one.state}, {one.reason}" for one in stuck),
        fix="; ".join(dict.fromkeys(fixes)),
    )


def _requests(snapshot: AgentState) -> Check:
    shut = [one for one in snapshot.routing if not one.eligible]
    if not shut:
        return Check(
            name="requests", area="trust", result="pass", detail="no gate is shut for any build"
        )
    return Check(
        name="requests",
        area="trust",
        # A busy machine fails a gate as well; what is broken fails a check of its own.
        result="warn",
        detail="; ".join(f"{one.id}: {one.reason}, {one.evidence}" for one in shut),
        fix="; ".join(dict.fromkeys(one.remedy for one in shut if one.remedy)),
    )


def _reported(snapshot: AgentState) -> Check:
    return _usage(snapshot.unacknowledged_terminals)


def _usage(waiting: int) -> Check:
    if waiting == 0:
        return Check(
            name="usage reporting", area="account", result="pass", detail="everything is settled"
        )
    return Check(
        name="usage reporting",
        area="account",
        result="warn",
        detail=f"{waiting} answers are not settled yet",
        fix="they are sent again with the next connection; keep the agent running",
    )


_LIVE_CHECKS: tuple[Callable[[AgentState], Check], ...] = (
    _trust,
    _level,
    _runtime,
    _routed,
    _loads,
    _downloads,
    _requests,
    _reported,
)
