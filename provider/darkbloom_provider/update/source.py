"""What the network says is the newest release, believed only as far as its signature goes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
from darkbloom_edge.errors import MalformedError, SignatureRejected
from darkbloom_edge.release import MAX_MANIFEST_BYTES, Bundle, ReleaseManifest, open_manifest
from darkbloom_edge.signatures import from_base64
from darkbloom_edge.strict_json import parse_json_object

from darkbloom_provider.update.results import UpdateError, UpdateResult
from darkbloom_provider.update.versions import order

ANSWER_S: Final = 20.0
MAX_ANSWER_BYTES: Final = 4 * MAX_MANIFEST_BYTES
_MAX_KEYS_BYTES = 65_536
_OK, _NOT_FOUND = 200, 404


@dataclass(frozen=True, kw_only=True, slots=True)
class Release:
    """A release whose manifest is signed by a pinned key."""

    manifest: ReleaseManifest
    bundle: Bundle

    @property
    def version(self) -> str:
        """Its version."""
        return self.manifest.release_version


def read_keys(path: Path | None) -> Mapping[str, bytes]:
    """Return the pinned release keys by id.

    Raises:
        UpdateError: none is pinned, or the file holds no keys.
    """
    if path is None:
        raise UpdateError(
            UpdateResult.HASH_MISMATCH,
            "no release key is pinned, so no update can be believed",
            "set DARKBLOOM_PROVIDER_RELEASE_KEYS_FILE to the operator's public release keys",
        )
    try:
        with path.open("rb") as file:
            found = parse_json_object(file.read(_MAX_KEYS_BYTES), max_bytes=_MAX_KEYS_BYTES)
        keys = {name: from_base64(str(text)) for name, text in found.items()}
    except OSError as error:
        raise UpdateError(
            UpdateResult.HASH_MISMATCH, f"{path} cannot be read ({error.strerror})"
        ) from None
    except MalformedError:
        raise UpdateError(
            UpdateResult.HASH_MISMATCH, f"{path} is not a file of release keys"
        ) from None
    return keys


def fetch_latest(
    http: httpx.Client,
    platform: str,
    keys: Mapping[str, bytes],
    *,
    ring: str = "",
    plain: bool = False,
) -> Release | None:
    """Ask the gateway for the newest release that it offers us; None where there is none.

    Args:
        http: of the gateway's base URL.
        platform: such as `macos-arm64`.
        keys: the pinned release keys.
        ring: this machine's mark; without one only what is offered to all is heard of.
        plain: whether bundles may come without TLS (development).

    Raises:
        UpdateError: no answer, or one that no pinned key has signed.
    """
    fields = _ask(http, platform, ring)
    if fields is None:
        return None
    manifest = _open(fields, keys)
    bundle = manifest.bundle
    if manifest.platform != platform or order(manifest.release_version) is None:
        raise UpdateError(
            UpdateResult.HASH_MISMATCH, "the signed release is not one for this platform"
        )
    if bundle is None:
        return None
    if not plain and not bundle.url.startswith("https://"):
        raise UpdateError(UpdateResult.DOWNLOAD_FAILED, "the bundle's url is not https")
    return Release(manifest=manifest, bundle=bundle)


def _ask(http: httpx.Client, platform: str, ring: str) -> dict[str, Any] | None:
    wanted = {"platform": platform} | ({"ring": ring} if ring else {})
    try:
        with http.stream("GET", "/v1/releases/latest", params=wanted, timeout=ANSWER_S) as answer:
            if answer.status_code == _NOT_FOUND:
                return None
            if answer.status_code != _OK:
                raise UpdateError(
                    UpdateResult.DOWNLOAD_FAILED,
                    f"the gateway answered {answer.status_code}",
                    "try again later",
                )
            data = bytearray()
            for piece in answer.iter_bytes():
                data += piece
                if len(data) > MAX_ANSWER_BYTES:
                    raise UpdateError(UpdateResult.DOWNLOAD_FAILED, "the answer is too large")
        found = json.loads(data)
    except (httpx.HTTPError, ValueError, RecursionError) as error:
        raise UpdateError(
            UpdateResult.DOWNLOAD_FAILED,
            f"the gateway cannot be asked ({type(error).__name__})",
            "check the connection, then try again",
        ) from None
    return found if isinstance(found, dict) else {}


def _open(fields: dict[str, Any], keys: Mapping[str, bytes]) -> ReleaseManifest:
    signed = fields.get("manifest")
    try:
        if not isinstance(signed, dict):
            raise MalformedError("is missing", "manifest")  # noqa: TRY301 - one answer for all
        return open_manifest(
            from_base64(str(signed.get("document", ""))),
            from_base64(str(signed.get("signature", ""))),
            str(signed.get("key_id", "")),
            keys,
        )
    except (MalformedError, SignatureRejected):
        raise UpdateError(
            UpdateResult.HASH_MISMATCH,
            "the newest release is not signed by a release key that is pinned here",
            "if the operator has changed keys, get the new ones from where you got the old",
        ) from None
