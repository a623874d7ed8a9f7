"""The install catalog, as the gateway publishes it: what there is, and signed manifests."""

from collections.abc import Mapping
from typing import Any, Final, Self, TypeVar
from urllib.parse import quote

import httpx
import msgspec
from darkbloom_edge.errors import MalformedError
from darkbloom_edge.manifest import MAX_DOCUMENT_BYTES, valid_model_id, valid_version
from darkbloom_edge.signatures import ED25519_BYTES, ed25519_key_id, from_base64
from darkbloom_edge.signed_manifest import KEY_ID_HEADER, SIGNATURE_HEADER

from darkbloom_provider.errors import ProviderError

TIMEOUT_S: Final = 20.0
MAX_CATALOG_BYTES: Final = 16 << 20
MAX_KEYS: Final = 16
_OK, _NOT_FOUND = 200, 404


T = TypeVar("T")


class CatalogError(ProviderError):
    """The gateway's catalog cannot be had, or is not understood."""


class UnknownModelError(CatalogError):
    """The catalog has no such build or version."""


class CatalogVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One version that the network accepts."""

    version: str
    aggregate_sha256: str
    identity_sha256: str
    size_bytes: int
    file_count: int = 0
    sources: tuple[str, ...] = ()


class CatalogEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One build that may be installed."""

    id: str
    display_name: str = ""
    description: str = ""
    type: str = "text"
    quantization: str = ""
    context_length: int = 0
    min_ram_gb: int = 0
    required_provider_capabilities: tuple[str, ...] = ()
    status: str = ""
    version: str = ""
    """The active one."""
    versions: tuple[CatalogVersion, ...] = ()

    def get(self, version: str = "") -> CatalogVersion | None:
        """Return a version, the active one when none is named."""
        wanted = version or self.version
        return next((one for one in self.versions if one.version == wanted), None)


class _Catalog(msgspec.Struct, frozen=True):
    models: tuple[CatalogEntry, ...]


class SignedBytes(msgspec.Struct, frozen=True, kw_only=True):
    """A manifest as it came."""

    document: bytes
    signature: bytes
    key_id: str


class CatalogClient:
    """The gateway's routes for installing; use it as a context.

    Args:
        gateway: its base URL, without `/v1`.
    """

    def __init__(self, gateway: str) -> None:
        self._http = httpx.AsyncClient(base_url=gateway.rstrip("/"), timeout=TIMEOUT_S)

    async def __aenter__(self) -> Self:
        """Return the client itself."""
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def models(self, type_: str = "") -> tuple[CatalogEntry, ...]:
        """Return every build of the catalog.

        Raises:
            CatalogError: The gateway refuses or does not answer.
        """
        query = f"?type={quote(type_, safe='')}" if type_ else ""
        _, data = await self._get(f"/v1/models/catalog{query}", MAX_CATALOG_BYTES)
        return tuple(entry for entry in _decode(data, _Catalog).models if _sound(entry))

    async def model(self, model_id: str) -> CatalogEntry:
        """Return one build.

        Raises:
            UnknownModelError: There is none of this name.
            CatalogError: The gateway refuses or does not answer.
        """
        path = f"/v1/models/catalog/{quote(model_id)}"
        _, data = await self._get(path, MAX_CATALOG_BYTES)
        entry = _decode(data, CatalogEntry)
        if entry.id != model_id or not _sound(entry):
            raise _strange()
        return entry

    async def manifest(self, model_id: str, version: str) -> SignedBytes:
        """Return a manifest and its signature, which nobody has checked yet.

        Raises:
            UnknownModelError: There is no such version.
            CatalogError: The gateway refuses or does not answer, or the manifest is not signed.
        """
        path = f"/v1/models/catalog/manifest/{quote(model_id)}?version={quote(version, safe='')}"
        headers, data = await self._get(path, MAX_DOCUMENT_BYTES)
        try:
            signature = from_base64(headers.get(SIGNATURE_HEADER, ""))
        except MalformedError:
            raise _strange() from None
        if not signature:
            raise CatalogError(
                "the network does not sign its manifests, so nothing is downloaded",
                "ask the operator to set DARKBLOOM_REGISTRY_MANIFEST_KEY_FILE",
            )
        return SignedBytes(
            document=data, signature=signature, key_id=headers.get(KEY_ID_HEADER, "")
        )

    async def keys(self) -> dict[str, bytes]:
        """Return the keys that sign manifests, by id.

        Raises:
            CatalogError: The gateway refuses or does not answer.
        """
        _, data = await self._get("/v1/catalog/keys", 1 << 16)
        rows = _decode(data, dict[str, Any]).get("manifest_keys")
        if not isinstance(rows, list) or len(rows) > MAX_KEYS:
            raise _strange()
        try:
            keys = [from_base64(str(row["public_key"])) for row in rows]
        except (MalformedError, TypeError, KeyError):
            raise _strange() from None
        if any(len(key) != ED25519_BYTES for key in keys):
            raise _strange()
        return {ed25519_key_id(key): key for key in keys}

    async def _get(self, path: str, limit: int) -> tuple[Mapping[str, str], bytes]:
        try:
            async with self._http.stream("GET", path) as response:
                data = bytearray()
                async for block in response.aiter_bytes():
                    data += block
                    if len(data) > limit:
                        raise _strange()
        except httpx.HTTPError as error:
            raise CatalogError(
                f"the gateway does not answer ({type(error).__name__})",
                "check the network and DARKBLOOM_PROVIDER_GATEWAY",
            ) from None
        if response.status_code == _NOT_FOUND:
            raise UnknownModelError(
                "the catalog has no such model", "`darkbloom models catalog` lists what there is"
            )
        if response.status_code != _OK:
            raise CatalogError(f"the gateway refused ({response.status_code})", "try again later")
        return response.headers, bytes(data)


def _decode(data: bytes, shape: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=shape)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise _strange() from None


def _sound(entry: CatalogEntry) -> bool:
    return valid_model_id(entry.id) and all(valid_version(one.version) for one in entry.versions)


def _strange() -> CatalogError:
    return CatalogError("the gateway's catalog is not understood", "update darkbloom")
