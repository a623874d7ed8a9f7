"""What the gateway keeps up to date: keys, catalog, signing keys, revocations."""

import asyncio
from collections.abc import AsyncIterator, Callable

import structlog
from darkbloom.registry.v1.catalog_pb2 import Catalog as CatalogMessage
from darkbloom_edge.errors import SignatureRejected
from darkbloom_mesh.backoff import Backoff
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import MeshError
from google.protobuf.message import DecodeError

from darkbloom_gateway import convert
from darkbloom_gateway.auth import Authenticator
from darkbloom_gateway.clients import RegistryClient
from darkbloom_gateway.model import SignedBytes
from darkbloom_gateway.owners import Owners
from darkbloom_gateway.ports import Attestation, Billing, KeyEvent, PublicKey
from darkbloom_gateway.receipts import ReceiptPress
from darkbloom_gateway.stage import CatalogShelf
from darkbloom_gateway.store import SnapshotFile
from darkbloom_gateway.verdicts import VerdictDesk
from darkbloom_gateway.watching import keep_watching

REFRESH_S = 60.0
"""How often attestation's keys are read again."""
MIN_REFRESH_S = 1.0
"""How soon after one reading a verdict under an unknown key may cause another."""
MAX_UNREAD = 256
"""Revocations under unknown keys that are kept for another look."""
_log = structlog.get_logger()
MakeBackoff = Callable[[], Backoff]


class KeyNews:
    """Follows key changes, so that a revoked key ends at once in every gateway."""

    def __init__(
        self, billing: Billing, authenticator: Authenticator, owners: Owners, clock: Clock
    ) -> None:
        self._billing = billing
        self._authenticator = authenticator
        self._owners = owners
        self._clock = clock
        self._generation = 0

    async def run(self, make_backoff: MakeBackoff) -> None:
        """Follow until cancelled."""
        await keep_watching(
            "keys", self._connect, self._take, backoff=make_backoff(), clock=self._clock
        )

    def _connect(self) -> AsyncIterator[KeyEvent]:
        return self._billing.watch_keys(self._generation)

    def _take(self, event: KeyEvent) -> None:
        self._generation = event.generation
        self._authenticator.take(event)
        if event.reset or event.account_id:
            self._owners.forget(event.account_id)


class CatalogNews:
    """Follows the catalog and keeps the last good one, also on disk."""

    def __init__(
        self,
        registry: RegistryClient,
        shelf: CatalogShelf,
        clock: Clock,
        file: SnapshotFile | None,
    ) -> None:
        self._registry = registry
        self._shelf = shelf
        self._clock = clock
        self._file = file
        self._fresh: CatalogMessage | None = None
        self._changed = asyncio.Event()

    def restore(self) -> None:
        """Begin with what an earlier process has kept, if it is readable."""
        data = self._file.read() if self._file is not None else None
        if data is None:
            return
        try:
            self._shelf.catalog = convert.catalog(CatalogMessage.FromString(data))
        except DecodeError:
            _log.warning("kept_catalog_unreadable")

    async def run(self, make_backoff: MakeBackoff) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep(), name="catalog.keep")
            await keep_watching(
                "catalog", self._connect, self._take, backoff=make_backoff(), clock=self._clock
            )

    def _connect(self) -> AsyncIterator[CatalogMessage | None]:
        catalog = self._shelf.catalog
        return self._registry.watch_catalog(catalog.generation if catalog is not None else 0)

    def _take(self, snapshot: CatalogMessage | None) -> None:
        if snapshot is None:
            return
        kept = self._shelf.catalog
        if kept is not None and not snapshot.builds and snapshot.generation < kept.generation:
            _log.error("blank_catalog_refused", kept=kept.generation, sent=snapshot.generation)
            return
        self._shelf.catalog = convert.catalog(snapshot)
        self._fresh = snapshot
        self._changed.set()

    async def _keep(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._file is None or self._fresh is None:
                continue
            try:
                await asyncio.to_thread(self._file.write, self._fresh.SerializeToString())
            except OSError as error:
                _log.warning("catalog_not_kept", error_type=type(error).__name__)


class TrustNews:
    """Keeps attestation's keys and revocations, and has this worker's own key published.

    Args:
        attestation: the room.
        desk: told of keys and revocations.
        press: whose key is published.
        gateway: name to publish it under.
        clock: time.
        pins: the only keys to trust; None trusts what attestation publishes.
    """

    def __init__(
        self,
        attestation: Attestation,
        desk: VerdictDesk,
        press: ReceiptPress,
        *,
        gateway: str,
        clock: Clock,
        pins: dict[str, bytes] | None,
    ) -> None:
        self._attestation = attestation
        self._desk = desk
        self._press = press
        self._gateway = gateway
        self._clock = clock
        self._pins = pins
        self._generation = 0
        self._read_at = -MIN_REFRESH_S
        self._unread: list[SignedBytes] = []
        self._synced = False
        self.published = False
        """Whether attestation has this worker's key."""
        if pins is not None:
            desk.pin(pins)

    @property
    def ready(self) -> bool:
        """Whether offers can be checked, revocations included, and receipts will count."""
        return self.published and self._synced and bool(self._desk.keys)

    async def refresh(self) -> None:
        """Read the keys again, unless that was just done; keeps the old ones on failure."""
        now = self._clock.monotonic()
        if self._pins is not None or now - self._read_at < MIN_REFRESH_S:
            return
        self._read_at = now
        try:
            keys = await self._attestation.verdict_keys()
        except MeshError as error:
            _log.warning("verdict_keys_unread", error_type=type(error).__name__)
            return
        self._desk.pin({key.key_id: key.public_key for key in keys})
        unread, self._unread = self._unread, []
        for signed in unread:
            self._revoke(signed)

    async def run_keys(self, make_backoff: MakeBackoff) -> None:
        """Publish our key and read theirs, again and again, until cancelled."""
        backoff = make_backoff()
        while True:
            await self.refresh()
            await self._publish()
            if self.ready:
                backoff.reset()
                await self._clock.sleep(REFRESH_S)
            else:
                await self._clock.sleep(backoff.next_s())

    async def run_revocations(self, make_backoff: MakeBackoff) -> None:
        """Follow revocations until cancelled."""
        await keep_watching(
            "revocations", self._connect, self._take, backoff=make_backoff(), clock=self._clock
        )

    async def _publish(self) -> None:
        if self.published:
            return
        key = PublicKey(self._press.key_id, self._press.public_key, self._clock.now())
        try:
            await self._attestation.register_receipt_key(key, self._gateway)
        except MeshError as error:
            _log.warning("receipt_key_unpublished", error_type=type(error).__name__)
            return
        self.published = True

    def _connect(self) -> AsyncIterator[tuple[int, SignedBytes | None]]:
        return self._attestation.watch_revocations(self._generation)

    def _take(self, event: tuple[int, SignedBytes | None]) -> None:
        self._generation, signed = event
        if signed is not None:
            self._revoke(signed)
        else:
            # Attestation says so once everything that still matters was sent.
            self._synced = True

    def _revoke(self, signed: SignedBytes) -> None:
        try:
            self._desk.revoke(signed)
        except SignatureRejected as error:
            _log.error("revocation_unreadable", reason=error.reason.value)
            # Perhaps its key is newer than ours: looked at again after the next reading.
            if len(self._unread) < MAX_UNREAD:
                self._unread.append(signed)
