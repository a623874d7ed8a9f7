"""Billing, attestation and registry as a gateway sees them: they record, and fail when told to."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import grpc
from darkbloom.attestation.v1.attestation_pb2 import CodeRelease, SigningKey
from darkbloom.attestation.v1.attestation_service_pb2 import (
    ListCodeReleasesResponse,
    ListEvidenceResponse,
    ListReceiptKeysResponse,
    ListVerdictKeysResponse,
    ProviderEvidence,
    RecordPostureResponse,
    RegisterReceiptKeyResponse,
    RevocationsSynced,
    WatchRevocationsResponse,
)
from darkbloom.attestation.v1.attestation_service_pb2_grpc import (
    AttestationServiceServicer,
    add_AttestationServiceServicer_to_server,
)
from darkbloom.billing.v1.account_pb2 import ApiKey, ProviderLink
from darkbloom.billing.v1.account_service_pb2 import (
    GetBalanceResponse,
    KeyChanged,
    KeysReset,
    ListProviderLinksResponse,
    ListUsageResponse,
    ResolveKeyResponse,
    WatchKeysResponse,
)
from darkbloom.billing.v1.account_service_pb2_grpc import (
    AccountServiceServicer,
    add_AccountServiceServicer_to_server,
)
from darkbloom.billing.v1.identity_service_pb2_grpc import add_IdentityServiceServicer_to_server
from darkbloom.billing.v1.ledger_pb2 import Hold, HoldResult, Usage
from darkbloom.billing.v1.ledger_service_pb2 import (
    ExtendHoldResponse,
    HoldResponse,
    RecordReceiptsResponse,
    ReleaseHoldsResponse,
)
from darkbloom.billing.v1.ledger_service_pb2_grpc import (
    LedgerServiceServicer,
    add_LedgerServiceServicer_to_server,
)
from darkbloom.billing.v1.price_service_pb2 import (
    DeletePriceRequest,
    DeletePriceResponse,
    ListOwnPricesResponse,
    ListPricesResponse,
    SetPriceRequest,
    SetPriceResponse,
)
from darkbloom.billing.v1.price_service_pb2_grpc import (
    PriceServiceServicer,
    add_PriceServiceServicer_to_server,
)
from darkbloom.billing.v1.report_service_pb2_grpc import add_ReportServiceServicer_to_server
from darkbloom.common.v1.error_reason_pb2 import ErrorReason
from darkbloom.common.v1.price_pb2 import PriceRow, SignedDocument
from darkbloom.registry.v1 import catalog_pb2, registry_service_pb2, rollout_pb2
from darkbloom.registry.v1.catalog_pb2 import Alias, Build, Catalog, MarketplaceAlias
from darkbloom.registry.v1.registry_service_pb2 import (
    GetManifestResponse,
    ListManifestKeysResponse,
    ManifestKey,
    WatchCatalogResponse,
)
from darkbloom.registry.v1.registry_service_pb2_grpc import (
    RegistryServiceServicer,
    add_RegistryServiceServicer_to_server,
)
from darkbloom_edge.documents import decode_document
from darkbloom_edge.ids import new_id
from darkbloom_edge.receipt import Countersign
from darkbloom_edge.revocation import Revocation, sign_revocation
from darkbloom_edge.signatures import Ed25519Signer
from darkbloom_mesh.errors import (
    ForbiddenError,
    InvalidArgumentError,
    MeshError,
    NotFoundError,
    PreconditionError,
    StoreUnavailableError,
    UnauthenticatedError,
)
from darkbloom_mesh.testing import serve_ephemeral

from tests.fakes.identity import FakeIdentity
from tests.fakes.reports import FakeReports
from tests.fakes.router import WEIGHTS

BUILD = "dev/tiny"
ALIAS = "tiny"
API_KEY = "sk-db-" + "a" * 64
PRICE = PriceRow(
    price_id="p1",
    build=BUILD,
    input_micros=50_000,
    output_micros=200_000,
    cache_read_micros=25_000,
    minimum_charge_micros=100,
)


@dataclass
class FakeBilling(AccountServiceServicer, LedgerServiceServicer, PriceServiceServicer):
    keys: dict[bytes, ApiKey] = field(default_factory=dict)
    refusal: HoldResult | None = None
    closing: bool = False
    """Every account is being deleted."""
    store_down: bool = False
    reads_down: bool = False
    """Balances and prices cannot be read; holds can be placed."""
    debt_micros: int = 0
    extension_refused: bool = False
    holds: list[str] = field(default_factory=list)
    extensions: list[str] = field(default_factory=list)
    raises: list[tuple[int, str, bool]] = field(default_factory=list)
    """(extension, price id, whether it replaces) of those that were accepted."""
    unheard: set[int] = field(default_factory=set)
    """Extensions of which the first answer is lost."""
    releases: list[str] = field(default_factory=list)
    receipts: list[str] = field(default_factory=list)
    records: list[Countersign] = field(default_factory=list)
    free: list[str] = field(default_factory=list)
    """Whose the receipts are that nobody paid for."""
    lookups: int = 0
    machines: dict[str, list[bytes]] = field(default_factory=dict)
    """Identity keys by account."""
    link_reads: int = 0
    generation: int = 1
    watchers: list[asyncio.Queue[WatchKeysResponse]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    identity: FakeIdentity = field(default_factory=FakeIdentity)
    reports: FakeReports = field(default_factory=FakeReports)
    price_refusal: MeshError | None = None
    prices_set: list[SetPriceRequest] = field(default_factory=list)
    prices_deleted: list[DeletePriceRequest] = field(default_factory=list)

    def add_key(self, secret: str, **changes: object) -> bytes:
        key_hash = hashlib.sha256(secret.encode()).digest()
        record = ApiKey(key_id=f"key_{len(self.keys)}", account_id="acct_test", **changes)
        self.keys[key_hash] = record
        return key_hash

    def revoke(self, key_hash: bytes) -> None:
        self.keys[key_hash].revoked = True
        self.generation += 1
        event = WatchKeysResponse(generation=self.generation, changed=KeyChanged(key_hash=key_hash))
        for watcher in self.watchers:
            watcher.put_nowait(event)

    async def until(self, check: object, seconds: float = 30.0) -> None:
        async with asyncio.timeout(seconds):
            while not check():  # type: ignore[operator]
                self.changed.clear()
                await self.changed.wait()

    async def ResolveKey(self, request, context):
        self._check_store()
        self.lookups += 1
        if self.closing:
            raise ForbiddenError(
                "closing", reason=ErrorReason.ERROR_REASON_ACCOUNT_PENDING_DELETION
            )
        key = self.keys.get(request.key_hash)
        if key is None:
            raise UnauthenticatedError("no such key", reason=ErrorReason.ERROR_REASON_KEY_UNKNOWN)
        if key.revoked:
            raise UnauthenticatedError("revoked", reason=ErrorReason.ERROR_REASON_KEY_REVOKED)
        return ResolveKeyResponse(key=key, generation=self.generation)

    async def WatchKeys(self, request, context):
        queue: asyncio.Queue[WatchKeysResponse] = asyncio.Queue()
        self.watchers.append(queue)
        yield WatchKeysResponse(generation=self.generation, reset=KeysReset())
        while True:
            yield await queue.get()

    async def GetBalance(self, request, context):
        self._check_store()
        if self.reads_down:
            raise StoreUnavailableError("store does not answer")
        return GetBalanceResponse(
            balance_micros=1_234_567, withdrawable_micros=5, debt_micros=self.debt_micros
        )

    async def ListProviderLinks(self, request, context):
        self._check_store()
        self.link_reads += 1
        keys = self.machines.get(request.account_id, [])
        return ListProviderLinksResponse(links=[ProviderLink(identity_key=key) for key in keys])

    async def ListUsage(self, request, context):
        row = Usage(request_id="req_1", attempt_id="att_1", model=ALIAS, charge_micros=100)
        return ListUsageResponse(usage=[row], next_page_token=f"after-{request.page.page_size}")

    async def Hold(self, request, context):
        self._check_store()
        results = []
        for order in request.orders:
            self.holds.append(order.request_id)
            if self.refusal is not None:
                result = HoldResult()
                result.CopyFrom(self.refusal)
                result.request_id = order.request_id
                results.append(result)
                continue
            hold = Hold(request_id=order.request_id, amount_micros=1000, price=PRICE)
            results.append(HoldResult(request_id=order.request_id, hold=hold))
        self.changed.set()
        return HoldResponse(results=results)

    async def ExtendHold(self, request, context):
        if self.extension_refused:
            raise PreconditionError("short", reason=ErrorReason.ERROR_REASON_INSUFFICIENT_FUNDS)
        if request.extension in self.unheard:
            self.unheard.remove(request.extension)
            raise StoreUnavailableError("no answer")
        self.extensions.append(request.request_id)
        self.raises.append((request.extension, request.price.price_id, request.replaces))
        hold = Hold(request_id=request.request_id, amount_micros=4500)
        return ExtendHoldResponse(hold=hold)

    async def ReleaseHolds(self, request, context):
        self.releases.extend(release.request_id for release in request.releases)
        self.changed.set()
        return ReleaseHoldsResponse()

    async def RecordReceipts(self, request, context):
        for record in request.records:
            said = decode_document(record.countersign.document, Countersign)
            self.records.append(said)
            if record.free_account_id:
                self.free.append(record.free_account_id)
            if said.outcome == "completed":
                self.receipts.append(record.request_id)
        self.changed.set()
        return RecordReceiptsResponse(recorded=len(request.records))

    async def ListPrices(self, request, context):
        return ListPricesResponse(prices=[PRICE], fallback=PRICE)

    async def ListOwnPrices(self, request, context):
        return ListOwnPricesResponse(prices=[PRICE])

    async def SetPrice(self, request, context):
        if request.input_micros > 4 * PRICE.input_micros:
            raise InvalidArgumentError(
                "too high",
                "input_micros",
                reason=ErrorReason.ERROR_REASON_PRICE_TOO_HIGH,
                metadata={"darkbloom-limit-micros": str(4 * PRICE.input_micros)},
            )
        if self.price_refusal is not None:
            raise self.price_refusal
        self.prices_set.append(request)
        row = PriceRow(
            price_id="p9",
            build=request.build,
            input_micros=request.input_micros,
            output_micros=request.output_micros,
            cache_read_micros=request.input_micros // 2,
        )
        return SetPriceResponse(price=row)

    async def DeletePrice(self, request, context):
        if self.prices_deleted:
            raise NotFoundError("there is no own price of this build")
        self.prices_deleted.append(request)
        return DeletePriceResponse()

    def _check_store(self) -> None:
        if self.store_down:
            raise StoreUnavailableError("store does not answer")

    async def RenewHolds(self, request, context):
        raise NotImplementedError

    SettleHolds = CreateAccount = CreateKey = RevokeKey = ListEarnings = RenewHolds
    LinkProvider = GetProviderLink = Grant = RenewHolds


class FakeAttestation(AttestationServiceServicer):
    def __init__(self) -> None:
        self.signer = Ed25519Signer.generate()
        self.receipt_keys: dict[str, SigningKey] = {}
        self.watchers: list[asyncio.Queue[WatchRevocationsResponse]] = []
        self.generation = 1
        self.down = False
        self.releases: list[CodeRelease] = []
        self.evidence: dict[str, ProviderEvidence] = {}
        self.evidence_asked: list[list[str]] = []
        self.webhooks: list[bytes] = []

    def revoke(self, *, identity_key: str) -> None:
        revocation = Revocation(
            revocation_id=new_id("rev"),
            identity_key=identity_key,
            reason="test",
            issued_at="2026-01-01T00:00:00Z",
        )
        document, signature = sign_revocation(revocation, self.signer)
        self.generation += 1
        event = WatchRevocationsResponse(
            generation=self.generation,
            revocation=SignedDocument(
                document=document, signature=signature, key_id=self.signer.key_id
            ),
        )
        for watcher in self.watchers:
            watcher.put_nowait(event)

    async def ListVerdictKeys(self, request, context):
        if self.down:
            raise StoreUnavailableError("store does not answer")
        key = SigningKey(key_id=self.signer.key_id, public_key=self.signer.public)
        return ListVerdictKeysResponse(keys=[key])

    async def RegisterReceiptKey(self, request, context):
        self.receipt_keys[request.key.key_id] = request.key
        return RegisterReceiptKeyResponse()

    async def ListReceiptKeys(self, request, context):
        return ListReceiptKeysResponse(keys=self.receipt_keys.values())

    async def ListCodeReleases(self, request, context):
        if self.down:
            raise StoreUnavailableError("store does not answer")
        return ListCodeReleasesResponse(releases=self.releases)

    async def RecordPosture(self, request, context):
        self.webhooks.append(request.webhook)
        return RecordPostureResponse(recorded=False, finding="command_unknown")

    async def ListEvidence(self, request, context):
        if self.down:
            raise StoreUnavailableError("store does not answer")
        self.evidence_asked.append(list(request.provider_ids))
        known = [name for name in request.provider_ids if name in self.evidence]
        return ListEvidenceResponse(providers=[self.evidence[name] for name in known])

    async def WatchRevocations(self, request, context):
        queue: asyncio.Queue[WatchRevocationsResponse] = asyncio.Queue()
        self.watchers.append(queue)
        yield WatchRevocationsResponse(generation=self.generation, synced=RevocationsSynced())
        while True:
            yield await queue.get()

    async def EvaluateRegistration(self, request, context):
        raise NotImplementedError

    CreateChallenge = VerifyChallenge = ReportChallengeTimeout = EvaluateRegistration
    ReportViolation = RegisterCodeRelease = EvaluateRegistration
    DeactivateCodeRelease = EvaluateRegistration


class FakeRegistry(RegistryServiceServicer):
    def __init__(self) -> None:
        self.away = False
        self.confirmed = registry_service_pb2.ConfirmCatalogRequest()
        self.rollouts: list[rollout_pb2.Rollout] = []
        self.reads: list[tuple[str, str]] = []
        self.manifest = b"{}\n"
        """Of every version."""
        self.catalog = Catalog(
            generation=1,
            builds=[
                Build(
                    id=BUILD,
                    display_name="Tiny",
                    max_context_length=4096,
                    max_output_length=512,
                    capabilities=["chat", "tools"],
                    marketplace_slug="org/tiny",
                    hugging_face_id="org/tiny-card",
                    weight_hash=WEIGHTS,
                    active_version="v2",
                    min_ram_gb=8,
                    versions=[
                        catalog_pb2.Version(
                            version=name,
                            state=state,
                            aggregate_sha256=WEIGHTS,
                            total_size_bytes=10,
                            sources=["https://mirror.example/tiny"],
                        )
                        for name, state in (
                            ("v1", catalog_pb2.VERSION_STATE_RETAINED),
                            ("v2", catalog_pb2.VERSION_STATE_ACTIVE),
                            ("v3", catalog_pb2.VERSION_STATE_READY),
                        )
                    ],
                ),
            ],
            aliases=[
                Alias(alias_id=ALIAS, desired_build=BUILD, active=True),
                Alias(alias_id="gone", desired_build="dev/absent", active=True),
            ],
            marketplace_aliases=[
                MarketplaceAlias(
                    alias_id="tiny-free",
                    source_model=ALIAS,
                    marketplace_slug="org/tiny:free",
                    active=True,
                ),
                MarketplaceAlias(alias_id="hidden", source_model=ALIAS),
            ],
        )

    async def WatchCatalog(self, request, context):
        yield WatchCatalogResponse(snapshot=self.catalog)
        await asyncio.Event().wait()

    async def GetBuild(self, request, context):
        raise NotImplementedError

    ListBuilds = RegisterBuild = PromoteVersion = UpsertAlias = GetBuild

    async def ConfirmCatalog(self, request, context):
        self.confirmed = request
        return registry_service_pb2.ConfirmCatalogResponse()

    async def ListRollouts(self, request, context):
        if self.away:
            raise StoreUnavailableError("away")
        return registry_service_pb2.ListRolloutsResponse(rollouts=self.rollouts)

    async def GetRollout(self, request, context):
        for rollout in self.rollouts:
            if rollout.rollout_id == request.rollout_id:
                return registry_service_pb2.GetRolloutResponse(rollout=rollout)
        raise NotFoundError("no such rollout")

    async def GetManifest(self, request, context):
        self.reads.append((request.build, request.version))
        if self.away:
            raise StoreUnavailableError("away")
        return GetManifestResponse(manifest=self.manifest, signature=b"s" * 64, key_id="k1")

    async def ListManifestKeys(self, request, context):
        return ListManifestKeysResponse(keys=[ManifestKey(key_id="k1", public_key=b"p" * 32)])


@asynccontextmanager
async def serving(
    billing: FakeBilling,
    attestation: FakeAttestation,
    registry: FakeRegistry,
    *more: Callable[[grpc.aio.Server], object],
) -> AsyncIterator[str]:
    """Serve all three on one port, and whatever else is registered."""
    async with serve_ephemeral(
        *more,
        partial(add_AccountServiceServicer_to_server, billing),
        partial(add_IdentityServiceServicer_to_server, billing.identity),
        partial(add_LedgerServiceServicer_to_server, billing),
        partial(add_PriceServiceServicer_to_server, billing),
        partial(add_ReportServiceServicer_to_server, billing.reports),
        partial(add_AttestationServiceServicer_to_server, attestation),
        partial(add_RegistryServiceServicer_to_server, registry),
    ) as target:
        yield target
