"""Fault state of every machine that ever failed lately, by stable identity; bounded, expiring."""

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from darkbloom_router.faults.node import NodeFaults, Outcome
from darkbloom_router.faults.pair import ERROR_HOLD_S, PairFaults

MAX_IDENTITIES = 65_536
MAX_PAIRS = 256
IDLE_S = 600.0
VERSIONS_S = 1200.0
FORGIVE_EVERY_S = 600.0
_MAX_VERSIONS = 8


@dataclass(slots=True)
class Faults:
    """Everything that is held against one machine."""

    node: NodeFaults = field(default_factory=NodeFaults)
    pairs: dict[str, PairFaults] = field(default_factory=dict)
    touched_at: float = 0.0

    def pair(self, build: str) -> PairFaults:
        """Return what is held against one build of it, made when it is first asked for."""
        found = self.pairs.get(build)
        if found is None:
            if len(self.pairs) >= MAX_PAIRS:
                self.pairs.pop(next(iter(self.pairs)))
            found = self.pairs[build] = PairFaults()
        return found

    @property
    def until(self) -> float:
        """When the last sentence ends."""
        return max((self.node.until, *(pair.until for pair in self.pairs.values())))


class FaultMemory:
    """Faults by stable identity. A machine that never failed has no entry."""

    def __init__(self, limit: int = MAX_IDENTITIES, *, error_hold_s: float = ERROR_HOLD_S) -> None:
        self.error_hold_s = error_hold_s
        """How long an error cooldown holds; 0 switches it off."""
        self._limit = limit
        self._faults: OrderedDict[bytes, Faults] = OrderedDict()
        self._versions: OrderedDict[bytes, deque[tuple[float, str]]] = OrderedDict()
        self._forgiven: dict[bytes, float] = {}

    def __len__(self) -> int:
        return len(self._faults)

    def find(self, identity: bytes) -> Faults | None:
        """Return what is held against a machine, if anything."""
        return self._faults.get(identity)

    def of(self, identity: bytes, now: float) -> Faults:
        """Return what is held against a machine, to be added to."""
        found = self._faults.get(identity)
        if found is None:
            found = self._faults[identity] = Faults()
            if len(self._faults) > self._limit:
                self._faults.popitem(last=False)
        self._faults.move_to_end(identity)
        found.touched_at = now
        return found

    def put(self, identity: bytes, found: Faults) -> None:
        """Replace what is held against a machine: another replica is its only writer."""
        self._faults[identity] = found
        self._faults.move_to_end(identity)
        if len(self._faults) > self._limit:
            self._faults.popitem(last=False)

    def arrived(self, identity: bytes, version: str, now: float) -> None:
        """Note a stream; another version than before is forgiven what broken streams caused.

        At most once per ten minutes; faults of the machine itself stay.
        """
        history = self._versions.setdefault(identity, deque(maxlen=_MAX_VERSIONS))
        self._versions.move_to_end(identity)
        if len(self._versions) > self._limit:
            dropped, _ = self._versions.popitem(last=False)
            self._forgiven.pop(dropped, None)
        while history and now - history[0][0] > VERSIONS_S:
            history.popleft()
        changed = bool(history) and history[-1][1] != version
        history.append((now, version))
        found = self._faults.get(identity)
        last = self._forgiven.get(identity, float("-inf"))
        if not changed or found is None or now - last < FORGIVE_EVERY_S:
            return
        self._forgiven[identity] = now
        found.node.forgive_flushes(now)
        for pair in found.pairs.values():
            pair.forgive_flushes(now)

    def flushed(self, identity: bytes, builds: dict[str, set[int]], now: float) -> None:
        """Take a broken stream: one fault of the machine, one strike per build and shape.

        However many attempts it carried, they have one cause.
        """
        found = self.of(identity, now)
        found.node.note(Outcome.FLUSH, now)
        for build, shapes in builds.items():
            for shape in shapes:
                found.pair(build).strike(shape, now, flush=True, hold_s=self.error_hold_s)

    def move(self, old: bytes, new: bytes) -> None:
        """Carry everything to a better name of the same machine; nothing stays under the old."""
        moved = self._faults.pop(old, None) if old != new else None
        if moved is None:
            return
        known = self._faults.setdefault(new, moved)
        if known is moved:
            return
        known.node.merge(moved.node)
        for build, pair in moved.pairs.items():
            known.pair(build).merge(pair)
        known.touched_at = max(known.touched_at, moved.touched_at)

    def sweep(self, now: float, live: frozenset[bytes] | set[bytes]) -> int:
        """Forget machines without a stream after ten idle minutes; returns how many."""
        gone = [
            identity
            for identity, found in self._faults.items()
            if identity not in live and now - found.touched_at > IDLE_S and found.until <= now
        ]
        for identity in gone:
            del self._faults[identity]
        for identity, history in list(self._versions.items()):
            if identity not in live and now - history[-1][0] > VERSIONS_S:
                del self._versions[identity]
                self._forgiven.pop(identity, None)
        return len(gone)

    def __iter__(self) -> Iterator[tuple[bytes, Faults]]:
        """Yield every machine that something is held against."""
        return iter(self._faults.items())
