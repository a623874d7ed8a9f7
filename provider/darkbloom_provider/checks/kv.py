"""Where requests keep what was read of them, and whether the agent falls over again and again."""

from collections.abc import Iterator
from typing import Final

from darkbloom_provider.checks.model import Check, Scene
from darkbloom_provider.engine.interface import SlotStatus
from darkbloom_provider.service.guard import MAX_RESTARTS, WINDOW_S, Watch
from darkbloom_provider.service.watchdog import read_watch
from darkbloom_provider.state import AgentState

_AT_WORK: Final = (SlotStatus.RUNNING, SlotStatus.IDLE)


def checks(scene: Scene) -> Iterator[Check]:
    """Look at the KV of the running agent, and at what its watchdog remembers."""
    if scene.snapshot is not None:
        yield posture(scene.snapshot)
    watch = read_watch(scene.config.folders.watchdog_state)
    yield guard(watch, scene.clock.now().timestamp())


def posture(snapshot: AgentState) -> Check:
    """Say how KV is kept and whether it has room; there is one backend, so none to fall back to."""
    name = "kv backend posture"
    if snapshot.engine != "mlx-lm":
        detail = f"the engine {snapshot.engine} keeps no KV"
        return Check(name=name, area="models", result="pass", detail=detail)
    working = [one for one in snapshot.slots if one.state in _AT_WORK]
    narrow = [one.model for one in working if one.budget_max == 0]
    if narrow:
        return Check(
            name=name,
            area="models",
            result="warn",
            detail=f"no memory is left for the KV of {', '.join(narrow)}",
            fix="quit other programs, choose fewer or smaller models, or raise "
            "DARKBLOOM_PROVIDER_KV_BUDGET_GB where it is set",
        )
    room = "; ".join(f"{one.model}: {one.budget_used} of {one.budget_max}" for one in working)
    detail = "contiguous, the only backend" + (f"; tokens reserved: {room}" if room else "")
    return Check(name=name, area="models", result="pass", detail=detail)


def guard(watch: Watch, now: float) -> Check:
    """Say whether the watchdog has given up.

    Args:
        watch: what it remembers.
        now: Unix seconds.
    """
    name = "kv backend crash-loop guard"
    if watch.tripped:
        return Check(
            name=name,
            area="agent",
            result="fail",
            detail=f"{watch.version or 'this version'} was started again {MAX_RESTARTS} times "
            "within an hour and ended each time: it is left alone now",
            fix="`darkbloom logs` says how it ended; `darkbloom update`, or `darkbloom start` "
            "to begin anew",
        )
    recent = sum(0 <= now - at < WINDOW_S for at in watch.restarts)
    if recent:
        return Check(
            name=name,
            area="agent",
            result="warn",
            detail=f"started again after a crash: {recent} of {MAX_RESTARTS} times within an hour",
            fix="`darkbloom logs` says how it ended",
        )
    detail = "no crash within the last hour"
    return Check(name=name, area="agent", result="pass", detail=detail)
