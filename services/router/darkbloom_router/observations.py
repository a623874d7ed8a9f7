"""What this replica saw of builds since it last told the registry: outcomes, loads, downloads.

Bounded by the catalog: what is no build of it is not noted, whatever a machine claims. What a
machine says, or is, counts against a build once in each step of its rollout: one that repeats
itself, or connects again and again, has one voice.
"""

import hashlib
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TypeAlias

from darkbloom_router.model import Catalog

TTFT_BOUNDS_S = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""As the contract names them; one more bucket holds the rest."""
MAX_VOICES = 10_000
"""Most machines that are remembered to have spoken against a build in one step; no more count."""
MAX_STATES = 1000
"""Most machines in one report; what came after waits for the next change."""
FAULTS = frozenset({"corrupt", "load_failed", "untrusted_manifest"})
"""Words of machines that speak against the build."""
OWN_CAUSES = frozenset(
    {
        "disk_full",
        "does_not_fit",
        "capability_missing",
        "prefetch_off",
        "no_gateway",
        "not_in_catalog",
        "unreachable",
        "busy",
        "store_unusable",
        "internal",
        "insufficient_memory",
        "draining",
    }
)
"""Words that speak of the machine, its network or its owner."""


class Stage(Enum):
    """Steps of a build on a machine."""

    STARTED = auto()
    DOWNLOADING = auto()
    VERIFIED = auto()
    FAILED = auto()
    LOADED = auto()


FETCHING = frozenset({Stage.STARTED, Stage.DOWNLOADING})
"""A machine that says so takes one of the fleet's downloads."""


@dataclass(slots=True)
class Tally:
    """Counts of one build."""

    successes: int = 0
    failures: int = 0
    load_failures: int = 0
    untrusted: int = 0
    ttft: list[int] = field(default_factory=lambda: [0] * (len(TTFT_BOUNDS_S) + 1))


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a machine is with a build."""

    stage: Stage
    bytes_done: int = 0
    bytes_total: int = 0
    error: str = ""
    machine: str = ""
    """What it is called whenever it connects, in digest."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Everything since the last one."""

    tallies: dict[tuple[str, int], Tally]
    """By build, and generation of the catalog by which we routed."""
    states: dict[tuple[str, str], Progress]
    """By machine and build."""


_MACHINE_CHARS = 32
_Step: TypeAlias = tuple[tuple[str, str, int], ...]
"""Names on their way to a build, where they come from, and how far they are."""


class Observations:
    """Notes by build; `take` hands over and begins anew."""

    def __init__(self) -> None:
        self._catalog = Catalog()
        self._tallies: dict[tuple[str, int], Tally] = {}
        self._states: dict[tuple[str, str], Progress] = {}
        self._steps: dict[str, _Step] = {}
        self._voices: dict[tuple[str, str], set[bytes]] = {}
        """Who spoke against a build in its step, by build and by what he said."""

    def turn(self, catalog: Catalog) -> None:
        """Note by another catalog from now on; a build at another step is judged anew."""
        self._catalog = catalog
        steps = {build: _step(catalog, build) for build in catalog.builds}
        self._voices = {
            key: voices
            for key, voices in self._voices.items()
            if key[0] in steps and steps[key[0]] == self._steps[key[0]]
        }
        self._steps = steps

    def succeeded(self, build: str, ttft_s: float) -> None:
        """Note an answer that was opened to its end."""
        if (tally := self._of(build)) is not None:
            tally.successes += 1
            tally.ttft[bisect_left(TTFT_BOUNDS_S, ttft_s)] += 1

    def failed(self, build: str) -> None:
        """Note an attempt that failed by its machine's fault."""
        if (tally := self._of(build)) is not None:
            tally.failures += 1

    def load_failed(self, build: str, machine: bytes) -> None:
        """Note weights that a machine could not load; the first time in a step."""
        if self._heard(build, "load", machine) and (tally := self._of(build)) is not None:
            tally.load_failures += 1

    def untrusted(self, builds: Iterable[str], machine: bytes) -> None:
        """Note a machine that lost its trust, by what it held; the first time in a step."""
        for build in builds:
            if self._heard(build, "trust", machine) and (tally := self._of(build)) is not None:
                tally.untrusted += 1

    def progress(
        self, provider_id: str, build: str, progress: Progress, *, machine: bytes, believed: bool
    ) -> None:
        """Note how far a machine says that it is.

        Args:
            provider_id: Its session, as operators see it.
            build: What it speaks of.
            progress: What it says.
            machine: What it is called whenever it connects.
            believed: Whether a fault that it finds counts against the build, and a download of it
                among those of the fleet: its verdict is in force, and the build is one that we
                wished from it. Otherwise downloads are not noted: anybody could take them all.
        """
        key = (provider_id, build)
        if progress.stage in FETCHING and not believed:
            return
        if build not in self._catalog.builds or (key not in self._states and self._full):
            return
        failed = progress.stage is Stage.FAILED
        word = progress.error if progress.error in FAULTS | OWN_CAUSES else "other"
        self._states[key] = Progress(
            progress.stage,
            max(0, progress.bytes_done),
            max(0, progress.bytes_total),
            word if failed else "",
            hashlib.sha256(machine).hexdigest()[:_MACHINE_CHARS],
        )
        if failed and word in FAULTS and believed:
            self.load_failed(build, machine)

    def take(self) -> Batch | None:
        """Return what was noted, and forget it; None where nothing was."""
        if not self._tallies and not self._states:
            return None
        taken = Batch(self._tallies, self._states)
        self._tallies, self._states = {}, {}
        return taken

    @property
    def _full(self) -> bool:
        return len(self._states) >= MAX_STATES

    def _of(self, build: str) -> Tally | None:
        if build not in self._catalog.builds:
            return None
        return self._tallies.setdefault((build, self._catalog.generation), Tally())

    def _heard(self, build: str, said: str, machine: bytes) -> bool:
        """Return whether this is the first time that the machine says this in the step."""
        if build not in self._catalog.builds:
            return False
        voices = self._voices.setdefault((build, said), set())
        if machine in voices or len(voices) >= MAX_VOICES:
            return False
        voices.add(machine)
        return True


def _step(catalog: Catalog, build: str) -> _Step:
    return tuple((a.alias, a.previous, a.percent) for a in catalog.aliases if a.desired == build)
