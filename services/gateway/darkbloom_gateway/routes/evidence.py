"""What a stranger can check: `GET /v1/providers/attestation` and `GET /v1/receipts/keys`."""

import base64
from collections.abc import Sequence
from typing import Any

from darkbloom.router.v1.fleet_pb2 import Provider
from fastapi import APIRouter

from darkbloom_gateway.ports import PublicKey
from darkbloom_gateway.routes.plane import ControlPlane, Reply, reply

_NO_STORE = {"cache-control": "no-store"}
_HARDWARE = "hardware"


def make_router(plane: ControlPlane) -> APIRouter:
    """Return the routes."""
    router = APIRouter()

    @router.get("/v1/providers/attestation")
    async def list_providers() -> Reply:
        """Return connected providers with the signed verdicts that speak for them."""
        found = await plane.providers.get()
        return reply({"providers": [_provider(row) for row in found]}, headers=_NO_STORE)

    @router.get("/v1/receipts/keys")
    async def list_keys() -> Reply:
        """Return the keys against which receipts and verdicts are checked."""
        return reply(
            {
                "issuer": plane.issuer,
                "receipt_keys": _keys(await plane.receipt_keys.get()),
                "verdict_keys": _keys(await plane.verdict_keys.get()),
            },
            headers=_NO_STORE,
        )

    return router


def _provider(row: Provider) -> dict[str, Any]:
    hardware, level = row.hardware, row.trust_level
    attested = level == _HARDWARE
    content = {
        "provider_id": row.provider_id,
        "chip_name": hardware.chip_name,
        "hardware_model": hardware.machine_model,
        "memory_gb": hardware.memory_gb,
        "gpu_cores": hardware.gpu_cores,
        "models": [model.id for model in row.models],
        "trust_level": level,
        "admission": row.admission,
        "status": row.status,
        "secure_enclave": attested,
        "sip_enabled": attested and row.privacy.sip_enabled,
        "se_public_key": _base64(row.identity_key) if attested else None,
        "mdm_verified": level == _HARDWARE,
        "mda_verified": False,
        "version": row.version,
        "backend": row.backend,
        "identity_key": _base64(row.identity_key),
        "encryption_key": _base64(row.encryption_key),
        "last_challenge_at": (
            row.last_challenge_time.ToJsonString() if row.HasField("last_challenge_time") else None
        ),
        "verdict": (
            {
                "document": _base64(row.verdict.document),
                "signature": _base64(row.verdict.signature),
                "key_id": row.verdict.key_id,
            }
            if row.HasField("verdict")
            else None
        ),
    }
    return {name: value for name, value in content.items() if value is not None}


def _keys(keys: Sequence[PublicKey]) -> list[dict[str, Any]]:
    return [
        {
            "key_id": key.key_id,
            "algorithm": "Ed25519",
            "public_key": _base64(key.public_key),
            "created_at": key.created_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            **(
                {"retired_at": key.retired_at.strftime("%Y-%m-%dT%H:%M:%SZ")}
                if key.retired_at is not None
                else {}
            ),
        }
        for key in keys
    ]


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
