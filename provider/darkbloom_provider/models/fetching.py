"""From a name to a version in the store: catalog, keys, manifest, places, download."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from darkbloom_edge.errors import MalformedError, SignatureRejected
from darkbloom_edge.manifest import Manifest
from darkbloom_edge.model_source import ModelSource
from darkbloom_edge.signed_manifest import open_manifest

from darkbloom_provider.models.catalog import (
    CatalogClient,
    CatalogEntry,
    CatalogVersion,
    UnknownModelError,
)
from darkbloom_provider.models.download import Downloader, Report
from darkbloom_provider.models.errors import ManifestError
from darkbloom_provider.models.pins import PinsError, pin, read_pins
from darkbloom_provider.models.sources.interface import SourceError
from darkbloom_provider.models.sources.opening import (
    SourceSettings,
    choose_places,
    open_source,
)
from darkbloom_provider.models.store import StoredModel

CLOSE_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Order:
    """A version that may be fetched: in the catalog, its manifest signed by a pinned key."""

    entry: CatalogEntry
    version: CatalogVersion
    manifest: Manifest
    document: bytes
    key_id: str
    """Who signed."""
    pinned_now: bool
    """Whether that key has been trusted from now on, because it was the first to be seen."""


@dataclass(frozen=True, kw_only=True)
class Fetcher:
    """Fetches from one network.

    Args:
        gateway: Base URL of the network's gateway.
        keys: Keys that the owner names; empty: those first seen at the gateway.
        pins_file: Where these are kept.
        settings: What the owner says about places.
    """

    gateway: str
    keys: dict[str, bytes]
    pins_file: Path
    settings: SourceSettings

    async def order(self, model_id: str, version: str = "") -> Order:
        """Look a version up and check its manifest; the active one when none is named.

        Raises:
            CatalogError: The catalog has it not, or cannot be had.
            PinsError: The manifest is signed by a key that is not pinned.
            ManifestError: The manifest is not that of the catalog.
        """
        async with CatalogClient(self.gateway) as catalog:
            entry = await catalog.model(model_id)
            wanted = entry.get(version)
            if wanted is None:
                raise UnknownModelError(f"the catalog has no version {version} of {model_id}")
            pinned = self.keys or await asyncio.to_thread(read_pins, self.pins_file, self.gateway)
            keys = pinned or await catalog.keys()
            signed = await catalog.manifest(model_id, wanted.version)
        try:
            manifest = open_manifest(signed.document, signed.signature, signed.key_id, keys)
        except SignatureRejected as error:
            raise PinsError(
                f"the manifest of {model_id} is not signed by a key that this machine trusts"
                f" ({error.reason.value})",
                "if the operator has announced a new key, remove the gateway's entry from"
                f" {self.pins_file}, or set DARKBLOOM_PROVIDER_MANIFEST_KEYS",
            ) from None
        except MalformedError as error:
            raise ManifestError(f"manifest is not valid, {error}") from None
        if not pinned:
            # Only a key that has signed something is kept: an empty answer pins nothing.
            await asyncio.to_thread(pin, self.pins_file, self.gateway, keys)
        # Signed, but for something else than what was asked: an older manifest, put in its place.
        if (manifest.model_id, manifest.version) != (model_id, wanted.version):
            raise ManifestError("manifest names another build or version")
        if (manifest.aggregate_sha256, manifest.identity_sha256) != (
            wanted.aggregate_sha256,
            wanted.identity_sha256,
        ):
            raise ManifestError("manifest and catalog name different hashes")
        return Order(
            entry=entry,
            version=wanted,
            manifest=manifest,
            document=signed.document,
            key_id=signed.key_id,
            pinned_now=not pinned,
        )

    async def fetch(
        self,
        order: Order,
        downloader: Downloader,
        report: Report,
        *,
        place: ModelSource | None = None,
    ) -> StoredModel:
        """Fetch what was ordered; `place` asks this one place only.

        Raises:
            ModelError: See `Downloader.fetch`.
        """
        manifest = order.manifest
        places = (
            [place]
            if place is not None
            else choose_places(
                manifest.model_id, manifest.version, order.version.sources, self.settings
            )
        )
        sources = [open_source(one, self.settings) for one in places]
        try:
            return await downloader.fetch(manifest, order.document, sources, report)
        except SourceError as error:
            if places:
                raise
            raise SourceError(
                f"neither the catalog nor DARKBLOOM_PROVIDER_MODEL_MIRRORS says where"
                f" {manifest.model_id} is"
            ) from error
        finally:
            async with asyncio.timeout(CLOSE_S):
                for source in sources:
                    await source.close()
