"""What the fleet measures: median decode rates, and the pace of one row alone.

A median of many machines is what a lie of one cannot move far.
"""

from bisect import bisect_left, insort
from collections import OrderedDict
from statistics import median

_KEPT = 64
SOLID = 5
"""Samples from which a solo rate is believed first."""

Kind = tuple[str, str]
"""Build and chip family."""


class FleetRates:
    """Rates by build and chip family; each machine counts once."""

    def __init__(self, seeds: dict[str, float] | None = None) -> None:
        self._decode: dict[Kind, list[float]] = {}
        self._solo: dict[Kind, OrderedDict[bytes, float]] = {}
        self._solo_median: dict[Kind, float] = {}
        self._families: dict[str, set[str]] = {}
        self._found: dict[str, dict[str, float]] = {}
        """Solo rates as `solo` found them, until one of their build's moves."""
        self._seeds = seeds or {}

    def replace(self, build: str, family: str, old: float, new: float) -> None:
        """Let a machine add another rate than before; 0 is none."""
        if old == new:
            return
        values = self._decode.setdefault((build, family), [])
        if old > 0:
            del values[bisect_left(values, old)]
        if new > 0:
            insort(values, new)
        if not values:
            del self._decode[build, family]

    def decode(self, build: str, family: str) -> float:
        """Return the median decode rate; 0 where nobody measures."""
        values = self._decode.get((build, family))
        return values[len(values) // 2] if values else 0.0

    def sample_solo(self, build: str, family: str, machine: bytes, tps: float) -> None:
        """Take the rate of a machine on which nothing else ran."""
        kind = (build, family)
        samples = self._solo.setdefault(kind, OrderedDict())
        if samples.get(machine) == tps:
            samples.move_to_end(machine)
            return
        samples[machine] = tps
        samples.move_to_end(machine)
        if len(samples) > _KEPT:
            samples.popitem(last=False)
        found = median(samples.values())
        if len(samples) > SOLID and self._solo_median.get(kind) == found:
            return
        self._solo_median[kind] = found
        self._families.setdefault(build, set()).add(family)
        self._found.pop(build, None)

    def solo(self, build: str, family: str) -> float:
        """Return the pace of one row alone; 0 is unknown.

        Machines of the same family first, then the slowest family, then fewer samples, then seeds.
        """
        found = self._found.setdefault(build, {})
        if family not in found:
            found[family] = self._search(build, family)
        return found[family]

    def _search(self, build: str, family: str) -> float:
        known = self._solo.get((build, family))
        if known is not None and len(known) >= SOLID:
            return self._solo_median[build, family]
        families = self._families.get(build, set())
        for least in (SOLID, 1):
            solid = {item for item in families if len(self._solo[build, item]) >= least}
            if family in solid:
                return self._solo_median[build, family]
            if solid:
                return min(self._solo_median[build, item] for item in solid)
        return self._seeds.get(build, 0.0)

    def forget(self, builds: set[str]) -> None:
        """Drop the solo rates of builds that the catalog no longer has."""
        for kind in [kind for kind in self._solo if kind[0] not in builds]:
            del self._solo[kind]
            self._solo_median.pop(kind, None)
            self._families.pop(kind[0], None)
        for build in [build for build in self._found if build not in builds]:
            del self._found[build]
