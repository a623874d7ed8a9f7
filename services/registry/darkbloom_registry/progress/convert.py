"""Readers, propagation and progress to protobuf and back; pure and total."""

from collections.abc import Sequence
from datetime import datetime

from darkbloom.registry.v1 import registry_service_pb2 as pb
from darkbloom_mesh.errors import InvalidArgumentError

from darkbloom_registry.convert import key_from, timestamp
from darkbloom_registry.progress.readers import Holding, Progress, Propagation, Reader
from darkbloom_registry.rollout_convert import MAX_ROWS, STAGE_TO, rollout_to
from darkbloom_registry.rollouts import Rollout

_ROOMS = ("gateway", "router")
_MAX_MACHINES = 1_000_000
_MAX_TEXT = 256


def reader_from(request: pb.ConfirmCatalogRequest, now: datetime) -> Reader:
    """Read where a replica stands.

    Raises:
        InvalidArgumentError: a field is missing or out of range.
    """
    if request.room not in _ROOMS:
        raise InvalidArgumentError(f"must be one of {', '.join(_ROOMS)}", "room")
    if len(request.holdings) > MAX_ROWS:
        raise InvalidArgumentError("too many", "holdings")
    if request.generation < 0:
        raise InvalidArgumentError("out of range", "generation")
    holdings = {one.build: _holding_from(one) for one in request.holdings}
    return Reader(
        session=_named(request.session, "session"),
        room=request.room,
        replica=_named(request.replica, "replica"),
        generation=request.generation,
        confirm_time=now,
        holdings=tuple(holdings.values()),
    )


def propagation_to(found: Propagation) -> pb.GetPropagationResponse:
    """Write who goes by a generation."""
    return pb.GetPropagationResponse(
        generation=found.generation,
        newest_generation=found.newest,
        committed=found.committed,
        propagated=found.propagated,
        readers=[
            pb.CatalogReader(
                room=reader.room,
                replica=reader.replica,
                generation=reader.generation,
                confirm_time=timestamp(reader.confirm_time),
                silent=reader.silent,
            )
            for reader in found.readers
        ],
    )


def progress_to(
    build: str, found: Progress, rollouts: Sequence[Rollout]
) -> pb.GetBuildProgressResponse:
    """Write how far a build is."""
    return pb.GetBuildProgressResponse(
        build=build,
        stages=[
            pb.StageCount(stage=number, machines=found.stages[stage])
            for stage, number in STAGE_TO.items()
            if stage in found.stages
        ],
        bytes_done=found.bytes_done,
        bytes_total=found.bytes_total,
        failures=[
            pb.FailureCount(error=error, machines=count)
            for error, count in sorted(found.failures.items())
        ],
        now=_holding_to(found.now),
        proven=found.now.warm > 0,
        rollouts=map(rollout_to, rollouts),
    )


def _holding_from(message: pb.BuildHolding) -> Holding:
    counts = (message.wished, message.holding, message.current, message.warm)
    if not all(0 <= count <= _MAX_MACHINES for count in counts):
        raise InvalidArgumentError("out of range", "holdings")
    return Holding(
        build=_named(message.build, "holdings.build"),
        wished=message.wished,
        holding=message.holding,
        current=message.current,
        warm=message.warm,
    )


def _holding_to(holding: Holding) -> pb.BuildHolding:
    return pb.BuildHolding(
        build=holding.build,
        wished=holding.wished,
        holding=holding.holding,
        current=holding.current,
        warm=holding.warm,
    )


def _named(text: str, field: str) -> str:
    if not 0 < len(text) <= _MAX_TEXT:
        raise InvalidArgumentError(f"must be 1 to {_MAX_TEXT} characters", field)
    return key_from(text, field)
