"""Wishes on the wire: the router's lists, and what is said of each download."""

from darkbloom.router.v1.provider_link_pb2 import (
    DesiredModels,
    OperationStatus,
    PrefetchModel,
    PrefetchModelStatus,
)
from darkbloom_edge.manifest import valid_model_id, valid_version

from darkbloom_provider.wishes import Tracked, Wish, WishState, WishTaker

_STATUS = {
    WishState.WAITING: OperationStatus.OPERATION_STATUS_STARTED,
    WishState.DOWNLOADING: OperationStatus.OPERATION_STATUS_DOWNLOADING,
    WishState.DONE: OperationStatus.OPERATION_STATUS_VERIFIED,
    WishState.FAILED: OperationStatus.OPERATION_STATUS_FAILED,
    WishState.REFUSED: OperationStatus.OPERATION_STATUS_FAILED,
}


def take_desired(payload: bytes, stock: WishTaker | None) -> None:
    """Hand over a list.

    Raises:
        DecodeError: it is none.
    """
    message = DesiredModels.FromString(payload)
    if stock is not None:
        stock.desire(read_wishes(message), message.catalog_generation)


def take_prefetch(payload: bytes, stock: WishTaker | None) -> PrefetchModelStatus | None:
    """Hand over a command; return what is said where nobody takes it.

    Raises:
        DecodeError: it is none.
    """
    build = PrefetchModel.FromString(payload).model_id
    if stock is not None and valid_model_id(build) and stock.command(build):
        return None
    return PrefetchModelStatus(
        model_id=build, status=OperationStatus.OPERATION_STATUS_FAILED, error="refused"
    )


def read_wishes(message: DesiredModels) -> list[Wish]:
    """Return what a list asks for; builds that the catalog has not published are passed over."""
    return [
        Wish(build=row.desired_build, version=row.version, weight_hash=row.aggregate_sha256)
        for row in message.models
        if valid_model_id(row.desired_build) and valid_version(row.version)
    ]


def wish_status(tracked: Tracked) -> PrefetchModelStatus:
    """Return how far a wish is."""
    return PrefetchModelStatus(
        model_id=tracked.wish.build,
        status=_STATUS[tracked.state],
        bytes_done=tracked.done_bytes,
        bytes_total=tracked.total_bytes,
        error=tracked.reason.value if tracked.reason is not None else "",
    )
