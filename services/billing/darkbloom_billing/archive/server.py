"""The archive on the wire: translate, delegate, translate back."""

from datetime import timedelta

from darkbloom.billing.v1 import ledger_pb2
from darkbloom.billing.v1 import receipt_service_pb2 as pb
from darkbloom.billing.v1.receipt_service_pb2_grpc import ReceiptServiceServicer
from darkbloom.common.v1.price_pb2 import SignedDocument
from darkbloom_edge.merkle import Leaves
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import NotFoundError
from darkbloom_mesh.interceptors import Context
from google.protobuf.timestamp_pb2 import Timestamp

from darkbloom_billing import convert as wire
from darkbloom_billing.archive.model import Anchor
from darkbloom_billing.archive.store import PostgresArchive
from darkbloom_billing.model import Signed


class ReceiptServer(ReceiptServiceServicer):
    """Receipts of accounts; what belongs to another account is not there."""

    def __init__(self, archive: PostgresArchive, clock: Clock, *, keep: timedelta) -> None:
        self._archive = archive
        self._clock = clock
        self._keep = keep

    async def GetReceipt(
        self, request: pb.GetReceiptRequest, context: Context
    ) -> pb.GetReceiptResponse:
        """Return a receipt and where it is anchored."""
        account_id = wire.token(request.account_id, "account_id")
        name = wire.token(request.id, "id")
        since = self._clock.now() - self._keep
        found = await self._archive.find(account_id, name, since=since)
        if found is None:
            raise NotFoundError("no such receipt")

        receipt = found.receipt
        recorded, expires = Timestamp(), Timestamp()
        recorded.FromDatetime(found.recorded_at)
        expires.FromDatetime(found.recorded_at + self._keep)
        return pb.GetReceiptResponse(
            record=ledger_pb2.ReceiptRecord(
                request_id=receipt.request_id,
                countersign=_signed(receipt.signed),
                terminal=_signed(receipt.terminal),
                verdict=_signed(receipt.verdict),
                identity_key=receipt.identity_key,
            ),
            record_time=recorded,
            expire_time=expires,
            anchor=_anchor(found.anchor),
        )


def _signed(signed: Signed | None) -> SignedDocument | None:
    if signed is None:
        return None
    return SignedDocument(
        document=signed.document, signature=signed.signature, key_id=signed.key_id
    )


def _anchor(anchor: Anchor | None) -> pb.ReceiptAnchor | None:
    if anchor is None:
        return None
    tree = Leaves(anchor.leaves)
    return pb.ReceiptAnchor(
        batch_id=anchor.batch_id,
        index=anchor.place,
        size=len(anchor.leaves),
        path=tree.inclusion(anchor.place),
        root_hash=tree.root,
        log_index=anchor.log_index,
    )
