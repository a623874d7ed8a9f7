"""Keeps a running shift's models as the network wishes and the owner fetches (spec: registry 12).

One loop fulfils wishes, one after the other: look the version up, check that it may and can be
served here, download, verify, exchange. Another looks into the store, so that what `darkbloom
models download` has brought is served without a restart.
"""

import asyncio
import errno
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final, Protocol, final

import structlog
from darkbloom_mesh.clock import Clock

from darkbloom_provider.errors import ProviderError
from darkbloom_provider.exchange import Exchange, ExchangeError
from darkbloom_provider.inventory import Inventory
from darkbloom_provider.models.catalog import CatalogError, UnknownModelError
from darkbloom_provider.models.download import Downloader, Progress
from darkbloom_provider.models.errors import DiskFullError, ModelBusyError, ModelError
from darkbloom_provider.models.fetching import Fetcher, Order
from darkbloom_provider.models.pins import PinsError
from darkbloom_provider.models.sources.interface import AlteredError, SourceError
from darkbloom_provider.models.store import ModelStore, StoredModel
from darkbloom_provider.waiting import first_of
from darkbloom_provider.wishes import Reason, Tracked, Wish, Wishes, WishState

SCAN_S: Final = 2.0
"""How often the store is looked into."""
TELL_S: Final = 2.0
"""Least time between two reports of one download."""

_log = structlog.get_logger()


class Listener(Protocol):
    """Who hears of wishes: the network's stream."""

    def wish_changed(self, tracked: Tracked) -> None:
        """Hear of progress, an end or a failure."""
        ...


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What this machine may hold and serve."""

    prefetch: bool
    """Whether the network's wishes are downloaded."""
    serves: Callable[[str], bool]
    """Whether a build that the owner put into the store is served."""
    fits: Callable[[int], bool]
    """Whether weights of so many bytes can ever be loaded here."""
    capabilities: Collection[str]
    """What builds may ask of this machine."""


@final
class Stock:
    """Fulfils wishes until cancelled. `run` once.

    Args:
        store: where versions are.
        inventory: what is served.
        exchange: changes it.
        make_fetcher: makes what downloads; it may raise `ProviderError`.
        downloader: how.
        rules: what may be held here.
        clock: of waits.
    """

    def __init__(
        self,
        *,
        store: ModelStore,
        inventory: Inventory,
        exchange: Exchange,
        make_fetcher: Callable[[], Fetcher],
        downloader: Downloader,
        rules: Rules,
        clock: Clock,
    ) -> None:
        self._wishes = Wishes()
        self.listener: Listener | None = None
        self._store = store
        self._inventory = inventory
        self._exchange = exchange
        self._make_fetcher = make_fetcher
        self._downloader = downloader
        self._rules = rules
        self._clock = clock
        self._woken = asyncio.Event()
        self._obtaining = False
        """Whether the wish that is tried is still on its way into the store."""
        self._refused: set[str] = set()
        """Identities of versions in the store that could not be served."""

    @property
    def wishes(self) -> Wishes:
        """What is wished, and how far each wish is."""
        return self._wishes

    def desire(self, wanted: list[Wish], generation: int) -> None:
        """Take the network's list."""
        self.wishes.desire(wanted, generation)
        self._woken.set()

    def command(self, build: str) -> bool:
        """Take a wish by name; False where there are too many."""
        taken = self.wishes.command(build)
        self._woken.set()
        return taken

    async def run(self) -> None:
        """Fulfil wishes and look into the store, for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._fulfil(), name="stock.wishes")
            tasks.create_task(self._watch(), name="stock.store")

    # Wishes.

    async def _fulfil(self) -> None:
        while True:
            self._woken.clear()
            wish = self.wishes.due(self._clock.monotonic())
            if wish is None:
                await first_of(self._woken.wait(), self._clock.sleep(SCAN_S))
                continue
            async with asyncio.TaskGroup() as tasks:
                work = tasks.create_task(self._try(wish), name="stock.wish")
                stale = tasks.create_task(self._cancel_stale(wish, work), name="stock.stale")
                await asyncio.wait([work])
                stale.cancel()

    async def _cancel_stale(self, wish: Wish, work: "asyncio.Task[None]") -> None:
        """End a download that nobody wants any more; what has come stays for later.

        An exchange that has begun is not ended: half-way nothing would be served.
        """
        while self.wishes.holds(wish):
            await self._woken.wait()
            self._woken.clear()
        if self._obtaining:
            work.cancel()

    async def _try(self, wish: Wish) -> None:
        try:
            self._obtaining = True
            try:
                stored = await self._obtain(wish)
            finally:
                self._obtaining = False
            if stored is not None:
                await self._exchange.take(stored)
        except Exception as error:  # noqa: BLE001 - no download may end the agent
            reason = _reason(error)
            self.wishes.failed(wish, reason, self._clock.monotonic())
            _log.warning(
                "wish_failed",
                build=wish.build,
                version=wish.version,
                reason=reason.value,
                error_type=type(error).__name__,
            )
        else:
            self.wishes.done(wish)
        self._tell(wish)

    async def _obtain(self, wish: Wish) -> StoredModel | None:
        """Return the version once it is in the store; None where it is served already."""
        served = self._inventory.get(wish.build)
        if served is not None and wish.weight_hash == served.manifest.aggregate_sha256:
            return None
        known = await asyncio.to_thread(self._in_store, wish)
        if known is not None:
            return known
        if not self._rules.prefetch and not wish.commanded:
            raise _RefusedError(Reason.PREFETCH_OFF)
        fetcher = self._fetcher()
        order = await fetcher.order(wish.build, wish.version)
        self._check(wish, order)
        self.wishes.progress(wish, 0, order.manifest.total_size_bytes)
        self._tell(wish)
        report = _Sum(order.manifest.total_size_bytes, self._clock, wish, self)
        return await fetcher.fetch(order, self._downloader, report)

    def _in_store(self, wish: Wish) -> StoredModel | None:
        if not wish.version:
            return None
        try:
            found = self._store.get(wish.build, wish.version)
        except ModelError:
            return None
        same = wish.weight_hash in ("", found.manifest.aggregate_sha256)
        return found if same else None

    def _fetcher(self) -> Fetcher:
        try:
            return self._make_fetcher()
        except ProviderError:
            raise _RefusedError(Reason.NO_GATEWAY) from None

    def _check(self, wish: Wish, order: Order) -> None:
        """Refuse what could not be served here, before a byte of it is fetched."""
        if wish.weight_hash and wish.weight_hash != order.manifest.aggregate_sha256:
            raise _RefusedError(Reason.CORRUPT)
        if not set(order.entry.required_provider_capabilities) <= set(self._rules.capabilities):
            raise _RefusedError(Reason.CAPABILITY_MISSING)
        if not self._rules.fits(order.manifest.weight_bytes):
            raise _RefusedError(Reason.DOES_NOT_FIT)

    def progressed(self, wish: Wish, done_bytes: int, total_bytes: int) -> None:
        """Note and tell how far a download is."""
        self.wishes.progress(wish, done_bytes, total_bytes)
        self._tell(wish)

    def _tell(self, wish: Wish) -> None:
        if self.listener is None:
            return
        for tracked in self.wishes.all():
            if tracked.wish == wish:
                self.listener.wish_changed(tracked)

    # The store.

    async def _watch(self) -> None:
        seen = await asyncio.to_thread(self._names)
        while True:
            await self._clock.sleep(SCAN_S)
            names = await asyncio.to_thread(self._names)
            if names != seen:
                seen = names
                await self._take_new()

    def _names(self) -> frozenset[str]:
        """Give what the store holds, without opening anything."""
        try:
            return frozenset(
                f"{build.name}/{version.name}"
                for build in self._store.root.iterdir()
                if build.is_dir() and not build.name.startswith(".")
                for version in build.iterdir()
                if not version.name.startswith(".")
            )
        except OSError:
            return frozenset()

    async def _take_new(self) -> None:
        """Serve builds that are new in the store, and wishes that it fulfils now."""
        for stored in await asyncio.to_thread(self._store.served):
            name, identity = stored.manifest.model_id, stored.manifest.identity_sha256
            known = self._inventory.get(name) is not None or identity in self._refused
            if known or not self._rules.serves(name):
                continue
            try:
                await self._exchange.take(stored)
            except Exception as error:  # noqa: BLE001 - as for wishes
                self._refused.add(identity)
                _log.warning("model_not_served", build=name, reason=_reason(error).value)
        for tracked in self.wishes.all():
            waits = tracked.state in (WishState.FAILED, WishState.REFUSED)
            if waits and await asyncio.to_thread(self._in_store, tracked.wish) is not None:
                await self._try(tracked.wish)


class _RefusedError(Exception):
    """A wish is not tried; for a reason."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class _Sum:
    """Adds up the files of a download and tells the sum now and then."""

    def __init__(self, total: int, clock: Clock, wish: Wish, stock: Stock) -> None:
        self._total = total
        self._clock = clock
        self._wish = wish
        self._stock = stock
        self._done: dict[str, int] = {}
        self._told_at = clock.monotonic()

    def __call__(self, progress: Progress) -> None:
        self._done[progress.path] = progress.done_bytes
        now = self._clock.monotonic()
        if now - self._told_at >= TELL_S:
            self._told_at = now
            self._stock.progressed(self._wish, sum(self._done.values()), self._total)


def _reason(error: Exception) -> Reason:
    if isinstance(error, _RefusedError):
        return error.reason
    if isinstance(error, ExchangeError):
        return Reason(error.fault.value)
    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return Reason.DISK_FULL if full else Reason.STORE_UNUSABLE
    for kind, reason in _REASONS:
        if isinstance(error, kind):
            return reason
    return Reason.INTERNAL


_REASONS: Final[tuple[tuple[type[Exception], Reason], ...]] = (
    (DiskFullError, Reason.DISK_FULL),
    (ModelBusyError, Reason.BUSY),
    (AlteredError, Reason.CORRUPT),
    (SourceError, Reason.UNREACHABLE),
    (PinsError, Reason.UNTRUSTED_MANIFEST),
    (UnknownModelError, Reason.NOT_IN_CATALOG),
    (CatalogError, Reason.UNREACHABLE),
    (ModelError, Reason.CORRUPT),
    (ProviderError, Reason.UNREACHABLE),
)
