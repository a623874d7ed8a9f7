"""The install catalog of providers: `GET /v1/models/catalog…` and `GET /v1/catalog/keys`."""

import math
from typing import Annotated, Any

from darkbloom_edge.manifest import object_prefix
from darkbloom_edge.memory import resident_bytes
from darkbloom_edge.signed_manifest import KEY_ID_HEADER, SIGNATURE_HEADER
from fastapi import APIRouter, Query, Response

from darkbloom_gateway.catalog import Build, Catalog
from darkbloom_gateway.errors import bad_request, model_not_found, unavailable
from darkbloom_gateway.install import Install, InstallVersion
from darkbloom_gateway.routes.evidence_shape import base64_text
from darkbloom_gateway.routes.plane import ControlPlane, Reply, reply

ROUTES = frozenset({"/v1/models/catalog", "/v1/catalog/keys"})
MODEL_TYPES = frozenset({"text"})
_GIB = 1 << 30
_A_MINUTE = {"cache-control": "public, max-age=60"}
Word = Annotated[str, Query(max_length=256)]


def make_router(plane: ControlPlane) -> APIRouter:
    """Return the routes."""
    router, models_url = APIRouter(), plane.models_url

    @router.get("/v1/models/catalog")
    async def catalog(
        type_: Annotated[str, Query(alias="type")] = "", include_aliases: Word = ""
    ) -> Reply:
        """Return every build that a machine may install."""
        if type_ and type_ not in MODEL_TYPES:
            raise bad_request("type must be text", param="type")
        shelf = _catalog(plane)
        content: dict[str, Any] = {
            "models": [
                _entry(build, build.install, models_url)
                for _, build in sorted(shelf.builds.items())
                if build.install is not None
            ]
        }
        if include_aliases in ("1", "true"):
            content["aliases"] = [
                {
                    "id": alias.alias_id,
                    "display_name": alias.display_name,
                    "desired_build": alias.desired_build,
                    "previous_build": alias.previous_build,
                }
                for alias in shelf.aliases()
            ]
        return reply(content, headers=_A_MINUTE)

    @router.get("/v1/models/catalog/manifest/{model_id:path}")
    async def manifest(model_id: str, version: Word = "") -> Reply:
        """Return a manifest exactly as registered; its signature is in two headers."""
        wanted = _install(plane, model_id).version(version)
        if wanted is None:
            raise model_not_found()
        found = await plane.manifests.get(model_id, wanted.version)
        headers = dict(_A_MINUTE)
        if found.signature:
            headers[SIGNATURE_HEADER] = base64_text(found.signature)
            headers[KEY_ID_HEADER] = found.key_id
        return Response(found.document, media_type="application/json", headers=headers)

    @router.get("/v1/models/catalog/{model_id:path}")
    async def entry(model_id: str) -> Reply:
        """Return one build, exactly as the list has it."""
        install = _install(plane, model_id)
        build = _catalog(plane).builds[model_id]
        return reply(_entry(build, install, models_url), headers=_A_MINUTE)

    @router.get("/v1/catalog/keys")
    async def keys() -> Reply:
        """Return the keys that sign manifests."""
        found = await plane.manifests.keys.get()
        rows = [{"key_id": name, "public_key": base64_text(key)} for name, key in found.items()]
        return reply({"issuer": plane.issuer, "manifest_keys": rows}, headers=_A_MINUTE)

    return router


def _catalog(plane: ControlPlane) -> Catalog:
    if plane.shelf.catalog is None:
        raise unavailable("the model catalog is not here yet")
    return plane.shelf.catalog


def _install(plane: ControlPlane, model_id: str) -> Install:
    build = _catalog(plane).builds.get(model_id)
    if build is None or build.install is None:
        raise model_not_found()
    return build.install


def _entry(build: Build, install: Install, models_url: str) -> dict[str, Any]:
    active = install.version()
    return {
        "id": build.build_id,
        "display_name": build.display_name,
        "description": build.description,
        "type": build.model_type,
        "family": install.family,
        "architecture": install.architecture,
        "quantization": build.quantization,
        "context_length": build.max_context_length,
        "max_output_length": build.max_output_length,
        "min_ram_gb": install.min_ram_gb,
        "est_resident_gb": _resident_gb(active.size_bytes) if active is not None else 0.0,
        "capabilities": list(build.capabilities),
        "required_provider_capabilities": list(install.required_provider_capabilities),
        "status": install.status,
        "hugging_face_id": build.hugging_face_id,
        "version": install.active_version,
        **(_version(build.build_id, active, models_url) if active is not None else {}),
        "versions": [
            {"version": one.version, **_version(build.build_id, one, models_url)}
            for one in install.versions
        ],
    }


def _resident_gb(size_bytes: int) -> float:
    """Return what the files occupy once loaded, in GiB, by the rule that machines load by."""
    return math.ceil(resident_bytes(size_bytes) / _GIB * 10) / 10


def _version(build_id: str, one: InstallVersion, models_url: str) -> dict[str, Any]:
    prefix = object_prefix(build_id, one.version)
    own = [f"{models_url.rstrip('/')}/{prefix}"] if models_url else []
    return {
        "r2_prefix": prefix,
        "aggregate_sha256": one.weight_hash,
        "identity_sha256": one.identity_hash,
        "size_bytes": one.size_bytes,
        "file_count": one.file_count,
        "sources": [*one.sources, *own],
    }
