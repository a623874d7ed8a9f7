"""The transparency log, blessed releases and kept receipts of the other rooms, for reading."""

from collections.abc import Awaitable, Sequence
from typing import TypeVar

import grpc
from darkbloom.attestation.v1 import attestation_pb2, attestation_service_pb2
from darkbloom.attestation.v1 import log_service_pb2 as pb
from darkbloom.attestation.v1.attestation_service_pb2_grpc import AttestationServiceStub
from darkbloom.attestation.v1.log_service_pb2_grpc import LogServiceStub
from darkbloom.billing.v1 import receipt_service_pb2
from darkbloom.billing.v1.receipt_service_pb2_grpc import ReceiptServiceStub
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import InvalidArgumentError, MeshError, NotFoundError

from darkbloom_gateway.cached import Cached
from darkbloom_gateway.clients import answer
from darkbloom_gateway.errors import unavailable

HEAD_S = 1.0
RELEASES_S = 5.0
STALE_S = 600.0

T = TypeVar("T")


class TransparencyClient:
    """Reads of what is public about the mesh, and of an account's receipts.

    Args:
        attestation: where log and releases are.
        billing: where receipts are.
        clock: time.
        timeout_s: of each call.
    """

    def __init__(
        self,
        attestation: grpc.aio.Channel,
        billing: grpc.aio.Channel,
        clock: Clock,
        *,
        timeout_s: float,
    ) -> None:
        self._log: LogServiceStub = LogServiceStub(attestation)
        self._attestation: AttestationServiceStub = AttestationServiceStub(attestation)
        self._receipts: ReceiptServiceStub = ReceiptServiceStub(billing)
        self._timeout_s = timeout_s
        self.head = Cached(self._read_head, clock=clock, fresh_s=HEAD_S)
        """The newest signed head; never a stale one."""
        self.releases = Cached(
            self._read_releases, clock=clock, fresh_s=RELEASES_S, stale_s=STALE_S
        )
        """Every release that is blessed now."""

    async def entries(self, request: pb.ListLogEntriesRequest) -> pb.ListLogEntriesResponse:
        """Return entries; an impossible request keeps its class."""
        return await _ask(self._log.ListLogEntries(request, timeout=self._timeout_s))

    async def inclusion(self, index: int, size: int) -> pb.GetInclusionProofResponse:
        """Return a proof; NotFoundError where the log is shorter."""
        request = pb.GetInclusionProofRequest(log_index=index, tree_size=size)
        return await _ask(self._log.GetInclusionProof(request, timeout=self._timeout_s))

    async def consistency(self, first: int, second: int) -> pb.GetConsistencyProofResponse:
        """Return a proof; NotFoundError where the log is shorter."""
        request = pb.GetConsistencyProofRequest(first_size=first, second_size=second)
        return await _ask(self._log.GetConsistencyProof(request, timeout=self._timeout_s))

    async def receipt(self, account_id: str, name: str) -> receipt_service_pb2.GetReceiptResponse:
        """Return a receipt of an account; NotFoundError where it has none of this name."""
        request = receipt_service_pb2.GetReceiptRequest(account_id=account_id, id=name)
        return await _ask(self._receipts.GetReceipt(request, timeout=self._timeout_s))

    async def _read_head(self) -> pb.GetLogHeadResponse:
        return await answer(self._log.GetLogHead(pb.GetLogHeadRequest(), timeout=self._timeout_s))

    async def _read_releases(self) -> Sequence[attestation_pb2.CodeRelease]:
        request = attestation_service_pb2.ListCodeReleasesRequest()
        call = self._attestation.ListCodeReleases(request, timeout=self._timeout_s)
        return (await answer(call)).releases


async def _ask(call: Awaitable[T]) -> T:
    try:
        return await answer(call)
    except (InvalidArgumentError, NotFoundError):
        raise
    except MeshError:
        raise unavailable() from None
