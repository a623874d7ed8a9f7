"""Which builds are in memory: a few at a time; the longest unused makes room for another.

A build is asked for by the router's command, ahead of demand, or by a request that finds it cold.
Loads run one after the other; a build that a request is about to use is never evicted.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import structlog
from darkbloom.router.v1.provider_link_pb2 import OperationStatus
from darkbloom_mesh.clock import Clock

from darkbloom_provider.engine.errors import (
    EngineError,
    ErrorReason,
    FailureCode,
    capacity,
    model_unavailable,
)
from darkbloom_provider.engine.interface import Build, Engine, SlotStatus

MAX_COMMANDS = 16
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
    """

    def __init__(
        self, engine: Engine, builds: Iterable[Build], *, slots: int, clock: Clock
    ) -> None:
        self._engine = engine
        self._builds = {build.build_id: build for build in builds}
        self._slots = slots
        self._clock = clock
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
        """Do commands, one after the other, for ever."""
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
            async with self._lock:
                if not self.warm(build_id):
                    await self._make_room()
                    await self._engine.load(build)
        finally:
            self._release(build_id)

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

    async def _make_room(self) -> None:
        slots = [slot for slot in self._engine.slots() if slot.state in _WARM]
        if len(slots) < self._slots:
            return
        idle = [
            slot.model
            for slot in slots
            if not slot.num_running and not slot.num_waiting and not self._held[slot.model]
        ]
        if not idle:
            raise capacity("every build in memory is in use", ErrorReason.QUEUE_FULL)
        victim = min(idle, key=lambda name: self._used_at.get(name, 0.0))
        _log.info("build_evicted", build=victim)
        await self._engine.unload(victim)

    def _release(self, build_id: str) -> None:
        self._held[build_id] -= 1
        if not self._held[build_id]:
            del self._held[build_id]
