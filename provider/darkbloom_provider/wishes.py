"""What the network wants this machine to hold, and when each wish is tried (again).

Pure: times are given, nothing is fetched here.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final, Protocol, final

RETRY_S: Final = (30.0, 60.0, 120.0, 300.0, 600.0)
"""Waits after failures; after the last one only a new wish helps."""
MAX_WISHES: Final = 64
"""More are ignored: no machine holds that many."""


class WishState(StrEnum):
    """How far a wish is."""

    WAITING = "waiting"
    DOWNLOADING = "downloading"
    DONE = "done"
    FAILED = "failed"
    """It is tried again."""
    REFUSED = "refused"
    """It is not, until the network wishes anew."""


class Reason(StrEnum):
    """Why a wish is not fulfilled: closed words of the protocol, of `status` and `doctor`."""

    DISK_FULL = "disk_full"
    DOES_NOT_FIT = "does_not_fit"
    CAPABILITY_MISSING = "capability_missing"
    PREFETCH_OFF = "prefetch_off"
    NO_GATEWAY = "no_gateway"
    UNTRUSTED_MANIFEST = "untrusted_manifest"
    NOT_IN_CATALOG = "not_in_catalog"
    UNREACHABLE = "unreachable"
    CORRUPT = "corrupt"
    LOAD_FAILED = "load_failed"
    BUSY = "busy"
    STORE_UNUSABLE = "store_unusable"
    INTERNAL = "internal"


FINAL: Final = frozenset({Reason.DOES_NOT_FIT, Reason.CAPABILITY_MISSING, Reason.PREFETCH_OFF})
"""Waiting changes nothing about these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """One version that this machine should hold."""

    build: str
    version: str = ""
    """Empty: the active one."""
    weight_hash: str = ""
    commanded: bool = False
    """Asked for by name; it does not grow stale with the catalog."""

    @property
    def identity(self) -> tuple[str, str, str]:
        """What makes two wishes the same."""
        return self.build, self.version, self.weight_hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracked:
    """A wish and what has become of it."""

    wish: Wish
    state: WishState = WishState.WAITING
    reason: Reason | None = None
    failures: int = 0
    retry_at_s: float = 0.0
    """Monotonic; for FAILED."""
    done_bytes: int = 0
    total_bytes: int = 0


@final
@dataclass(slots=True)
class Wishes:
    """Every wish by build, in the order of arrival; one wish for each build."""

    _tracked: dict[str, Tracked] = field(default_factory=dict)
    _generation: int = -1

    def desire(self, wanted: Iterable[Wish], generation: int) -> None:
        """Take the network's whole list: what is not on it is stale, what is new starts over.

        A list of another generation gives what has failed its tries again.
        """
        fresh = generation != self._generation
        self._generation = generation
        listed = {wish.build: wish for wish in wanted}
        for name, known in tuple(self._tracked.items()):
            if name not in listed and not known.wish.commanded:
                del self._tracked[name]
        for name, wish in tuple(listed.items())[:MAX_WISHES]:
            known_or_none = self._tracked.get(name)
            same = known_or_none is not None and known_or_none.wish.identity == wish.identity
            failed = known_or_none is not None and known_or_none.reason is not None
            if not same or (fresh and failed):
                self._tracked[name] = Tracked(wish=wish)

    def command(self, build: str) -> bool:
        """Take a wish by name; False where there are too many."""
        if build not in self._tracked and len(self._tracked) >= MAX_WISHES:
            return False
        self._tracked[build] = Tracked(wish=Wish(build=build, commanded=True))
        return True

    def all(self) -> tuple[Tracked, ...]:
        """Return every wish."""
        return tuple(self._tracked.values())

    def due(self, now_s: float) -> Wish | None:
        """Return the first wish that may be tried now."""
        for tracked in self._tracked.values():
            ready = tracked.state is WishState.FAILED and tracked.retry_at_s <= now_s
            if tracked.state is WishState.WAITING or ready:
                return tracked.wish
        return None

    def holds(self, wish: Wish) -> bool:
        """Tell whether a wish is still wanted as it was."""
        tracked = self._tracked.get(wish.build)
        return tracked is not None and tracked.wish.identity == wish.identity

    def progress(self, wish: Wish, done_bytes: int, total_bytes: int) -> None:
        """Note how far a download is."""
        self._change(
            wish,
            state=WishState.DOWNLOADING,
            reason=None,
            done_bytes=done_bytes,
            total_bytes=total_bytes,
        )

    def done(self, wish: Wish) -> None:
        """Note that a wish is fulfilled."""
        self._change(wish, state=WishState.DONE, reason=None, failures=0)

    def failed(self, wish: Wish, reason: Reason, now_s: float) -> None:
        """Note a failure and when it is tried again, if at all."""
        if not self.holds(wish):
            return
        failures = self._tracked[wish.build].failures
        if reason in FINAL or failures >= len(RETRY_S):
            self._change(wish, state=WishState.REFUSED, reason=reason)
            return
        self._change(
            wish,
            state=WishState.FAILED,
            reason=reason,
            failures=failures + 1,
            retry_at_s=now_s + RETRY_S[failures],
        )

    def _change(self, wish: Wish, **changes: object) -> None:
        if self.holds(wish):
            tracked = self._tracked[wish.build]
            self._tracked[wish.build] = replace(tracked, **changes)  # type: ignore[arg-type]


class WishTaker(Protocol):
    """Whoever fulfils wishes."""

    @property
    def wishes(self) -> Wishes:
        """What is wished, and how far each wish is."""
        ...

    def desire(self, wanted: list[Wish], generation: int) -> None:
        """Take the network's whole list."""
        ...

    def command(self, build: str) -> bool:
        """Take a wish by name; False where there are too many."""
        ...
