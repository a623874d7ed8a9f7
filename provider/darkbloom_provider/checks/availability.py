"""Whether the owner's own wishes keep requests away, and whether a model fits at all."""

from collections.abc import Iterator

from darkbloom_edge.memory import min_ram_gb

from darkbloom_provider.checks.files import wanted
from darkbloom_provider.checks.model import Check, Scene
from darkbloom_provider.engines import DEVELOPMENT_NAMESPACE
from darkbloom_provider.schedule import Schedule
from darkbloom_provider.wording import until


def checks(scene: Scene) -> Iterator[Check]:
    """Look at schedule, privacy and fit."""
    yield _schedule(scene)
    yield _private(scene)
    yield from _fit(scene)


def _schedule(scene: Scene) -> Check:
    windows = scene.settings.windows
    if not windows:
        return Check(
            name="schedule", area="settings", result="pass", detail="no windows: always open"
        )
    now = scene.clock.now()
    phase = Schedule(windows=windows, zone=scene.zone).at(now)
    shown = "; ".join(map(str, windows))
    if phase.open:
        detail = f"open now ({shown})"
        return Check(name="schedule", area="settings", result="pass", detail=detail)
    opens = f", opens {until(phase.until, now, scene.zone)}" if phase.until else ""
    return Check(
        name="schedule",
        area="settings",
        result="warn",
        detail=f"closed now{opens} ({shown})",
        fix="wait, or run `darkbloom schedule --disable` to be open always",
    )


def _private(scene: Scene) -> Check:
    if not scene.config.private_only:
        return Check(
            name="private only", area="settings", result="pass", detail="off: serves everybody"
        )
    source = scene.settings.sources["private_only"]
    fix = (
        "unset DARKBLOOM_PROVIDER_PRIVATE_ONLY"
        if source == "environment"
        else "`darkbloom config set coordinator.private_only false`"
    )
    return Check(
        name="private only",
        area="settings",
        result="warn",
        detail="on: only your own requests come here, and they earn nothing",
        fix=f"to serve everybody: {fix}, then start the agent again",
    )


def _fit(scene: Scene) -> Iterator[Check]:
    have = scene.hardware.memory_gb
    needs = {
        one.manifest.model_id: min_ram_gb(one.manifest.total_size_bytes)
        for one in wanted(scene)
        if not one.manifest.model_id.startswith(DEVELOPMENT_NAMESPACE)
    }
    # A machine sold with 16 GB shows a little less to a virtual one.
    large = {name: need for name, need in needs.items() if need > round(have)}
    if not needs:
        return
    if not large:
        detail = "every chosen model fits"
        yield Check(name="model fit", area="models", result="pass", detail=detail)
        return
    listed = ", ".join(f"{name} needs {need} GB" for name, need in large.items())
    yield Check(
        name="model fit",
        area="models",
        result="fail" if len(large) == len(needs) else "warn",
        detail=f"{listed}; this machine has {have:.0f} GB",
        fix="choose a smaller one: `darkbloom models catalog` marks those that fit",
    )
