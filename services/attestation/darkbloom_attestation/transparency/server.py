"""The transparency log on the wire: translate, delegate, translate back."""

from typing import final

from darkbloom.attestation.v1 import log_pb2
from darkbloom.attestation.v1 import log_service_pb2 as pb
from darkbloom.attestation.v1.log_service_pb2_grpc import LogServiceServicer
from darkbloom_mesh.interceptors import Context

from darkbloom_attestation import convert
from darkbloom_attestation.transparency.log import TransparencyLog


@final
class LogServer(LogServiceServicer):
    """Serves all RPCs of the log; errors are those of the domain and leave as mesh statuses."""

    def __init__(self, log: TransparencyLog) -> None:
        self._log = log

    async def GetLogHead(
        self, request: pb.GetLogHeadRequest, context: Context
    ) -> pb.GetLogHeadResponse:
        """Return the log as it is now, signed."""
        signed, size = await self._log.head()

        return pb.GetLogHeadResponse(head=convert.signed_to(signed), tree_size=size)

    async def ListLogEntries(
        self, request: pb.ListLogEntriesRequest, context: Context
    ) -> pb.ListLogEntriesResponse:
        """Return entries from an index on."""
        page = await self._log.entries(
            request.start_index,
            request.page_size,
            convert.entry_kind_from(request.kind),
            convert.subject_from(request.subject),
        )

        return pb.ListLogEntriesResponse(
            entries=[
                log_pb2.LogEntry(log_index=entry.index, body=entry.body) for entry in page.entries
            ],
            next_index=page.next_index,
            tree_size=page.size,
        )

    async def GetInclusionProof(
        self, request: pb.GetInclusionProofRequest, context: Context
    ) -> pb.GetInclusionProofResponse:
        """Prove that an entry is in the log."""
        proof = await self._log.inclusion(request.log_index, request.tree_size)

        return pb.GetInclusionProofResponse(
            log_index=proof.index,
            tree_size=proof.size,
            path=proof.path,
            root_hash=proof.root,
            leaf_hash=proof.leaf,
        )

    async def GetConsistencyProof(
        self, request: pb.GetConsistencyProofRequest, context: Context
    ) -> pb.GetConsistencyProofResponse:
        """Prove that the log has only grown."""
        proof = await self._log.consistency(request.first_size, request.second_size)

        return pb.GetConsistencyProofResponse(
            first_size=proof.first,
            second_size=proof.second,
            path=proof.path,
            first_root_hash=proof.first_root,
            second_root_hash=proof.second_root,
        )

    async def AppendReceiptBatch(
        self, request: pb.AppendReceiptBatchRequest, context: Context
    ) -> pb.AppendReceiptBatchResponse:
        """Anchor a batch of receipts."""
        index = await self._log.append_batch(
            convert.batch_id_from(request.batch_id), request.root_hash, request.size
        )

        return pb.AppendReceiptBatchResponse(log_index=index)
