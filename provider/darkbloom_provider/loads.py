"""Which builds are in memory: a few at a time; the longest unused makes room for another.

A build is asked for by the router's command, ahead of demand, or by a request that finds it cold.
A load claims a place and its memory before it begins, so loads that run beside each other never
count on the same bytes. A build that a request is about to use is never evicted. One that nobody
has asked for in a while is unloaded; it is still offered, and loaded again when it is asked for.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import structlog
from darkbloom.router.v1.provider_link_pb2 import OperationStatus
from darkbloom_mesh.clock import Clock

from darkbloom_provider.claims import Claims
from darkbloom_provider.engine.errors import (
    EngineError,
    ErrorReason,
    FailureCode,
    capacity,
    model_unavailable,
)
from darkbloom_provider.engine.interface import Build, Engine, SlotStatus

MAX_COMMANDS = 16
SWEEP_S = 60.0
"""Seconds between two looks for builds that nobody uses."""
_WARM = frozenset({SlotStatus.RUNNING, SlotStatus.IDLE})
_log = structlog.get_logger()

Report = Callable[[OperationStatus.ValueType, str], None]
"""Takes the state of a command and, for a failure, a closed word."""


class Loads:
    """Keeps at most `slots` builds in memory. `run()` must be running for commands.

    Args:
        engine: Holds the builds.
        builds: What may be loaded.
        slots: How many at a time.
        clock: For the order of use.
        claims: Judges whether a build's memory is there; None takes it for granted.
        idle_s: Seconds without use after which a build is unloaded; 0 keeps it.
    """

    def __init__(
        self,
        engine: Engine,
        builds: Iterable[Build],
        *,
        slots: int,
        clock: Clock,
        claims: Claims | None = None,
        idle_s: float = 0.0,
    ) -> None:
        self._engine = engine
        self._builds = {build.build_id: build for build in builds}
        self._slots = slots
        self._clock = clock
        self._claims = claims
        self._idle_s = idle_s
        self._arriving: set[str] = set()
        """Builds that have a place and are being loaded."""
        self._lock = asyncio.Lock()
        self._used_at: dict[str, float] = {}
        self._held: Counter[str] = Counter()
        self._commands: asyncio.Queue[tuple[str, Report]] = asyncio.Queue(MAX_COMMANDS)

    def warm(self, build_id: str) -> bool:
        """Return whether a build is in memory."""
        return any(slot.model == build_id and slot.state in _WARM for slot in self._engine.slots())

    def offer(self, build: Build) -> None:
        """Let a build be loaded; another version of it is loaded by this one's files next."""
        self._builds[build.build_id] = build

    def withdraw(self, build_id: str) -> None:
        """Let a build be loaded no more; what is in memory stays until it is evicted."""
        self._builds.pop(build_id, None)

    def held_by_request(self, build_id: str) -> bool:
        """Return whether a request is about to use a build."""
        return self._held[build_id] > 0

    def command(self, build_id: str, report: Report) -> None:
        """Load a build soon; `report` hears how it goes."""
        if build_id not in self._builds:
            report(OperationStatus.OPERATION_STATUS_FAILED, "unknown_build")
            return
        try:
            self._commands.put_nowait((build_id, report))
        except asyncio.QueueFull:
            report(OperationStatus.OPERATION_STATUS_FAILED, "too_many_commands")

    async def run(self) -> None:
        """Do commands, one after the other, and unload what nobody uses, for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._obey(), name="loads.commands")
            if self._idle_s:
                tasks.create_task(self._sweep(), name="loads.idle")

    async def _sweep(self) -> None:
        while True:
            await self._clock.sleep(SWEEP_S)
            now = self._clock.monotonic()
            async with self._lock:
                idle = self._idle()
                busy = {slot.model for slot in self._engine.slots()}.difference(idle)
                self._used_at.update(dict.fromkeys(busy, now))
                for name in idle:
                    if now - self._used_at.setdefault(name, now) >= self._idle_s:
                        _log.info("build_unloaded", build=name, idle_s=self._idle_s)
                        await self._engine.unload(name)

    async def _obey(self) -> None:
        while True:
            build_id, report = await self._commands.get()
            report(OperationStatus.OPERATION_STATUS_STARTED, "")
            try:
                await self.load(build_id)
            except EngineError as error:
                _log.warning("load_command_failed", build=build_id, code=error.code.value)
                full = error.code is FailureCode.CAPACITY
                word = "insufficient_memory" if full else "load_failed"
                report(OperationStatus.OPERATION_STATUS_FAILED, word)
            else:
                report(OperationStatus.OPERATION_STATUS_SUCCEEDED, "")

    async def load(self, build_id: str) -> None:
        """Bring a build into memory; does nothing where it is.

        Raises:
            EngineError: It cannot be loaded, or every other build is in use.
        """
        self._used_at[build_id] = self._clock.monotonic()
        if self.warm(build_id):
            return
        build = self._builds.get(build_id)
        if build is None:
            raise model_unavailable("build is not served here")
        self._held[build_id] += 1
        try:
            async with self._claimed(build):
                await self._engine.load(build)
        finally:
            self._release(build_id)

    @asynccontextmanager
    async def _claimed(self, build: Build) -> AsyncIterator[None]:
        """Hold a place and the memory of a build while it is loaded.

        Whoever finds it arriving waits in the engine, for the one load there is.
        """
        async with self._lock:
            first = build.build_id not in self._arriving and not self.warm(build.build_id)
            if first:
                await self._make_room(build)
                self._arriving.add(build.build_id)
        try:
            yield
        finally:
            if first:
                self._arriving.discard(build.build_id)
                if self._claims is not None:
                    self._claims.settle(build.build_id)

    @asynccontextmanager
    async def held(self, build_id: str) -> AsyncIterator[None]:
        """Load a build and keep it from being evicted meanwhile.

        Raises:
            EngineError: It cannot be loaded.
        """
        self._held[build_id] += 1
        try:
            await self.load(build_id)
            yield
        finally:
            self._release(build_id)

    async def _make_room(self, build: Build) -> None:
        """Evict until there is a place and memory, the longest unused first.

        Raises:
            EngineError: What is in use leaves none.
        """
        while True:
            warm = {slot.model for slot in self._engine.slots() if slot.state in _WARM}
            placed = len(warm | self._arriving) < self._slots
            if placed and (self._claims is None or await self._claims.claim(build)):
                return
            idle = self._idle()
            if not idle and placed:
                raise capacity("memory is in use", ErrorReason.REQUEST_EXCEEDS_NODE)
            if not idle:
                raise capacity("every build in memory is in use", ErrorReason.QUEUE_FULL)
            victim = min(idle, key=lambda name: self._used_at.get(name, 0.0))
            _log.info("build_evicted", build=victim)
            await self._engine.unload(victim)

    def _idle(self) -> list[str]:
        return [
            slot.model
            for slot in self._engine.slots()
            if slot.state in _WARM
            and not slot.num_running
            and not slot.num_waiting
            and not self._held[slot.model]
        ]

    def _release(self, build_id: str) -> None:
        self._held[build_id] -= 1
        if not self._held[build_id]:
            del self._held[build_id]
