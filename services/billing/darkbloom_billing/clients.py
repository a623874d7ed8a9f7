"""What billing asks other rooms: attestation's public keys."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC

import grpc
from darkbloom.attestation.v1 import attestation_service_pb2 as attestation
from darkbloom.attestation.v1.attestation_pb2 import SigningKey as SigningKeyMessage
from darkbloom.attestation.v1.attestation_service_pb2_grpc import AttestationServiceStub
from darkbloom.attestation.v1.log_service_pb2 import AppendReceiptBatchRequest
from darkbloom.attestation.v1.log_service_pb2_grpc import LogServiceStub
from darkbloom_edge.signatures import ED25519_BYTES, ed25519_key_id
from darkbloom_mesh.errors import from_rpc_error

from darkbloom_billing.archive.model import Batch
from darkbloom_billing.model import SigningKey

_TIMEOUT_S = 2.0


class VerdictKeys:
    """Keys that sign verdicts."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: AttestationServiceStub = AttestationServiceStub(channel)

    async def fetch(self) -> Mapping[str, SigningKey]:
        """Return all keys by id; raises MeshError."""

        async def call() -> Iterable[SigningKeyMessage]:
            request = attestation.ListVerdictKeysRequest()
            return (await self._stub.ListVerdictKeys(request, timeout=_TIMEOUT_S)).keys

        return await _fetch(call)


class ReceiptKeys:
    """Keys with which gateways countersign."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: AttestationServiceStub = AttestationServiceStub(channel)

    async def fetch(self) -> Mapping[str, SigningKey]:
        """Return all keys by id; raises MeshError."""

        async def call() -> Iterable[SigningKeyMessage]:
            request = attestation.ListReceiptKeysRequest()
            return (await self._stub.ListReceiptKeys(request, timeout=_TIMEOUT_S)).keys

        return await _fetch(call)


class AttestationLog:
    """The transparency log, where batches of receipts are anchored."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: LogServiceStub = LogServiceStub(channel)

    async def append(self, batch: Batch) -> int:
        """Append a batch and return its index; raises MeshError."""
        request = AppendReceiptBatchRequest(
            batch_id=batch.batch_id, root_hash=batch.root, size=batch.size
        )
        try:
            answer = await self._stub.AppendReceiptBatch(request, timeout=_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        return answer.log_index


async def _fetch(
    call: Callable[[], Awaitable[Iterable[SigningKeyMessage]]],
) -> Mapping[str, SigningKey]:
    try:
        listed = await call()
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from error

    # Ids are made from the keys here, so no list can put one key under another's id.
    keys = (
        SigningKey(
            key_id=ed25519_key_id(key.public_key),
            public=key.public_key,
            retired_at=key.retire_time.ToDatetime(UTC) if key.HasField("retire_time") else None,
        )
        for key in listed
        if len(key.public_key) == ED25519_BYTES
    )
    return {key.key_id: key for key in keys}
