"""What the running agent knows: its stream, and what the router says of it."""

import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from darkbloom_mesh.clock import Clock

from darkbloom_provider import journal
from darkbloom_provider.agent import STATE_INTERVAL_S
from darkbloom_provider.checks.model import Check, Scene
from darkbloom_provider.checks.network import minimum_version
from darkbloom_provider.state import AgentState
from darkbloom_provider.wording import span

STALE_S = max(8 * STATE_INTERVAL_S, 90.0)
"""Age from which a snapshot is no longer believed."""


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
    yield minimum_version(snapshot.version, snapshot.min_version)
    if snapshot.connection == "registered":
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
    connected = snapshot.connection == "registered"
    return Check(
        name="daemon connected",
        area="agent",
        result="pass" if connected else "fail",
        detail=snapshot.connection if connected else snapshot.last_error or snapshot.connection,
        fix="" if connected else "look at `stream transport`, then at the agent's log",
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
    _runtime,
    _routed,
    _requests,
    _reported,
)
