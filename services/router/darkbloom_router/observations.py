"""What this replica saw of builds since it last told the registry: outcomes, loads, downloads.

Bounded by the catalog: what is no build of it is not noted, whatever a machine claims.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from enum import Enum, auto

TTFT_BOUNDS_S = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""As the contract names them; one more bucket holds the rest."""
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


@dataclass(frozen=True, slots=True)
class Batch:
    """Everything since the last one."""

    tallies: dict[str, Tally]
    states: dict[tuple[str, str], Progress]
    """By machine and build."""


class Observations:
    """Notes by build; `take` hands over and begins anew."""

    def __init__(self) -> None:
        self.catalog: Collection[str] = ()
        self._tallies: dict[str, Tally] = {}
        self._states: dict[tuple[str, str], Progress] = {}

    def succeeded(self, build: str, ttft_s: float) -> None:
        """Note an answer that was opened to its end."""
        if (tally := self._of(build)) is not None:
            tally.successes += 1
            tally.ttft[bisect_left(TTFT_BOUNDS_S, ttft_s)] += 1

    def failed(self, build: str) -> None:
        """Note an attempt that failed by its machine's fault."""
        if (tally := self._of(build)) is not None:
            tally.failures += 1

    def load_failed(self, build: str) -> None:
        """Note weights that could not be loaded."""
        if (tally := self._of(build)) is not None:
            tally.load_failures += 1

    def untrusted(self, builds: Iterable[str]) -> None:
        """Note a machine that lost its trust, by what it held."""
        for build in builds:
            if (tally := self._of(build)) is not None:
                tally.untrusted += 1

    def progress(self, provider_id: str, build: str, progress: Progress) -> None:
        """Note how far a machine says that it is."""
        key = (provider_id, build)
        if build not in self.catalog or (key not in self._states and self._full):
            return
        failed = progress.stage is Stage.FAILED
        word = progress.error if progress.error in FAULTS | OWN_CAUSES else "other"
        self._states[key] = Progress(
            progress.stage,
            max(0, progress.bytes_done),
            max(0, progress.bytes_total),
            word if failed else "",
        )
        if failed and word in FAULTS:
            self.load_failed(build)

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
        if build not in self.catalog:
            return None
        return self._tallies.setdefault(build, Tally())
