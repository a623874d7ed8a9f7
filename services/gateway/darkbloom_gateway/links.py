"""The lanes to all router replicas, and what happens to a request when one of them is lost.

Any replica reaches the whole fleet, so a request goes to the less busy of two. Before its first
content it may be opened again at another one, under the same id and hold. After it the answer is
broken, but not the money: what this edge has opened is handed in through whoever is left.
"""

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog
from darkbloom.router.v1.fleet_pb2 import BuildCapacity, Explanation, Provider
from darkbloom.router.v1.gateway_lane_pb2 import SettleOpened
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import NotFoundError

from darkbloom_gateway import kinds
from darkbloom_gateway.errors import LaneLostError
from darkbloom_gateway.link import RouterLink
from darkbloom_gateway.mailbox import Mailbox

RESOLVE_S = 5.0
"""How often names are looked up again."""
FRESH_CLOSE_S = 3.0
"""A close that is younger when its lane is lost may not have been heard."""
BROKEN_S = 40.0
"""The same of an answer that broke: a router settles it 30 s later."""
MAX_CLOSES = 1024
MAX_RESCUES = 4096
MAX_ROUTERS = 64
_log = structlog.get_logger()


class FleetReads(Protocol):
    """Reads over the live fleet; every replica knows all of it."""

    async def providers(self) -> Sequence[Provider]:
        """Return every provider that serves the public."""
        ...

    async def everybody(self) -> Sequence[Provider]:
        """Return every provider, those that serve only their owner as well."""
        ...

    async def capacity(self) -> dict[str, BuildCapacity]:
        """Return live capacity by build."""
        ...

    async def explain(self, identity_key: bytes) -> Sequence[Explanation]:
        """Return for each build of a machine why requests for it come or do not."""
        ...


@dataclass(slots=True, eq=False)
class Router:
    """One replica: its lane, its reads, and how both are ended."""

    link: RouterLink
    fleet: FleetReads
    close: Callable[[], Awaitable[object]]
    closes: deque[tuple[float, SettleOpened]] = field(
        default_factory=lambda: deque(maxlen=MAX_CLOSES)
    )


class RouterLinks:
    """Lanes to every replica.

    Args:
        targets: host:port of each replica; a name with several addresses counts as several.
        open_router: Makes a replica's lane and reads, by address.
        pick: Returns an index below its argument, at random.
        clock: Time.
    """

    def __init__(
        self,
        targets: tuple[str, ...],
        open_router: Callable[[str, Callable[[], None]], Router],
        pick: Callable[[int], int],
        clock: Clock,
    ) -> None:
        self._targets = targets
        self._open_router = open_router
        self._pick = pick
        self._clock = clock
        self._routers: dict[str, Router] = {}
        self._rescues: deque[SettleOpened] = deque(maxlen=MAX_RESCUES)
        self._changed = asyncio.Event()

    def __iter__(self) -> Iterator[Mailbox]:
        """Yield everything that waits for any lane."""
        for router in self._routers.values():
            yield from router.link.mailboxes

    @property
    def accepting(self) -> bool:
        """Whether new requests may be opened now."""
        return any(router.link.accepting for router in self._routers.values())

    def choose(self) -> RouterLink:
        """Return the less busy of two lanes that take requests.

        Raises:
            LaneLostError: There is none now.
        """
        open_now = [item.link for item in self._routers.values() if item.link.accepting]
        if not open_now:
            raise LaneLostError
        first = open_now[self._pick(len(open_now))]
        second = open_now[self._pick(len(open_now))]
        return first if len(first.mailboxes) <= len(second.mailboxes) else second

    def keeper(self, tag: str) -> RouterLink | None:
        """Return the lane to the replica that keeps an offer, also one that is leaving."""
        for router in self._routers.values():
            if router.link.connected and router.link.tag == tag:
                return router.link
        return None

    async def until_accepting(self, seconds: float) -> bool:
        """Wait for a lane; False where none came in time."""
        if self.accepting:
            return True
        if seconds <= 0:
            return False
        try:
            async with asyncio.timeout(seconds):
                while not self.accepting:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def closed(
        self, link: RouterLink, last_word: SettleOpened, *, fresh_s: float = FRESH_CLOSE_S
    ) -> None:
        """Remember what a lane was told last, for as long as it may not have been settled."""
        for router in self._routers.values():
            if router.link is link:
                router.closes.append((self._clock.monotonic() + fresh_s, last_word))

    def rescue(self, message: SettleOpened) -> None:
        """Hand in an answer whose replica is lost, now or when a lane is there."""
        if len(self._rescues) == MAX_RESCUES:
            _log.warning("rescue_dropped")
        self._rescues.append(message)
        self._deliver()

    async def providers(self) -> Sequence[Provider]:
        """Return every provider that serves the public, from any replica."""
        return await self._reader().providers()

    async def everybody(self) -> Sequence[Provider]:
        """Return every provider, those that serve only their owner as well, from any replica."""
        return await self._reader().everybody()

    async def capacity(self) -> dict[str, BuildCapacity]:
        """Return live capacity by build, from any replica."""
        return await self._reader().capacity()

    async def explain(self, identity_key: bytes) -> Sequence[Explanation]:
        """Return what shuts a machine out, build by build; nothing where it is not connected."""
        for router in tuple(self._routers.values()):
            if router.link.connected:
                with contextlib.suppress(NotFoundError):
                    return await router.fleet.explain(identity_key)
        return ()

    def close(self) -> None:
        """Half-close every lane; `run` is to be cancelled afterwards."""
        for router in self._routers.values():
            router.link.close()

    async def run(self) -> None:
        """Hold a lane to every replica until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            running: dict[str, asyncio.Task[None]] = {}
            while True:
                found = await self._resolve()
                for address in found - running.keys():
                    router = self._open_router(address, self._turned)
                    self._routers[address] = router
                    running[address] = tasks.create_task(self._hold(router), name="router")
                for address in running.keys() - found:
                    # A name may lose an address while its replica drains: the lane decides.
                    if found and not self._routers[address].link.connected:
                        running.pop(address).cancel()
                        del self._routers[address]
                await self._clock.sleep(RESOLVE_S)

    async def _hold(self, router: Router) -> None:
        try:
            await router.link.run()
        finally:
            await router.close()

    def _turned(self) -> None:
        """Take note that a lane came up or went down."""
        now = self._clock.monotonic()
        for router in self._routers.values():
            if router.link.connected:
                continue
            while router.closes:
                until, message = router.closes.popleft()
                if now <= until:
                    self._rescues.append(message)
        self._changed.set()
        self._deliver()

    def _deliver(self) -> None:
        while self._rescues:
            try:
                link = self.choose()
            except LaneLostError:
                return
            message = self._rescues.popleft()
            link.send(kinds.SETTLE_OPENED, 0, message)
            # This replica may be dying as well: then the next one is told.
            self.closed(link, message)

    def _reader(self) -> FleetReads:
        for router in self._routers.values():
            if router.link.connected:
                return router.fleet
        if self._routers:
            return next(iter(self._routers.values())).fleet
        return _Nobody()

    async def _resolve(self) -> set[str]:
        """Look every name up; an answer that fails leaves what is known."""
        found: set[str] = set()
        for target in self._targets:
            host, _, port = target.rpartition(":")
            try:
                infos = await asyncio.get_running_loop().getaddrinfo(
                    host.strip("[]"), int(port), type=socket.SOCK_STREAM
                )
            except OSError:
                _log.warning("router_not_resolved", target=target)
                return found | set(self._routers)
            for family, _, _, _, address in infos:
                name = str(address[0])
                found.add(f"[{name}]:{port}" if family == socket.AF_INET6 else f"{name}:{port}")
        return set(sorted(found)[:MAX_ROUTERS])


class _Nobody:
    """Reads before the first replica is known."""

    async def providers(self) -> list[Provider]:
        """Return nobody."""
        return []

    async def everybody(self) -> list[Provider]:
        """Return nobody."""
        return []

    async def capacity(self) -> dict[str, BuildCapacity]:
        """Return nothing."""
        return {}

    async def explain(self, identity_key: bytes) -> Sequence[Explanation]:  # noqa: ARG002 - nobody is known
        """Return nothing."""
        return ()
