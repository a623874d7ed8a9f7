"""Targets of signed documents: seeds are true ones, so that changes reach past the first check."""

import hashlib
import json
from datetime import UTC, datetime, timedelta

from darkbloom_edge.apple import AppleRoots
from darkbloom_edge.attestation import RegistrationBlob
from darkbloom_edge.bundle import parse_bundle
from darkbloom_edge.challenge import Challenge
from darkbloom_edge.device_statement import (
    DeviceStatement,
    build_statement,
    client_data_hash,
    serial_commitment,
    verify_statement,
)
from darkbloom_edge.documents import rfc3339
from darkbloom_edge.log import LogHead, encode_entry, sign_head
from darkbloom_edge.log import ReceiptsEntry as LoggedReceipts
from darkbloom_edge.manifest import ManifestFile, build_manifest, parse_manifest, role_of
from darkbloom_edge.merkle import Leaves
from darkbloom_edge.public_form import KIND as PUBLIC_FORM
from darkbloom_edge.public_form import public_form, read_public_form
from darkbloom_edge.receipt import (
    Countersign,
    OpenedCounts,
    build_receipt,
    parse_receipt,
    sign_countersign,
    terminal_sha256,
)
from darkbloom_edge.release import (
    Library,
    Package,
    ReleaseManifest,
    TreeFile,
    code_release_id,
    runtime_hash,
    sign_manifest,
)
from darkbloom_edge.release import parse_manifest as parse_release
from darkbloom_edge.signatures import Ed25519Signer, P256Signer, to_base64
from darkbloom_edge.terminal import Terminal, sign_terminal
from darkbloom_edge.transcript import Transcript
from darkbloom_edge.verdict import Verdict, sign_verdict
from darkbloom_edge.verify import verify_receipt
from darkbloom_edge.verify_bundle import Pins, verify_bundle

from tests.fakes.apple_service import AppleService
from tests.fuzz.target import Target

APP = "TEAMID1234.io.darkbloom.provider"
TIME = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
KEY = bytes(range(32))
HEX = "0" * 64
PROVIDER = P256Signer(bytes(range(1, 33)))
SERVICE = Ed25519Signer(bytes(range(32)))
KEYS = {SERVICE.key_id: SERVICE.public}
SERIAL = "TMWFWWWP67"


def _release() -> tuple[ReleaseManifest, bytes, bytes]:
    packages = [
        Package(name="darkbloom_edge", files=[TreeFile(path="a.py", mode="0", size=1, sha256=HEX)])
    ]
    libraries = [Library(name="mlx", installed="1.0", listing_sha256=HEX)]
    runtime = runtime_hash(packages, libraries)
    manifest = ReleaseManifest(
        release_version="1.0.0",
        platform="macos-arm64",
        code_release=code_release_id(runtime),
        python_hash=HEX,
        runtime_hash=runtime,
        template_hashes={"chatml": HEX},
        packages=packages,
        libraries=libraries,
        created_at=rfc3339(TIME),
    )

    return manifest, *sign_manifest(manifest, SERVICE)


def _receipt(code_release: str) -> bytes:
    ids = {"request_id": f"req_{HEX[:32]}", "attempt_id": f"att_{HEX[:32]}"}
    verdict = sign_verdict(
        Verdict(
            verdict_id=f"ver_{HEX[:32]}",
            provider_id=f"prov_{HEX[:32]}",
            identity_key=PROVIDER.public_text,
            encryption_key=to_base64(KEY),
            trust_level="hardware",
            admission="public",
            evidence=["ev_1"],
            code_release=code_release,
            issued_at=rfc3339(TIME - timedelta(minutes=5)),
            expires_at=rfc3339(TIME + timedelta(minutes=5)),
        ),
        SERVICE,
    )
    transcript = Transcript(KEY)
    transcript.request(b"{}")
    terminal = sign_terminal(
        Terminal(
            **ids,
            build="build",
            weight_hash="w",
            prompt_tokens=9,
            completion_tokens=4,
            cached_tokens=0,
            reasoning_tokens=0,
            chunks=2,
            finish_reason="stop",
            encryption_key=to_base64(KEY),
            verdict_id=f"ver_{HEX[:32]}",
            sealed_to=1,
            digests=transcript.digests(),
            outcome="completed",
        ),
        PROVIDER,
    )
    countersign = sign_countersign(
        Countersign(
            **ids,
            terminal_sha256=terminal_sha256(terminal[0]),
            body_digest=HEX,
            requested_model="alias",
            opened=OpenedCounts(frames=2, prompt_tokens=9, completion_tokens=4),
            outcome="completed",
            issued_at=rfc3339(TIME),
            output_bound=64,
            prompt_date="2026-01-31",
        ),
        SERVICE,
    )

    return build_receipt(
        receipt_key=KEY,
        terminal=terminal[0],
        terminal_signature=terminal[1],
        identity_key=PROVIDER.public,
        verdict=verdict[0],
        verdict_signature=verdict[1],
        verdict_key_id=SERVICE.key_id,
        countersign=countersign[0],
        countersign_signature=countersign[1],
        gateway_key_id=SERVICE.key_id,
    )


def _statement() -> bytes:
    return build_statement(
        DeviceStatement(
            provider_id=f"prov_{HEX[:32]}",
            nonce="bm9uY2U=",
            timestamp=rfc3339(TIME),
            identity_key=PROVIDER.public_text,
            encryption_key=to_base64(KEY),
            serial_commitment=serial_commitment(SERIAL, KEY),
            app_version="1.0.0",
            os_version="27.0",
        )
    )


def _signed(document: bytes, signature: bytes) -> dict[str, str]:
    return {
        "document": to_base64(document),
        "signature": to_base64(signature),
        "key_id": SERVICE.key_id,
    }


def _bundle(receipt: bytes, release: tuple[bytes, bytes]) -> tuple[bytes, AppleRoots]:
    apple = AppleService()
    statement = _statement()
    key = apple.attest(APP, client_data_hash=client_data_hash(statement), at=TIME)
    entry = encode_entry(LoggedReceipts(batch="b", root_hash=HEX, size=1, time=rfc3339(TIME)))
    leaves = Leaves([hashlib.sha256(b"\x00" + entry).digest()])
    head = sign_head(LogHead(tree_size=1, root_hash=leaves.root.hex(), time=rfc3339(TIME)), SERVICE)
    published = [{"key_id": SERVICE.key_id, "public_key": to_base64(SERVICE.public)}]
    piece = {
        "id": "ev_1",
        "kind": "app_attest",
        "backing": "apple",
        "document": to_base64(statement),
        "signature": to_base64(key.assertion(client_data_hash(statement))),
        "attestation": to_base64(key.attestation),
        "attestation_document": to_base64(statement),
        "key_id": key.key_id,
        "environment": "production",
    }
    bundle = {
        "version": 1,
        "receipt": json.loads(receipt),
        "keys": {"verdict_keys": published, "receipt_keys": published},
        "anchor": {
            "batch": "b",
            "index": 0,
            "size": 1,
            "path": [],
            "root_hash": HEX,
            "log_index": 0,
        },
        "log": {
            "head": _signed(*head),
            "entries": [{"index": 0, "entry": to_base64(entry), "path": []}],
        },
        "provider": {
            "provider_id": f"prov_{HEX[:32]}",
            "identity_key": PROVIDER.public_text,
            "encryption_key": to_base64(KEY),
            "evidence": [piece],
        },
        "release": _signed(*release),
    }

    return json.dumps(bundle).encode(), apple.roots


def document_targets() -> list[Target]:
    """Return the decoders of signed documents."""
    manifest, *release = _release()
    receipt = _receipt(manifest.code_release)
    bundle, roots = _bundle(receipt, (release[0], release[1]))
    pins = Pins(verdict_keys=KEYS, gateway_keys=KEYS, release_keys=KEYS, apple=roots, app_id=APP)
    blob = RegistrationBlob(
        authenticated_root_enabled=True,
        chip_name="Apple M4 Max",
        encryption_public_key=to_base64(KEY),
        hardware_model="Mac16,1",
        os_version="15.3.0",
        public_key=PROVIDER.public_text,
        rdma_disabled=True,
        secure_boot_enabled=True,
        secure_enclave_available=True,
        sip_enabled=True,
        timestamp=rfc3339(TIME),
    )
    weights = [
        ManifestFile(path=path, size_bytes=1, sha256=HEX, role=role)
        for path in ("config.json", "model.safetensors")
        if (role := role_of(path)) is not None
    ]

    return [
        Target("receipt_document", parse_receipt, (receipt,)),
        Target(
            "receipt_claims",
            lambda data: verify_receipt(data, verdict_keys=KEYS, gateway_keys=KEYS, now=TIME),
            (receipt,),
            refusals=(),
        ),
        Target("bundle", parse_bundle, (bundle,)),
        Target(
            "bundle_claims",
            lambda data: verify_bundle(data, pins=pins, now=TIME),
            (bundle,),
            refusals=(),
        ),
        Target("release_manifest", parse_release, (release[0],)),
        Target(
            "public_form",
            # Signed anew each time: what is behind the signature is what is tried.
            lambda data: read_public_form(data, PROVIDER.sign(PUBLIC_FORM, data)),
            (public_form(blob),),
        ),
        Target(
            "device_statement",
            lambda data: verify_statement(
                data,
                challenge=Challenge("bm9uY2U=", rfc3339(TIME), f"prov_{HEX[:32]}"),
                identity_key=PROVIDER.public,
                encryption_key=KEY,
                serial=SERIAL,
                salt=KEY,
            ),
            (_statement(),),
            refusals=(),
        ),
        Target(
            "model_manifest",
            parse_manifest,
            (build_manifest("org/model", "v1", weights, rfc3339(TIME)),),
        ),
    ]
