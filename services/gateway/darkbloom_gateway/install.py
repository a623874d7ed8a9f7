"""What providers install: versions of builds, their manifests, and the keys that sign these."""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, final

from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import MeshError, NotFoundError

from darkbloom_gateway.cached import Cached
from darkbloom_gateway.errors import ApiError, model_not_found, unavailable

MAX_KEPT_BYTES = 8 << 20
"""Manifests that a worker keeps; only their signatures may change, so room ends one."""
FRESH_S = 300.0
"""How long a manifest's signature counts as the newest: a key may sign later, or change."""
_KEYS_S = 60.0
_STALE_S = 600.0
_AWAY = 503


@dataclass(frozen=True, slots=True)
class InstallVersion:
    """One version that routing accepts."""

    version: str
    weight_hash: str
    identity_hash: str
    size_bytes: int
    file_count: int
    sources: tuple[str, ...]
    """Where its files are, best first."""


@dataclass(frozen=True, slots=True)
class Install:
    """What a machine must know before it fetches a build."""

    family: str
    architecture: str
    min_ram_gb: int
    required_provider_capabilities: tuple[str, ...]
    status: str
    active_version: str
    versions: tuple[InstallVersion, ...]
    """Active and retained ones, oldest first."""

    def version(self, name: str = "") -> InstallVersion | None:
        """Return a version, the active one when none is named."""
        wanted = name or self.active_version
        return next((one for one in self.versions if one.version == wanted), None)


@dataclass(frozen=True, slots=True)
class SignedManifest:
    """A manifest exactly as registered, and who signed it; unsigned where nobody did."""

    document: bytes
    signature: bytes
    key_id: str


class ManifestReader(Protocol):
    """The registry, as far as manifests go."""

    async def manifest(self, build: str, version: str) -> SignedManifest:
        """Read one; NotFoundError where there is none."""
        ...

    async def manifest_keys(self) -> Mapping[str, bytes]:
        """Read the public keys by id."""
        ...


@final
class Manifests:
    """Manifests of the catalog, kept, and read one at a time: strangers may ask for them.

    Args:
        reader: the registry.
        clock: time.
    """

    def __init__(self, reader: ManifestReader, clock: Clock) -> None:
        self.keys = Cached(reader.manifest_keys, clock=clock, fresh_s=_KEYS_S, stale_s=_STALE_S)
        """The keys that sign."""
        self._reader = reader
        self._clock = clock
        self._kept: OrderedDict[tuple[str, str], tuple[SignedManifest, float]] = OrderedDict()
        self._lock = asyncio.Lock()

    async def get(self, build: str, version: str) -> SignedManifest:
        """Return the manifest of a version that is in the catalog.

        Raises:
            ApiError: 404: the registry has none; 503: it does not answer.
        """
        key = build, version
        async with self._lock:
            found, due_at = self._kept.get(key, (None, 0.0))
            if found is None or self._clock.monotonic() >= due_at:
                found = await self._renewed(build, version, found)
                self._kept[key] = found, self._clock.monotonic() + FRESH_S
            self._kept.move_to_end(key)
            while sum(len(one.document) for one, _ in self._kept.values()) > MAX_KEPT_BYTES:
                self._kept.popitem(last=False)
        return found

    async def _renewed(
        self, build: str, version: str, old: SignedManifest | None
    ) -> SignedManifest:
        """Read again; while the registry is away the old one still tells the truth."""
        try:
            return await self._read(build, version)
        except ApiError as error:
            if old is None or error.http_status != _AWAY:
                raise
            return old

    async def _read(self, build: str, version: str) -> SignedManifest:
        try:
            return await self._reader.manifest(build, version)
        except NotFoundError:
            raise model_not_found() from None
        except MeshError:
            raise unavailable() from None
