"""Tells the registry what this replica saw of builds, so that rollouts go on or come back."""

from collections.abc import Callable, Collection

import grpc
import structlog
from darkbloom.registry.v1 import registry_service_pb2 as registry_rpc
from darkbloom.registry.v1 import rollout_pb2
from darkbloom.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from darkbloom_mesh.backoff import Backoff
from darkbloom_mesh.clock import Clock

from darkbloom_router.downloads import Downloads
from darkbloom_router.observations import Batch, Observations, Stage

PERIOD_S = 2.0
MAX_ROWS = 1000
_MAX_BYTES = 1 << 50
_STAGE = {
    Stage.STARTED: rollout_pb2.MODEL_STAGE_STARTED,
    Stage.DOWNLOADING: rollout_pb2.MODEL_STAGE_DOWNLOADING,
    Stage.VERIFIED: rollout_pb2.MODEL_STAGE_VERIFIED,
    Stage.FAILED: rollout_pb2.MODEL_STAGE_FAILED,
    Stage.LOADED: rollout_pb2.MODEL_STAGE_LOADED,
}
_log = structlog.get_logger()


class ModelReports:
    """Sends one report at a time, again and again until it is taken; meanwhile notes add up.

    Args:
        channel: To the registry.
        seen: What is noted.
        clock: Between reports.
        backoff: Between tries.
        session: Names this life of this replica; a report that comes twice counts once.
        timeout_s: Of a call.
        downloads: Who waits for leave to fetch.
        granted: Told of machines that have it.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        seen: Observations,
        clock: Clock,
        backoff: Backoff,
        *,
        session: str,
        timeout_s: float,
        downloads: Downloads,
        granted: Callable[[Collection[bytes]], None],
    ) -> None:
        self._stub: RegistryServiceStub = RegistryServiceStub(channel)
        self._seen = seen
        self._clock = clock
        self._backoff = backoff
        self._session = session
        self._timeout_s = timeout_s
        self._downloads = downloads
        self._granted = granted
        self._sequence = 0

    async def run(self) -> None:
        """Report for ever."""
        while True:
            await self._clock.sleep(PERIOD_S)
            await self.report()

    async def report(self) -> None:
        """Hand over what was noted; returns once it is taken, or can never be."""
        batch, wanted = self._seen.take(), self._downloads.wanted
        if batch is None and not wanted:
            return
        self._sequence += 1
        request = message_of(batch or Batch({}, {}), self._session, self._sequence)
        request.downloads_wanted = wanted
        while not await self._sent(request):
            await self._clock.sleep(self._backoff.next_s())
        self._backoff.reset()

    async def _sent(self, request: registry_rpc.ReportModelStatesRequest) -> bool:
        try:
            answer = await self._stub.ReportModelStates(request, timeout=self._timeout_s)
        except grpc.aio.AioRpcError as error:
            status = error.code()
            _log.warning("model_report_failed", status=status.name.lower())
            # A registry of an older release, or one that finds a fault: asking again is in vain.
            return status in _FINAL
        if answer.downloads_granted:
            self._granted(self._downloads.grant(answer.downloads_granted))
        return True


_FINAL = frozenset(
    {
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.PERMISSION_DENIED,
    }
)


def message_of(batch: Batch, session: str, sequence: int) -> registry_rpc.ReportModelStatesRequest:
    """Write a report."""
    request = registry_rpc.ReportModelStatesRequest(session=session, sequence=sequence)
    for (build, generation), tally in list(batch.tallies.items())[:MAX_ROWS]:
        counts = rollout_pb2.RolloutCounts(
            successes=tally.successes,
            failures=tally.failures,
            load_failures=tally.load_failures,
            untrusted=tally.untrusted,
            ttft_buckets=tally.ttft,
        )
        row = registry_rpc.BuildReport(build=build, counts=counts, catalog_generation=generation)
        request.builds.append(row)
    for (provider_id, build), progress in batch.states.items():
        request.states.append(
            rollout_pb2.ModelState(
                provider_id=provider_id,
                build=build,
                stage=_STAGE[progress.stage],
                bytes_done=min(progress.bytes_done, _MAX_BYTES),
                bytes_total=min(progress.bytes_total, _MAX_BYTES),
                error=progress.error,
                machine=progress.machine,
            )
        )
    return request
