"""`GET /api/version`: the newest agent, where it is to be had, and what it must hash to."""

from collections.abc import Sequence
from typing import Annotated, Any

from darkbloom.attestation.v1.attestation_pb2 import CodeRelease
from darkbloom_edge.errors import MalformedError
from darkbloom_edge.release import parse_manifest
from fastapi import APIRouter, Query

from darkbloom_gateway.routes.plane import ControlPlane, Reply, reply
from darkbloom_gateway.routes.releases import newest
from darkbloom_gateway.transparency import TransparencyClient

ROUTES = frozenset({"/api/version"})
_A_MINUTE = {"cache-control": "public, max-age=60"}


def make_router(plane: ControlPlane, mesh: TransparencyClient) -> APIRouter:
    """Return the route."""
    router = APIRouter()

    @router.get("/api/version")
    async def version(platform: Annotated[str, Query(max_length=64)] = "macos-arm64") -> Reply:
        """Return the newest release for a platform, or this mesh's own version without one."""
        found: Sequence[CodeRelease] = await mesh.releases.get()
        release = newest(found, platform)
        if release is None:
            content: dict[str, Any] = {"version": plane.version, "download_url": None}
            return reply(content, headers=_A_MINUTE)
        content = {
            "version": release.version,
            "platform": release.platform,
            "code_release": release.code_release,
            "download_url": None,
            **_bundle(release),
        }
        return reply(content, headers=_A_MINUTE)

    return router


def _bundle(release: CodeRelease) -> dict[str, Any]:
    """Return where the signed manifest says the archive is; nothing where it names none."""
    if not release.HasField("manifest"):
        return {}
    try:
        bundle = parse_manifest(release.manifest.document).bundle
    except MalformedError:
        return {}
    if bundle is None:
        return {}
    return {
        "download_url": bundle.url,
        "bundle_hash": bundle.sha256,
        "bundle_size_bytes": bundle.size_bytes,
    }
