"""Stubs of the other rooms behind the gateway's ports."""

from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from typing import Any, TypeVar

import grpc
from darkbloom.attestation.v1 import attestation_pb2, attestation_service_pb2
from darkbloom.attestation.v1.attestation_service_pb2_grpc import AttestationServiceStub
from darkbloom.billing.v1 import account_service_pb2, ledger_pb2, ledger_service_pb2
from darkbloom.billing.v1.account_service_pb2_grpc import AccountServiceStub
from darkbloom.billing.v1.ledger_service_pb2_grpc import LedgerServiceStub
from darkbloom.billing.v1.price_service_pb2 import ListPricesRequest
from darkbloom.billing.v1.price_service_pb2_grpc import PriceServiceStub
from darkbloom.common.v1.error_reason_pb2 import ErrorReason
from darkbloom.common.v1.page_pb2 import PageRequest
from darkbloom.common.v1.price_pb2 import SignedDocument
from darkbloom.registry.v1.catalog_pb2 import Catalog
from darkbloom.registry.v1.registry_service_pb2 import (
    ConfirmCatalogRequest,
    GetManifestRequest,
    GetRolloutRequest,
    ListManifestKeysRequest,
    ListRolloutsRequest,
    WatchCatalogRequest,
)
from darkbloom.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from darkbloom.registry.v1.rollout_pb2 import Rollout
from darkbloom.router.v1 import fleet_pb2, fleet_service_pb2
from darkbloom.router.v1.fleet_service_pb2_grpc import FleetServiceStub
from darkbloom_edge.signatures import to_base64
from darkbloom_mesh.errors import MeshError, from_rpc_error

from darkbloom_gateway import convert
from darkbloom_gateway.install import SignedManifest
from darkbloom_gateway.model import (
    Hold,
    HoldOrder,
    HoldRefusal,
    KeyRecord,
    Price,
    Refusal,
    SignedBytes,
)
from darkbloom_gateway.ports import (
    Balance,
    KeyEvent,
    PriceList,
    PublicKey,
    ReceiptRecord,
    UsageRow,
)

T = TypeVar("T")
_ROLLOUTS = 50
"""Newest ones that are shown."""
_UNUSABLE = (
    ErrorReason.ERROR_REASON_KEY_UNKNOWN,
    ErrorReason.ERROR_REASON_KEY_REVOKED,
    ErrorReason.ERROR_REASON_LOGIN_INVALID,
    ErrorReason.ERROR_REASON_TOKEN_UNKNOWN,
)
_FLEET_PAGE = 1000
_MAX_FLEET_PAGES = 16
_LINK_PAGE = 1000
_MAX_LINK_PAGES = 16


async def answer(call: Awaitable[T]) -> T:
    """Await a unary call and rebuild the other room's error."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from None


async def events(call: grpc.aio.UnaryStreamCall[Any, T]) -> AsyncIterator[T]:
    """Read a watch stream and rebuild the other room's error."""
    try:
        async for event in call:
            yield event
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from None


def refusal_of(error: MeshError) -> Refusal:
    """Return the refusal that billing means; any other error goes on."""
    if error.reason in _UNUSABLE:
        return Refusal.UNUSABLE
    if error.reason == ErrorReason.ERROR_REASON_ACCOUNT_PENDING_DELETION:
        return Refusal.CLOSING
    raise error


class BillingClient:
    """Accounts, ledger and prices over one channel."""

    def __init__(self, channel: grpc.aio.Channel, *, timeout_s: float) -> None:
        self._accounts = AccountServiceStub(channel)
        self._ledger = LedgerServiceStub(channel)
        self._prices = PriceServiceStub(channel)
        self._timeout_s = timeout_s

    async def resolve_key(self, key_hash: bytes) -> tuple[KeyRecord | Refusal, int | None]:
        """See `ports.Billing`."""
        request = account_service_pb2.ResolveKeyRequest(key_hash=key_hash)
        try:
            response = await answer(self._accounts.ResolveKey(request, timeout=self._timeout_s))
        except MeshError as error:
            return refusal_of(error), None
        if response.key.revoked or response.key.disabled:
            return Refusal.UNUSABLE, response.generation
        return convert.key_record(response.key), response.generation

    async def watch_keys(self, after_generation: int) -> AsyncIterator[KeyEvent]:
        """See `ports.Billing`."""
        request = account_service_pb2.WatchKeysRequest(after_generation=after_generation)
        async for event in events(self._accounts.WatchKeys(request)):
            kind = event.WhichOneof("event")
            yield KeyEvent(
                event.generation,
                changed=event.changed.key_hash if kind == "changed" else None,
                reset=kind == "reset",
                account_id=event.account_changed.account_id,
            )

    async def hold(self, orders: Sequence[HoldOrder]) -> Sequence[Hold | HoldRefusal]:
        """See `ports.Billing`."""
        request = ledger_service_pb2.HoldRequest(orders=map(convert.hold_order, orders))
        response = await answer(self._ledger.Hold(request, timeout=self._timeout_s))
        return [convert.hold_result(result) for result in response.results]

    async def extend_hold(
        self, request_id: str, extension: int, price: Price, *, replaces: bool
    ) -> int:
        """See `ports.Billing`."""
        request = ledger_service_pb2.ExtendHoldRequest(
            request_id=request_id,
            extension=extension,
            price=convert.price_row(price),
            replaces=replaces,
        )
        response = await answer(self._ledger.ExtendHold(request, timeout=self._timeout_s))
        return response.hold.amount_micros

    async def release(self, releases: Sequence[tuple[str, str]]) -> None:
        """See `ports.Billing`."""
        request = ledger_service_pb2.ReleaseHoldsRequest(
            releases=[
                ledger_pb2.Release(
                    request_id=request_id,
                    reason=ledger_pb2.ReleaseReason.Value(f"RELEASE_REASON_{reason}"),
                )
                for request_id, reason in releases
            ]
        )
        await answer(self._ledger.ReleaseHolds(request, timeout=self._timeout_s))

    async def record_receipts(self, records: Sequence[ReceiptRecord]) -> None:
        """See `ports.Billing`."""
        request = ledger_service_pb2.RecordReceiptsRequest(
            records=[
                ledger_pb2.ReceiptRecord(
                    request_id=record.request_id,
                    countersign=_signed(record.countersign),
                    terminal=_signed(record.terminal) if record.terminal else None,
                    verdict=_signed(record.verdict) if record.verdict else None,
                    identity_key=record.identity_key,
                    free_account_id=record.free_account_id,
                )
                for record in records
            ]
        )
        await answer(self._ledger.RecordReceipts(request, timeout=self._timeout_s))

    async def machines(self, account_id: str) -> Sequence[bytes]:
        """See `ports.Billing`."""
        found: list[bytes] = []
        token = ""
        for _ in range(_MAX_LINK_PAGES):
            request = account_service_pb2.ListProviderLinksRequest(
                account_id=account_id, page=PageRequest(page_size=_LINK_PAGE, page_token=token)
            )
            response = await answer(
                self._accounts.ListProviderLinks(request, timeout=self._timeout_s)
            )
            found.extend(link.identity_key for link in response.links)
            token = response.next_page_token
            if not token:
                break
        return found

    async def balance(self, account_id: str) -> Balance:
        """See `ports.Billing`."""
        request = account_service_pb2.GetBalanceRequest(account_id=account_id)
        response = await answer(self._accounts.GetBalance(request, timeout=self._timeout_s))
        return Balance(response.balance_micros, response.withdrawable_micros, response.debt_micros)

    async def usage(
        self, account_id: str, page_size: int, page_token: str
    ) -> tuple[Sequence[UsageRow], str]:
        """See `ports.Billing`."""
        request = account_service_pb2.ListUsageRequest(
            account_id=account_id,
            page=PageRequest(page_size=page_size, page_token=page_token),
        )
        response = await answer(self._accounts.ListUsage(request, timeout=self._timeout_s))
        rows = [
            UsageRow(
                job_id=row.attempt_id,
                model=row.model,
                prompt_tokens=row.prompt_tokens,
                cached_tokens=row.cached_tokens,
                completion_tokens=row.completion_tokens,
                cost_micros=row.charge_micros,
                settled_at=convert.instant(row.settle_time),
            )
            for row in response.usage
        ]
        return rows, response.next_page_token

    async def prices(self) -> PriceList:
        """See `ports.Billing`."""
        response = await answer(
            self._prices.ListPrices(ListPricesRequest(), timeout=self._timeout_s)
        )
        return PriceList(
            tuple(convert.price(row) for row in response.prices), convert.price(response.fallback)
        )


class AttestationClient:
    """Keys and revocations over one channel."""

    def __init__(self, channel: grpc.aio.Channel, *, timeout_s: float) -> None:
        self._stub = AttestationServiceStub(channel)
        self._timeout_s = timeout_s

    async def verdict_keys(self) -> Sequence[PublicKey]:
        """See `ports.Attestation`."""
        request = attestation_service_pb2.ListVerdictKeysRequest()
        response = await answer(self._stub.ListVerdictKeys(request, timeout=self._timeout_s))
        return [_public_key(key) for key in response.keys]

    async def receipt_keys(self) -> Sequence[PublicKey]:
        """See `ports.Attestation`."""
        request = attestation_service_pb2.ListReceiptKeysRequest()
        response = await answer(self._stub.ListReceiptKeys(request, timeout=self._timeout_s))
        return [_public_key(key) for key in response.keys]

    async def register_receipt_key(self, key: PublicKey, gateway: str) -> None:
        """See `ports.Attestation`."""
        request = attestation_service_pb2.RegisterReceiptKeyRequest(
            key=attestation_pb2.SigningKey(
                key_id=key.key_id,
                public_key=key.public_key,
                create_time=convert.timestamp(key.created_at),
            ),
            gateway=gateway,
        )
        await answer(self._stub.RegisterReceiptKey(request, timeout=self._timeout_s))

    async def releases(self) -> Sequence[attestation_pb2.CodeRelease]:
        """Return the releases whose code is blessed."""
        request = attestation_service_pb2.ListCodeReleasesRequest()
        response = await answer(self._stub.ListCodeReleases(request, timeout=self._timeout_s))
        return response.releases

    async def record_posture(self, webhook: bytes) -> None:
        """Hand over what a device manager called back with."""
        request = attestation_service_pb2.RecordPostureRequest(webhook=webhook)
        await answer(self._stub.RecordPosture(request, timeout=self._timeout_s))

    async def public_evidence(
        self, provider_ids: Sequence[str]
    ) -> Sequence[attestation_service_pb2.ProviderEvidence]:
        """Read what everybody may see of sessions, at most 256."""
        request = attestation_service_pb2.ListEvidenceRequest(provider_ids=provider_ids)
        response = await answer(self._stub.ListEvidence(request, timeout=self._timeout_s))
        return response.providers

    async def watch_revocations(
        self, after_generation: int
    ) -> AsyncIterator[tuple[int, SignedBytes | None]]:
        """See `ports.Attestation`."""
        request = attestation_service_pb2.WatchRevocationsRequest(after_generation=after_generation)
        async for event in events(self._stub.WatchRevocations(request)):
            revoked = event.WhichOneof("event") == "revocation"
            yield event.generation, convert.signed(event.revocation) if revoked else None


class RegistryClient:
    """The catalog over one channel."""

    def __init__(self, channel: grpc.aio.Channel, *, timeout_s: float) -> None:
        self._stub = RegistryServiceStub(channel)
        self._timeout_s = timeout_s

    async def manifest(self, build: str, version: str) -> SignedManifest:
        """See `install.ManifestReader`."""
        request = GetManifestRequest(build=build, version=version)
        found = await answer(self._stub.GetManifest(request, timeout=self._timeout_s))
        return SignedManifest(found.manifest, found.signature, found.key_id)

    async def manifest_keys(self) -> Mapping[str, bytes]:
        """See `install.ManifestReader`."""
        call = self._stub.ListManifestKeys(ListManifestKeysRequest(), timeout=self._timeout_s)
        return {key.key_id: key.public_key for key in (await answer(call)).keys}

    async def rollouts(self) -> Sequence[Rollout]:
        """Return the newest rollouts."""
        request = ListRolloutsRequest(page=PageRequest(page_size=_ROLLOUTS))
        call = self._stub.ListRollouts(request, timeout=self._timeout_s)
        return (await answer(call)).rollouts

    async def rollout(self, rollout_id: str) -> Rollout:
        """Return one.

        Raises:
            NotFoundError: there is none of this id.
        """
        request = GetRolloutRequest(rollout_id=rollout_id)
        return (await answer(self._stub.GetRollout(request, timeout=self._timeout_s))).rollout

    async def confirm_catalog(
        self, session: str, replica: str, generation: int, *, leaving: bool = False
    ) -> None:
        """Tell by which catalog a worker goes, or that it ends."""
        request = ConfirmCatalogRequest(
            session=session,
            room="gateway",
            replica=replica,
            generation=generation,
            leaving=leaving,
        )
        await answer(self._stub.ConfirmCatalog(request, timeout=self._timeout_s))

    async def watch_catalog(self, after_generation: int) -> AsyncIterator[Catalog | None]:
        """Yield each snapshot, and None as a sign of life."""
        call = self._stub.WatchCatalog(WatchCatalogRequest(after_generation=after_generation))
        async for event in events(call):
            yield event.snapshot if event.WhichOneof("event") == "snapshot" else None


class FleetClient:
    """Reads over the live fleet, from the router."""

    def __init__(self, channel: grpc.aio.Channel, *, timeout_s: float) -> None:
        self._stub = FleetServiceStub(channel)
        self._timeout_s = timeout_s

    async def providers(self) -> Sequence[fleet_pb2.Provider]:
        """Return every provider that serves the public."""
        return await self._list(public_only=True)

    async def everybody(self) -> Sequence[fleet_pb2.Provider]:
        """Return every provider, also those that serve only their owners."""
        return await self._list(public_only=False)

    async def explain(self, identity_key: bytes) -> Sequence[fleet_pb2.Explanation]:
        """Return for each build of a machine why requests for it come or do not.

        Raises:
            NotFoundError: it is not connected to this replica.
        """
        request = fleet_service_pb2.ExplainProviderRequest(provider=to_base64(identity_key))
        response = await answer(self._stub.ExplainProvider(request, timeout=self._timeout_s))
        return response.explanations

    async def _list(self, *, public_only: bool) -> Sequence[fleet_pb2.Provider]:
        found: list[fleet_pb2.Provider] = []
        token = ""
        for _ in range(_MAX_FLEET_PAGES):
            request = fleet_service_pb2.ListProvidersRequest(
                page=PageRequest(page_size=_FLEET_PAGE, page_token=token), public_only=public_only
            )
            response = await answer(self._stub.ListProviders(request, timeout=self._timeout_s))
            found.extend(response.providers)
            token = response.next_page_token
            if not token:
                break
        return found

    async def capacity(self) -> dict[str, fleet_pb2.BuildCapacity]:
        """Return live capacity by build."""
        request = fleet_service_pb2.ListBuildCapacityRequest()
        response = await answer(self._stub.ListBuildCapacity(request, timeout=self._timeout_s))
        return {row.build: row for row in response.builds}


def _signed(signed: SignedBytes) -> SignedDocument:
    return SignedDocument(
        document=signed.document, signature=signed.signature, key_id=signed.key_id
    )


def _public_key(key: attestation_pb2.SigningKey) -> PublicKey:
    return PublicKey(
        key.key_id,
        key.public_key,
        convert.instant(key.create_time),
        convert.instant(key.retire_time) if key.HasField("retire_time") else None,
    )
