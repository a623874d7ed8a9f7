"""Which code is blessed: `GET /v1/releases`, `/v1/releases/latest` and `/v1/runtime/manifest`."""

import re
from collections.abc import Iterable
from typing import Annotated, Any

from darkbloom.attestation.v1.attestation_pb2 import CodeRelease
from darkbloom_edge.rings import STEPS, in_ring
from fastapi import APIRouter, Query

from darkbloom_gateway.errors import not_found
from darkbloom_gateway.routes import tables
from darkbloom_gateway.routes.evidence_shape import base64_text
from darkbloom_gateway.routes.plane import Reply, reply
from darkbloom_gateway.transparency import TransparencyClient

_BRIEFLY = {"cache-control": "public, max-age=60"}
_NUMBERS = re.compile(r"v?(\d{1,9})\.(\d{1,9})\.(\d{1,9})(-.+)?")
_ANY = "any"


def make_router(mesh: TransparencyClient) -> APIRouter:
    """Return the routes."""
    router = APIRouter()

    @router.get("/v1/releases")
    async def list_releases() -> Reply:
        """Return every release that is blessed now, with what its operator signed."""
        found = await mesh.releases.get()
        return reply({"releases": [_release(one) for one in found]}, headers=_BRIEFLY)

    @router.get("/v1/releases/latest")
    async def latest(
        platform: Annotated[str, Query(max_length=64)] = "macos-arm64",
        ring: Annotated[str, Query(max_length=64)] = "",
    ) -> Reply:
        """Return the highest version that is offered for a platform.

        New versions are offered to 1, 10 and 100 percent of the machines. `ring` is a machine's
        mark, 16 hex digits that it drew once; without one only what all are offered is named.
        """
        release = newest(await mesh.releases.get(), platform, ring)
        if release is None:
            raise not_found("there is no release for this platform")
        return reply(_release(release), headers=_BRIEFLY)

    @router.get("/v1/runtime/manifest")
    async def runtime_manifest() -> Reply:
        """Return the union of all hashes that are accepted."""
        found = await mesh.releases.get()
        if not found:
            return reply({"configured": False}, headers=_BRIEFLY)
        return reply(
            {
                "configured": True,
                "python_hashes": _union(one.python_hash for one in found),
                "runtime_hashes": _union(one.runtime_hash for one in found),
                "template_hashes": _templates(found),
            },
            headers=_BRIEFLY,
        )

    return router


def newest(found: Iterable[CodeRelease], platform: str, mark: str = "") -> CodeRelease | None:
    """Return the highest version that is offered for a platform; None where there is none."""
    fitting = [one for one in found if one.platform in (platform, _ANY) and _is_offered(one, mark)]
    return max(fitting, key=_age, default=None)


def for_all(release: CodeRelease) -> bool:
    """Whether all may have it; a server that knows no rings offers whatever it has blessed."""
    if not release.HasField("offer"):
        return True
    return not release.offer.held and release.offer.percent == STEPS[-1]


def _is_offered(release: CodeRelease, mark: str) -> bool:
    """Whether a machine may have it; a server that knows no rings offers all it has blessed."""
    if not release.HasField("offer"):
        return True
    offer = release.offer
    return not offer.held and in_ring(release.code_release, offer.percent, mark)


def _release(release: CodeRelease) -> dict[str, Any]:
    content: dict[str, Any] = {
        "code_release": release.code_release,
        "version": release.version,
        "platform": release.platform,
        "python_hash": release.python_hash,
        "runtime_hash": release.runtime_hash,
        "template_hashes": dict(release.template_hashes),
        "development": release.development,
        "active": release.active,
        "created_at": tables.instant(release.create_time),
    }
    if release.HasField("offer"):
        # Why it is held is the operator's own.
        content["offer"] = {"percent": release.offer.percent, "held": bool(release.offer.held)}
    if release.HasField("manifest"):
        content["manifest"] = {
            "document": base64_text(release.manifest.document),
            "signature": base64_text(release.manifest.signature),
            "key_id": release.manifest.key_id,
        }
    return content


def _age(release: CodeRelease) -> tuple[tuple[int, ...], bool, int]:
    """Order by version, pre-releases before their release, then by time."""
    numbers = _NUMBERS.fullmatch(release.version)
    if numbers is None:
        return (), False, release.create_time.seconds
    version = tuple(int(part) for part in numbers.groups()[:3])
    return version, numbers.group(4) is None, release.create_time.seconds


def _templates(found: Iterable[CodeRelease]) -> dict[str, list[str]]:
    accepted: dict[str, set[str]] = {}
    for release in found:
        for name, value in release.template_hashes.items():
            accepted.setdefault(name, set()).add(value)
    return {name: sorted(values) for name, values in sorted(accepted.items())}


def _union(values: Iterable[str]) -> list[str]:
    return sorted(set(values))
