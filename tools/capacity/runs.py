"""What the simulator and the bench of mirrors said, as committed beside this file.

`python -m tools.capacity.runs FILE…` adds the last line of each file to the record: the JSON of a
run of `make simulate` or of `python -m tests.bench.mirrors`. A newer run of the same fleet at the
same load takes the place of the older one.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RECORD = Path(__file__).with_name("runs.json")
BYTES_A_TOKEN = 4.0
"""Of a prompt, in the middle of what tokenizers make of English."""


@dataclass(frozen=True, slots=True)
class Run:
    """One simulated fleet."""

    day: str
    """Its date."""
    found: dict[str, Any]
    """The simulator's JSON."""

    @property
    def providers(self) -> int:
        """Machines."""
        return int(self.found["providers"])

    @property
    def load(self) -> float:
        """Offered tokens over decode capacity."""
        return float(self.found["load"])

    @property
    def command(self) -> str:
        """What repeats it."""
        found = self.found
        return (
            f"--providers {found['providers']} --builds {found['builds']} "
            f"--minutes {found['minutes']:g} --load {found['load']:g} "
            f"--churn {found['churn']:g} --seed {found['seed']}"
        )

    @property
    def requests_a_second(self) -> float:
        """Offered for each provider; bursts of a short run are not in it."""
        return float(self.found["offered_per_s"]) / self.providers

    @property
    def told_a_second(self) -> float:
        """How often a provider's state is told to each other router."""
        return float(self.found["messages_per_s"]["told"]) / self.providers

    @property
    def answer_s(self) -> float:
        """How long a request is open."""
        return float(self.found["open_mean_s"])


@dataclass(frozen=True, slots=True)
class Record:
    """Everything that is committed."""

    runs: tuple[Run, ...]
    mirrors: Run
    """The bench of mirrors."""

    def of(self, providers: int, load: float) -> Run | None:
        """Return the run of one fleet at one load."""
        return next(
            (one for one in self.runs if (one.providers, one.load) == (providers, load)), None
        )

    def fleet(self, providers: int) -> Run | None:
        """Return a run of a fleet at whatever load: what it can do is the same in all."""
        return next((one for one in self.runs if one.providers == providers), None)

    def longest(self, load: float) -> Run | None:
        """Return the run at one load that had most time to settle."""
        at_load = [one for one in self.runs if one.load == load]
        return max(at_load, key=lambda one: one.found["minutes"], default=None)


def read() -> Record:
    """Return the record."""
    kept = json.loads(RECORD.read_text())
    runs = [Run(one["day"], one["found"]) for one in kept["runs"]]
    runs.sort(key=lambda one: (one.providers, one.load))
    return Record(tuple(runs), Run(kept["mirrors"]["day"], kept["mirrors"]["found"]))


def add(found: dict[str, Any], day: str) -> None:
    """Put one run into the record."""
    kept = json.loads(RECORD.read_text()) if RECORD.exists() else {"runs": [], "mirrors": {}}
    entry = {"day": day, "found": found}
    if "hear_us" in found:
        kept["mirrors"] = entry
    else:
        key = found["providers"], found["load"]
        others = [
            one for one in kept["runs"] if (one["found"]["providers"], one["found"]["load"]) != key
        ]
        kept["runs"] = sorted([*others, entry], key=_order)
    RECORD.write_text(json.dumps(kept, indent=1) + "\n")


def _order(entry: dict[str, Any]) -> tuple[int, float]:
    return entry["found"]["providers"], entry["found"]["load"]


def main(files: list[str]) -> None:
    """Add the last line of each file."""
    for name in files:
        path = Path(name)
        day = datetime.fromtimestamp(path.stat().st_mtime, UTC).date().isoformat()
        add(json.loads(path.read_text().splitlines()[-1]), day)


if __name__ == "__main__":
    main(sys.argv[1:])
