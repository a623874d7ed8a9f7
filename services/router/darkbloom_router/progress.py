"""What machines say about builds on their way, as it is noted."""

from collections.abc import Callable, Iterable

from darkbloom.router.v1.provider_link_pb2 import (
    LoadModelStatus,
    OperationStatus,
    PrefetchModelStatus,
)

from darkbloom_router.catalog import in_share
from darkbloom_router.model import Alias
from darkbloom_router.observations import OWN_CAUSES, Progress, Stage
from darkbloom_router.provider import Provider

_FETCHED = {
    OperationStatus.OPERATION_STATUS_STARTED: Stage.STARTED,
    OperationStatus.OPERATION_STATUS_DOWNLOADING: Stage.DOWNLOADING,
    OperationStatus.OPERATION_STATUS_VERIFIED: Stage.VERIFIED,
    OperationStatus.OPERATION_STATUS_SUCCEEDED: Stage.VERIFIED,
    OperationStatus.OPERATION_STATUS_FAILED: Stage.FAILED,
}
_LOADED = {
    OperationStatus.OPERATION_STATUS_SUCCEEDED: Stage.LOADED,
    OperationStatus.OPERATION_STATUS_FAILED: Stage.FAILED,
}


def of_fetch(message: PrefetchModelStatus) -> Progress | None:
    """Return how far a download is; None where the machine says nothing that we know."""
    stage = _FETCHED.get(message.status)
    if stage is None:
        return None
    return Progress(stage, message.bytes_done, message.bytes_total, message.error)


def of_load(message: LoadModelStatus) -> Progress | None:
    """Return how a load ended; None while it runs. A cause of the machine's own is kept."""
    stage = _LOADED.get(message.status)
    if stage is None:
        return None
    return Progress(stage, error=message.error if message.error in OWN_CAUSES else "load_failed")


def shares(provider: Provider, fleet: Iterable[Provider]) -> Callable[[Alias], bool]:
    """Return whether this machine belongs to the share that an alias's rollout has reached."""

    def holds(alias: Alias, other: Provider) -> bool:
        return alias.desired in other.candidates or alias.previous in other.candidates

    def taken(alias: Alias) -> bool:
        peers = (other.identity_key for other in fleet if holds(alias, other))
        return in_share(alias, provider.identity_key, peers)

    return taken
