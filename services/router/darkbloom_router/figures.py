"""The fleet in figures, as gauges show it: sums and shares, never a single machine."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from darkbloom_mesh.labels import CHIP, OTHER
from darkbloom_mesh.telemetry import UNKNOWN

from darkbloom_router.groups import BuildIndex
from darkbloom_router.model import Admission
from darkbloom_router.provider import Provider
from darkbloom_router.versions import version_key

_GB = 1e9


def chip_label(family: str) -> str:
    """Return a chip family as metrics and traces may name it: providers say it themselves."""
    if not family:
        return UNKNOWN
    word = family.strip().lower()
    return word if word in CHIP.words else OTHER


def release_label(version: str) -> str:
    """Return the version of an agent, such as `0.9.12`, so that a bad patch can be told apart."""
    major, minor, patch, final = version_key(version)
    if major < 0:
        return UNKNOWN
    return f"{major}.{minor}.{patch}" if final else "prerelease"


def release_of(provider: Provider) -> str:
    """Return the release that a machine may be counted under.

    The version is the agent's own word, and metrics show a few of them for a process's life. Who
    is admitted to everybody's requests runs blessed code; an owner's own machine is only `other`.
    """
    if provider.verdict is None or provider.untrusted:
        return UNKNOWN
    known = provider.runtime_verified and provider.verdict.admission is not Admission.OWNER
    return release_label(provider.version) if known else OTHER


@dataclass(frozen=True, slots=True)
class BuildFigures:
    """What the machines of one build could do, and what is asked of them."""

    decode_tps: float
    """Sum of the measured paces."""
    serving: int
    """Attempts at once."""
    demand: int
    """Attempts that run and requests that wait."""

    @property
    def utilization(self) -> float | None:
        """Demand in parts of what can be served; None where nothing can."""
        return self.demand / self.serving if self.serving else None


def of_build(index: BuildIndex, waiting: int) -> BuildFigures:
    """Sum up the machines on which no gate is shut by its state alone."""
    tps, serving = 0.0, 0
    for key, members in index.groups.items():
        if not key.gate:
            for row in members:
                serving += row.concurrency_cap
                tps += row.reported_tps
    return BuildFigures(tps, serving, index.active + waiting)


@dataclass(slots=True)
class FleetFigures:
    """Everybody who is connected."""

    standing: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By state and trust."""
    releases: Counter[str] = field(default_factory=Counter)
    memory: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Bytes by kind and chip family."""
    challenge_age_s: float = 0.0
    """Age of the oldest passed challenge of somebody online."""


def of_fleet(providers: Iterable[Provider], now: float) -> FleetFigures:
    """Count everybody once."""
    found = FleetFigures()
    for provider in providers:
        found.standing[provider.status, provider.level.word] += 1
        found.releases[release_of(provider)] += 1
        chip = chip_label(provider.hardware.chip_family)
        for kind, gigabytes in _memory(provider).items():
            found.memory[kind, chip] += int(gigabytes * _GB)
        if provider.status == "online" and provider.passed_at is not None:
            found.challenge_age_s = max(found.challenge_age_s, now - provider.passed_at)
    return found


def _memory(provider: Provider) -> Mapping[str, float]:
    """Return what a machine says of its memory; what it does not say is left out."""
    measured = provider.capacity
    if measured is None:
        return {"total": provider.memory_gb}
    said = {"total": provider.memory_gb, "gpu_active": measured.gpu_active_gb}
    if measured.free_for_load_gb is not None:
        said["free_for_load"] = measured.free_for_load_gb
    return said
