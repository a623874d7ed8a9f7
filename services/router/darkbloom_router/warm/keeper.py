"""Sends the pool's commands and hears how they end; one replica of many does it, the leader."""

from collections.abc import Callable, Mapping

import structlog
from darkbloom.common.v1.frame_pb2 import FrameKind
from darkbloom.router.v1.provider_link_pb2 import LoadModel, LoadModelStatus, OperationStatus
from darkbloom_mesh.clock import Clock

from darkbloom_router.meter import Meter
from darkbloom_router.provider import Candidate, Provider
from darkbloom_router.replicas.lane import ProviderLane
from darkbloom_router.timers import Timers
from darkbloom_router.warm.pending import LoadEnd
from darkbloom_router.warm.pool import SWAP_EVERY_S, Tick, WarmPool
from darkbloom_router.warm.targets import TICK_S

_log = structlog.get_logger()
_ENDS = {"draining": LoadEnd.DRAINING, "insufficient_memory": LoadEnd.MEMORY}


class WarmKeeper:
    """Keeps builds in memory.

    Args:
        pool: Decides.
        lanes: Lanes of the connected providers.
        timers: What time it is, and trailing plans.
        meter: Counters.
        waiting: Returns the builds that somebody waits for, with their depth and age.
        is_leader: Whether this replica is the one that loads.
    """

    def __init__(
        self,
        pool: WarmPool,
        lanes: Mapping[Provider, ProviderLane],
        timers: Timers,
        meter: Meter,
        *,
        waiting: Callable[[], Mapping[str, object]],
        is_leader: Callable[[], bool],
    ) -> None:
        self.pool = pool
        self._lanes = lanes
        self._timers = timers
        self._meter = meter
        self._waiting = waiting
        self._is_leader = is_leader
        self._planned = False

    async def run(self, clock: Clock) -> None:
        """Tick for ever; other work gets its turn between two builds."""
        while True:
            await clock.sleep(TICK_S)
            for build in self.due():
                self.tick(build)
                await clock.sleep(0)

    def due(self) -> list[str]:
        """Return the builds to look at now."""
        return self.pool.due(set(self._waiting())) if self._is_leader() else []

    def tick(self, build: str) -> Tick:
        """Judge one build and load what is missing."""
        found = self.pool.tick(build, self._timers.now())
        self._meter.pooled(build, found.warm, found.target)
        if found.pressed or found.chosen:
            _log.info(
                "warm_pool",
                build=build,
                warm=found.warm,
                cold=found.cold,
                target=found.target,
                queued=found.queued,
                pending=found.pending,
                loads=len(found.chosen),
                lacking={reason.value: count for reason, count in sorted(found.lacking.items())},
                observe_only=self.pool.rules.observe_only,
            )
        for candidate in found.chosen:
            self._load(candidate)
        return found

    def kick(self, _build: str = "") -> None:
        """Plan one swap soon: somebody waits, or a machine may have come free."""
        if self._planned:
            return
        self._planned = True
        self._timers.after(SWAP_EVERY_S, self._swap)

    def answered(self, provider: Provider, message: LoadModelStatus) -> None:
        """Take what a provider says about a command."""
        if message.status == OperationStatus.OPERATION_STATUS_SUCCEEDED:
            end = LoadEnd.LOADED
        elif message.status == OperationStatus.OPERATION_STATUS_FAILED:
            end = _ENDS.get(message.error, LoadEnd.FAILED)
        else:
            return
        self._meter.loaded(message.model_id, end.value)
        self.pool.pending.ended(provider.provider_id, message.model_id, end, self._timers.now())

    def left(self, provider: Provider) -> None:
        """Forget the commands of a provider that is gone."""
        self.pool.pending.left(provider.provider_id)

    def _swap(self) -> None:
        self._planned = False
        waiting = sorted(self._waiting())
        if not waiting or not self._is_leader():
            return
        candidate = self.pool.swap(waiting, self._timers.now())
        if candidate is not None:
            self._load(candidate)

    def _load(self, candidate: Candidate) -> None:
        lane = self._lanes.get(candidate.provider)
        build = candidate.build.build
        if self.pool.rules.observe_only or lane is None:
            self._meter.loaded(build, "observed")
            return
        self.pool.asked(candidate, self._timers.now())
        self._meter.loaded(build, "sent")
        lane.send_control(FrameKind.FRAME_KIND_LOAD_MODEL, 0, LoadModel(model_id=build))
