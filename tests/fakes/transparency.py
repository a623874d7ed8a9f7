"""Stand-ins for the transparency log and the archive of receipts, over trees in memory."""

from darkbloom.attestation.v1 import log_pb2
from darkbloom.attestation.v1 import log_service_pb2 as pb
from darkbloom.attestation.v1.log_service_pb2_grpc import LogServiceServicer
from darkbloom.billing.v1 import receipt_service_pb2
from darkbloom.billing.v1.receipt_service_pb2_grpc import ReceiptServiceServicer
from darkbloom.common.v1.price_pb2 import SignedDocument
from darkbloom_edge.log import LogHead, decode_entry, sign_head, subjects_of
from darkbloom_edge.merkle import Leaves, leaf_hash
from darkbloom_edge.signatures import Ed25519Signer
from darkbloom_mesh.errors import InvalidArgumentError, NotFoundError


class FakeLog(LogServiceServicer):
    """Serves the entries that a test puts in."""

    def __init__(self, signer: Ed25519Signer) -> None:
        self.signer = signer
        self.entries: list[bytes] = []

    def tree(self, size: int) -> Leaves:
        if size > len(self.entries):
            raise NotFoundError("the log never had that size")
        return Leaves([leaf_hash(one) for one in self.entries[: size or len(self.entries)]])

    async def GetLogHead(self, request, context):
        head = LogHead(
            tree_size=len(self.entries),
            root_hash=self.tree(0).root.hex(),
            time="2026-01-01T00:00:00Z",
        )
        document, signature = sign_head(head, self.signer)
        signed = SignedDocument(document=document, signature=signature, key_id=self.signer.key_id)
        return pb.GetLogHeadResponse(head=signed, tree_size=head.tree_size)

    async def ListLogEntries(self, request, context):
        if request.subject and not request.kind:
            raise InvalidArgumentError("needs a kind", "subject")
        found = [
            log_pb2.LogEntry(log_index=index, body=body)
            for index, body in enumerate(self.entries)
            if index >= request.start_index and self._fits(body, request)
        ]
        page = found[: request.page_size]
        more = len(page) < len(found)
        return pb.ListLogEntriesResponse(
            entries=page,
            next_index=page[-1].log_index + 1 if more else None,
            tree_size=len(self.entries),
        )

    async def GetInclusionProof(self, request, context):
        size = request.tree_size or len(self.entries)
        if request.log_index >= size:
            raise NotFoundError("the tree has no such entry")
        tree = self.tree(size)
        return pb.GetInclusionProofResponse(
            log_index=request.log_index,
            tree_size=size,
            path=tree.inclusion(request.log_index),
            root_hash=tree.root,
            leaf_hash=leaf_hash(self.entries[request.log_index]),
        )

    async def GetConsistencyProof(self, request, context):
        size = request.second_size or len(self.entries)
        if request.first_size > size:
            raise NotFoundError("the first size is larger than the second")
        return pb.GetConsistencyProofResponse(
            first_size=request.first_size,
            second_size=size,
            path=self.tree(size).consistency(request.first_size),
            first_root_hash=self.tree(request.first_size).root,
            second_root_hash=self.tree(size).root,
        )

    async def AppendReceiptBatch(self, request, context):
        raise InvalidArgumentError("not here", "batch_id")

    def _fits(self, body: bytes, request: pb.ListLogEntriesRequest) -> bool:
        entry = decode_entry(body)
        return request.kind in ("", entry.kind) and (
            not request.subject or request.subject in subjects_of(entry)
        )


class FakeReceipts(ReceiptServiceServicer):
    """Serves the receipts that a test puts in, by (account, name)."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], receipt_service_pb2.GetReceiptResponse] = {}

    async def GetReceipt(self, request, context):
        found = self.kept.get((request.account_id, request.id))
        if found is None:
            raise NotFoundError("no such receipt")
        return found
