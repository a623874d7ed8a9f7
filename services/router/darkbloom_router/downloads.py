"""Leave to fetch builds, where the registry bounds how many machines do so at once.

A machine that lacks the bytes of its desired build is asked to hold it only once it has leave;
until then it goes on with what it has. Leave is asked for with each report and given to whoever has
waited longest. Only a machine with a verdict in force stands in that line, and one that says that
it fetches already has leave: it had it from another replica, or from this one's life before.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

from darkbloom_router.catalog import Desired
from darkbloom_router.model import Catalog
from darkbloom_router.observations import FETCHING, Stage

MAX_WANTED = 1000
"""Most that are asked for at once."""
SETTLE_S = 6.0
"""How long a machine that connects may take to say what it fetches: agents speak every two seconds.
Until then it is asked for nothing rather than for less, which would end what it fetches."""
Fetch: TypeAlias = tuple[bytes, str, str]
"""Machine, build, weight hash."""


class Downloads:
    """Who of this replica's machines may fetch what, and who waits for it."""

    def __init__(self) -> None:
        self._granted_only = False
        self._leave: set[Fetch] = set()
        self._waiting: dict[Fetch, None] = {}

    def turn(self, catalog: Catalog) -> None:
        """Go by another catalog; leave for what it still wants stays, who waits asks anew."""
        self._granted_only = catalog.downloads_granted
        wanted = {(name, build.weight_hash) for name, build in catalog.builds.items()}
        self._leave = {fetch for fetch in self._leave if fetch[1:] in wanted}
        self._waiting = {fetch: None for fetch in self._waiting if fetch[1:] in wanted}

    def may(self, fetch: Fetch, *, trusted: bool = True) -> bool:
        """Return whether a machine may fetch a version; who is trusted waits from now on."""
        if not self._granted_only or fetch in self._leave:
            return True
        if trusted:
            self._waiting.setdefault(fetch)
        return False

    def goes_on(self, fetch: Fetch) -> None:
        """Give leave for what a machine fetches already: the registry counts it as it is."""
        if self._granted_only:
            self._waiting.pop(fetch, None)
            self._leave.add(fetch)

    @property
    def granted_only(self) -> bool:
        """Whether the registry bounds downloads."""
        return self._granted_only

    @property
    def wanted(self) -> int:
        """How many machines wait for leave."""
        return min(MAX_WANTED, len(self._waiting)) if self._granted_only else 0

    def grant(self, count: int) -> set[bytes]:
        """Give leave to those who have waited longest; return the machines."""
        granted = list(self._waiting)[: max(0, count)]
        for fetch in granted:
            del self._waiting[fetch]
        self._leave.update(granted)
        return {machine for machine, _, _ in granted}

    def gone(self, machine: bytes) -> None:
        """Forget that a machine waits."""
        self._waiting = {fetch: None for fetch in self._waiting if fetch[0] != machine}


class Leave:
    """What one connected machine may fetch, by what it says that it fetches."""

    def __init__(self, downloads: Downloads) -> None:
        self._downloads = downloads
        self._running: set[str] = set()
        self._held_back: set[str] = set()
        self._settled = False

    def settle(self) -> None:
        """It had its time to say what it fetches."""
        self._settled = True

    def heard(self, build: str, stage: Stage) -> bool:
        """Take its word on a build of the catalog; whether it fetches what was held back."""
        if stage not in FETCHING:
            self._running.discard(build)
            return False
        self._running.add(build)
        return build in self._held_back

    def of(
        self,
        machine: bytes,
        wanted: Iterable[Desired],
        held: Mapping[str, str],
        build_of: Callable[[str], Desired],
        *,
        trusted: bool,
    ) -> list[Desired] | None:
        """Return what it is asked to hold now; None before it has said what it fetches.

        Args:
            machine: What it is called whenever it connects.
            wanted: What the catalog wants of it.
            held: Weight hash of each build that it has.
            build_of: Returns the wish for a build by itself.
            trusted: Whether a verdict is in force.
        """
        self._held_back = set()

        def may(build: str, weight_hash: str) -> bool:
            fetch = (machine, build, weight_hash)
            if build in self._running:
                self._downloads.goes_on(fetch)
            allowed = self._downloads.may(fetch, trusted=trusted)
            if not allowed:
                self._held_back.add(build)
            return allowed

        found = with_leave(wanted, held, build_of, may)
        return found if self._settled or not self._held_back else None


def with_leave(
    wanted: Iterable[Desired],
    held: Mapping[str, str],
    build_of: Callable[[str], Desired],
    may: Callable[[str, str], bool],
) -> list[Desired]:
    """Return what a machine is asked to hold, without what it may not fetch yet.

    Args:
        wanted: What the catalog wants of it.
        held: Weight hash of each build that it has.
        build_of: Returns the wish for a build by itself.
        may: Whether it may fetch a build with a weight hash.
    """
    found = []
    for one in wanted:
        there = one.weight_hash in ("", held.get(one.desired))
        if there or may(one.desired, one.weight_hash):
            found.append(one)
        elif one.previous:
            before = build_of(one.previous)
            # What it has of the build before is kept; nothing else is fetched in its place.
            if held.get(one.previous) == before.weight_hash:
                found.append(before)
    return found
