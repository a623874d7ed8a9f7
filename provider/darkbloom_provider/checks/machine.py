"""The machine: what it is, how it is protected, how much room it has."""

from collections.abc import Iterator
from typing import Final

from darkbloom_provider.checks import mac
from darkbloom_provider.checks.model import GIB, Check, Scene
from darkbloom_provider.hardening import SCRUBBED

MIN_MEMORY_GB: Final = 8.0
MIN_FREE_GB: Final = 2.0
LOW_FREE_GB: Final = 20.0
"""Below it the prefix cache stops to write, and few models can be downloaded."""
_RIVALS: Final = ("ollama", "lm studio", "mlx_lm.server", "llama-server", "vllm", "koboldcpp")


def checks(scene: Scene) -> Iterator[Check]:
    """Look at the machine."""
    yield _hardware(scene)
    yield from _platform(scene)
    yield _environment(scene)
    yield _disk(scene)
    yield _competition(scene)


def _hardware(scene: Scene) -> Check:
    facts = scene.hardware
    detail = f"{facts.chip_name}, {facts.memory_gb:.0f} GB, {facts.cpu_cores_total} cores"
    enough = facts.memory_gb >= MIN_MEMORY_GB
    return Check(
        name="hardware",
        area="machine",
        result="pass" if enough else "fail",
        detail=detail,
        fix=""
        if enough
        else f"serve from a machine with {MIN_MEMORY_GB:.0f} GB or more; this one holds no model",
    )


def _platform(scene: Scene) -> Iterator[Check]:
    if scene.mac:
        yield from mac.checks(scene)
        return
    yield Check(
        name="metal gpu",
        area="machine",
        result="warn",
        detail=f"none on {scene.platform}: models run on the CPU, slowly",
        fix="serve from an Apple-Silicon Mac to earn",
    )
    yield Check(
        name="sip",
        area="machine",
        result="warn",
        detail="System Integrity Protection does not exist on "
        f"{scene.platform}: trust stays `none`",
        fix="serve from an Apple-Silicon Mac for public requests",
    )


def _environment(scene: Scene) -> Check:
    found = [name for name in SCRUBBED if name in scene.environ]
    return Check(
        name="environment",
        area="machine",
        result="warn" if found else "pass",
        detail=f"set here, removed by `darkbloom start`: {', '.join(found)}"
        if found
        else "nothing that injects code",
        fix=f"unset {' '.join(found)}" if found else "",
    )


def _disk(scene: Scene) -> Check:
    root = scene.config.store_root
    existing = next(path for path in (root, *root.parents) if path.exists())
    free = scene.free_bytes(existing) / GIB
    if free < MIN_FREE_GB:
        return Check(
            name="disk space",
            area="machine",
            result="fail",
            detail=f"{free:.1f} GB free at {existing}",
            fix=f"free {MIN_FREE_GB:.0f} GB or more: `darkbloom models list` shows what is large, "
            "`darkbloom models remove` removes it",
        )
    low = free < LOW_FREE_GB
    return Check(
        name="disk space",
        area="machine",
        result="warn" if low else "pass",
        detail=f"{free:.1f} GB free at {existing}",
        fix="a larger model may not fit; `darkbloom models remove` frees space" if low else "",
    )


def _competition(scene: Scene) -> Check:
    names = {name.lower() for name in scene.processes()}
    found = sorted({rival for rival in _RIVALS if any(rival in name for name in names)})
    return Check(
        name="competing inference",
        area="machine",
        result="warn" if found else "pass",
        detail=f"runs beside the agent: {', '.join(found)}" if found else "none found",
        fix="quit it while you serve; both want the same memory" if found else "",
    )
