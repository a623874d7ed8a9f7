"""What anybody can check: evidence, keys, receipts, the log, releases."""

from collections.abc import Mapping

from darkbloom_edge.dialects.schemas.parts import (
    ANY_OBJECT,
    BOOLEAN,
    COUNT,
    NUMBER,
    STRING,
    Schema,
    array,
    const,
    mapping,
    nullable,
    obj,
    ref,
    said,
    text,
    words,
)

from darkbloom_gateway.openapi.operation import (
    Access,
    Key,
    Limit,
    Operation,
    answer,
)
from darkbloom_gateway.openapi.people import TIME

_DIGEST = said(text(pattern="^[0-9a-f]{64}$"), "SHA-256, hex")
_SIGNED = obj({"document": STRING, "signature": STRING, "key_id": STRING})
_KEYS = array(
    obj(
        {
            "key_id": STRING,
            "algorithm": const("Ed25519"),
            "public_key": STRING,
            "created_at": TIME,
        },
        {"retired_at": TIME},
    )
)
_SEALING_KEY: Mapping[str, Schema] = {
    "kid": STRING,
    "public_key": STRING,
    "algorithm": const("x25519-nacl-box"),
}
SCHEMAS: Mapping[str, Schema] = {
    "SignedDocument": _SIGNED,
    "PublicMachine": obj(
        {
            "provider_id": STRING,
            "chip_name": STRING,
            "hardware_model": STRING,
            "memory_gb": NUMBER,
            "gpu_cores": COUNT,
            "models": array(STRING),
            "trust_level": STRING,
            "admission": STRING,
            "status": STRING,
            "secure_enclave": BOOLEAN,
            "sip_enabled": BOOLEAN,
            "secure_boot_enabled": BOOLEAN,
            "authenticated_root_enabled": BOOLEAN,
            "se_key_bound": BOOLEAN,
            "mdm_verified": BOOLEAN,
            "mda_verified": BOOLEAN,
            "acme_verified": BOOLEAN,
            "version": STRING,
            "backend": STRING,
            "identity_key": STRING,
            "encryption_key": STRING,
            "evidence": array(ANY_OBJECT),
            "backing": said(mapping(STRING), "who vouches for each plain field"),
        },
        {
            "system_volume_hash": STRING,
            "se_public_key": STRING,
            "last_challenge_at": TIME,
            "verdict": ref("SignedDocument"),
            "evidence_unavailable": BOOLEAN,
        },
    ),
    "GatewayStatement": obj(
        {
            "version": COUNT,
            "gateway": STRING,
            "environment": words("production", "development"),
            "issued_at": TIME,
            "encryption_keys": array(obj({"kid": STRING, "public_key": STRING})),
            "countersign_key": STRING,
            "software_version": STRING,
        },
        {
            "nonce": said(_DIGEST, "yours, 32 bytes in hex"),
            "build_commit": said(STRING, "the operator's word"),
            "image_digest": said(STRING, "the operator's word"),
        },
    ),
    "CodeRelease": obj(
        {
            "code_release": STRING,
            "version": STRING,
            "platform": STRING,
            "python_hash": STRING,
            "runtime_hash": STRING,
            "template_hashes": mapping(STRING),
            "development": BOOLEAN,
            "active": BOOLEAN,
            "created_at": TIME,
        },
        {
            "manifest": ref("SignedDocument"),
            "offer": obj({"percent": COUNT, "held": BOOLEAN}),
        },
    ),
}
TABLE: Mapping[Key, Operation] = {
    ("GET", "/v1/providers/attestation"): Operation(
        tag="Evidence",
        access=Access.NOBODY_ASKED,
        answers=answer(
            obj({"providers": array(ref("PublicMachine"))}, {"next_page_token": STRING})
        ),
    ),
    ("GET", "/v1/receipts/keys"): Operation(
        tag="Evidence",
        access=Access.NOBODY_ASKED,
        answers=answer(obj({"issuer": STRING, "receipt_keys": _KEYS, "verdict_keys": _KEYS})),
        name="receipt_keys",
    ),
    ("GET", "/v1/receipts/{name}"): Operation(
        tag="Evidence",
        access=Access.USER,
        answers=answer(
            obj(
                {
                    "request_id": STRING,
                    "recorded_at": TIME,
                    "expires_at": TIME,
                    "receipt": ref("Receipt"),
                    "anchor": nullable(ANY_OBJECT),
                }
            )
        ),
        refusals=(404,),
    ),
    ("GET", "/v1/encryption-key"): Operation(
        tag="Evidence",
        access=Access.NOBODY_ASKED,
        answers=answer(
            obj(
                {
                    **_SEALING_KEY,
                    "media_types": array(STRING),
                    "previous": array(obj(_SEALING_KEY, {"not_after": TIME})),
                },
                {"not_after": TIME},
            )
        ),
    ),
    ("GET", "/v1/gateway/evidence"): Operation(
        tag="Evidence",
        access=Access.NOBODY_ASKED,
        limit=Limit.STRANGER,
        answers=answer(
            obj(
                {
                    "statement": ref("GatewayStatement"),
                    "signed": ref("SignedDocument"),
                    "report_data": said(text(pattern="^[0-9a-f]{128}$"), "SHA-512, hex"),
                    "backing": words("none", "platform_quote"),
                    "quote": nullable(
                        obj({"kind": STRING, "report": STRING}, {"auxiliary": STRING})
                    ),
                    "not_proven": array(obj({"what": STRING, "why": STRING})),
                },
                {"why_none": words("no_device", "not_permitted", "device_failed", "not_in_time")},
            )
        ),
        asks_others=False,
    ),
    ("GET", "/v1/log/head"): Operation(
        tag="Evidence",
        access=Access.NOBODY_ASKED,
        answers=answer(
            obj(
                {
                    "tree_size": COUNT,
                    "root_hash": _DIGEST,
                    "time": TIME,
                    "head": ref("SignedDocument"),
                }
            )
        ),
        name="log_head",
    ),
    ("GET", "/v1/log/entries"): Operation(
        tag="Evidence",
        access=Access.NOBODY_ASKED,
        answers=answer(
            obj(
                {
                    "tree_size": COUNT,
                    "entries": array(obj({"index": COUNT, "leaf_hash": _DIGEST, "entry": STRING})),
                },
                {"next": COUNT},
            )
        ),
        name="log_entries",
    ),
    ("GET", "/v1/log/proof/inclusion"): Operation(
        tag="Evidence",
        access=Access.NOBODY_ASKED,
        answers=answer(
            obj(
                {
                    "index": COUNT,
                    "tree_size": COUNT,
                    "leaf_hash": _DIGEST,
                    "root_hash": _DIGEST,
                    "path": array(_DIGEST),
                }
            )
        ),
        refusals=(404,),
    ),
    ("GET", "/v1/log/proof/consistency"): Operation(
        tag="Evidence",
        access=Access.NOBODY_ASKED,
        answers=answer(
            obj(
                {
                    "first_size": COUNT,
                    "second_size": COUNT,
                    "first_root_hash": _DIGEST,
                    "second_root_hash": _DIGEST,
                    "path": array(_DIGEST),
                }
            )
        ),
        refusals=(404,),
    ),
    ("GET", "/v1/releases"): Operation(
        tag="Releases",
        access=Access.NOBODY_ASKED,
        answers=answer(obj({"releases": array(ref("CodeRelease"))})),
    ),
    ("GET", "/v1/releases/latest"): Operation(
        tag="Releases",
        access=Access.NOBODY_ASKED,
        answers=answer(ref("CodeRelease")),
        refusals=(404,),
        name="latest_release",
    ),
    ("GET", "/v1/runtime/manifest"): Operation(
        tag="Releases",
        access=Access.NOBODY_ASKED,
        answers=answer(
            obj(
                {"configured": BOOLEAN},
                {
                    "python_hashes": array(STRING),
                    "runtime_hashes": array(STRING),
                    "template_hashes": mapping(array(STRING)),
                },
            )
        ),
    ),
    ("GET", "/api/version"): Operation(
        tag="Releases",
        access=Access.NOBODY_ASKED,
        answers=answer(
            obj(
                {"version": STRING, "download_url": nullable(STRING)},
                {
                    "platform": STRING,
                    "code_release": STRING,
                    "bundle_hash": _DIGEST,
                    "bundle_size_bytes": COUNT,
                },
            )
        ),
        name="agent_version",
    ),
}
