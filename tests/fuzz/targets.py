"""Every decoder that reads what strangers send, in one list; a new one adds its line here.

`decode` may raise what `refusals` names and nothing else, within a second and bounded memory.
"""

import json
import plistlib
import struct
from dataclasses import replace
from datetime import UTC, datetime

from cryptography.hazmat.primitives.serialization import Encoding
from darkbloom_edge.apple import (
    AppAttestPolicy,
    MdaPolicy,
    ReceiptPolicy,
    verify_assertion,
    verify_attestation,
    verify_mda,
    verify_receipt,
)
from darkbloom_edge.apple.authenticator import read_authenticator_data
from darkbloom_edge.apple.cbor import decode_cbor
from darkbloom_edge.apple.certificates import parse_certificate
from darkbloom_edge.apple.mdm_webhook import read_webhook
from darkbloom_edge.apple.plist import parse_plist
from darkbloom_edge.apple.receipt import read_payload
from darkbloom_edge.apple.security_info import (
    parse_acknowledged,
    read_device_attestation,
    read_ids,
    read_security_info,
)
from darkbloom_edge.attestation import (
    Expected,
    RegistrationBlob,
    StatusReport,
    answer_challenge,
    build_registration,
    new_challenge,
    verify_challenge,
    verify_registration,
)
from darkbloom_edge.boxes import new_key_pair
from darkbloom_edge.code_identity import SealedChallenge
from darkbloom_edge.delta import Delta
from darkbloom_edge.delta import decode as decode_delta
from darkbloom_edge.delta import encode as encode_delta
from darkbloom_edge.dialects.chat_request import lower
from darkbloom_edge.dialects.completions import COMPLETIONS
from darkbloom_edge.dialects.messages import MESSAGES
from darkbloom_edge.dialects.responses import RESPONSES
from darkbloom_edge.documents import rfc3339
from darkbloom_edge.errors import EdgeError, RequestError
from darkbloom_edge.log import KeyEntry as LoggedKey
from darkbloom_edge.log import LogHead, decode_entry, encode_entry, includes
from darkbloom_edge.merkle import Leaves, verify_consistency, verify_inclusion
from darkbloom_edge.sealed_request import (
    Asked,
    Sealed,
    SealedError,
    open_request,
    read_envelope,
    unpack,
)
from darkbloom_edge.sealing_keys import new_file, parse_keys
from darkbloom_edge.signatures import P256Signer, to_base64
from darkbloom_edge.strict_json import parse_json
from nacl.public import Box, PrivateKey, PublicKey

from tests.fakes.apple_ca import NOW
from tests.fakes.apple_service import (
    AppleService,
    AuthenticatorRecipe,
    launch_facts,
    payload,
    point,
)
from tests.fuzz.documents import document_targets
from tests.fuzz.target import Target

APP = "TEAMID1234.io.darkbloom.provider"
ZERO = bytes(32)
TIME = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


_TOOL = {"name": "f", "parameters": {"type": "object"}}
_CALL = {"name": "f", "input": {}}
_RESULT = {"tool_use_id": "c", "content": "x"}
_MESSAGES = json.dumps(
    {
        "model": "tiny",
        "system": [{"type": "text", "text": "s"}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "c", "name": "f", "input": {}}],
            },
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "c", "content": "x"}],
            },
        ],
        "tools": [{"name": "f", "input_schema": {"type": "object"}}],
        "thinking": {"type": "enabled", "budget_tokens": 1024},
    }
).encode()
_RESPONSES = json.dumps(
    {
        "model": "tiny",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "x"},
        ],
        "tools": [{"type": "function", **_TOOL}],
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}},
    }
).encode()
_COMPLETIONS = json.dumps({"model": "tiny", "prompt": ["hi"], "stop": ["x"], "n": 2}).encode()


def apple_targets() -> list[Target]:
    """Return the decoders of what Apple signs."""
    apple = AppleService()
    key = apple.attest(APP, client_data_hash=ZERO, launch=launch_facts())
    phone = apple.attest(APP, client_data_hash=ZERO, mac=False)
    policy = replace(AppAttestPolicy.for_app(APP), require_mac_access_control=False)
    fields = apple.receipt_fields(APP, key.chain[0], ZERO, kind="RECEIPT", risk_metric=3)
    chain = apple.device()
    recipe = AuthenticatorRecipe(app_id=APP, extensions=launch_facts())

    return [
        Target("cbor", lambda data: decode_cbor(data, max_bytes=1 << 15), (key.attestation,)),
        Target(
            "attestation",
            lambda data: verify_attestation(
                data,
                key_id=key.key_id,
                client_data_hash=ZERO,
                policy=policy,
                roots=apple.roots,
                now=NOW,
            ),
            (key.attestation,),
        ),
        Target(
            "authenticator_data",
            lambda data: read_authenticator_data(data, attestation=True),
            (recipe.build(point(key.private)), phone.authenticator_data),
        ),
        Target(
            "authenticator_data_of_assertions",
            lambda data: read_authenticator_data(data, attestation=False),
            (recipe.build(None), replace(recipe, extensions=None).build(None)),
        ),
        Target(
            "assertion",
            lambda data: verify_assertion(
                data,
                client_data_hash=ZERO,
                public_key=key.public_key,
                app_id_hash=policy.app_id_hash,
                previous_counter=0,
            ),
            (key.assertion(ZERO), key.assertion(ZERO, extensions=launch_facts())),
        ),
        Target(
            "certificate",
            parse_certificate,
            (*chain, key.leaf, *(phone.chain[0].public_bytes(Encoding.DER),)),
        ),
        Target(
            "device_chain",
            lambda data: verify_mda(
                [data, *chain[1:]],
                policy=MdaPolicy(freshness=frozenset()),
                roots=apple.roots,
                now=NOW,
            ),
            (chain[0],),
        ),
        Target(
            "receipt",
            lambda data: verify_receipt(
                data, policy=ReceiptPolicy(app_id=APP), roots=apple.roots, now=NOW
            ),
            (key.receipt,),
        ),
        Target(
            "receipt_payload",
            lambda data: read_payload(data, key.leaf, ZERO),
            (payload(fields),),
        ),
    ]


def management_targets() -> list[Target]:
    """Return the decoders of what a device management server hands on."""
    security = plistlib.dumps(
        {
            "UDID": "00006030-000651690A84001C",
            "CommandUUID": "11111111-2222-4333-8444-555555555555",
            "Status": "Acknowledged",
            "SecurityInfo": {
                "SystemIntegrityProtectionEnabled": True,
                "SecureBoot": {"SecureBootLevel": "full", "ExternalBootLevel": "none"},
                "AuthenticatedRootVolumeEnabled": True,
                "FDE_Enabled": True,
                "IsRecoveryLockEnabled": False,
            },
        }
    )
    device = plistlib.dumps(
        {
            "UDID": "00006030-000651690A84001C",
            "CommandUUID": "11111111-2222-4333-8444-555555555555",
            "Status": "Acknowledged",
            "QueryResponses": {"DevicePropertiesAttestation": [b"leaf", b"authority"]},
        }
    )
    webhook = json.dumps(
        {
            "topic": "mdm.Connect",
            "acknowledge_event": {
                "udid": "00006030-000651690A84001C",
                "status": "Acknowledged",
                "raw_payload": to_base64(security),
            },
        }
    ).encode()

    def read_report(data: bytes) -> object:
        answer = parse_acknowledged(data)
        return read_ids(answer), read_security_info(answer)

    return [
        Target("plist", parse_plist, (security, device)),
        Target("security_info", read_report, (security,)),
        Target(
            "device_information",
            lambda data: read_device_attestation(parse_acknowledged(data)),
            (device,),
        ),
        Target("webhook", read_webhook, (webhook,)),
    ]


def provider_targets() -> list[Target]:
    """Return the decoders of what providers say about themselves."""
    signer = P256Signer(bytes(range(1, 33)))
    blob = RegistrationBlob(
        authenticated_root_enabled=True,
        chip_name="Apple M4 Max",
        encryption_public_key=to_base64(ZERO),
        hardware_model="Mac16,1",
        os_version="15.3.0",
        public_key=signer.public_text,
        rdma_disabled=True,
        secure_boot_enabled=True,
        secure_enclave_available=True,
        sip_enabled=True,
        timestamp=rfc3339(TIME),
    )
    document, signature = build_registration(blob, signer)
    challenge = new_challenge(ZERO, rfc3339(TIME), "prov_" + "0" * 32)
    report = StatusReport(
        public_key=to_base64(ZERO),
        sip_enabled=True,
        secure_boot_enabled=True,
        rdma_disabled=True,
        model_hashes={"tiny": "0" * 64},
    )
    status, _ = answer_challenge(challenge, report, signer)
    expected = Expected(
        challenge=challenge,
        identity_key=signer.public,
        encryption_key=ZERO,
        posture_required=True,
    )

    return [
        Target(
            "registration",
            lambda data: verify_registration(data, signature, encryption_key=ZERO, now=TIME),
            (document,),
            refusals=(),
        ),
        Target(
            "status",
            # Signed anew each time: what is behind the signature is what is tried.
            lambda data: verify_challenge(data, signer.sign_raw(data), expected, TIME),
            (status,),
            refusals=(),
        ),
        Target(
            "code_challenge",
            SealedChallenge.from_bytes,
            (ZERO + bytes(100),),
        ),
    ]


def log_targets() -> list[Target]:
    """Return the decoders of the transparency log, with its proofs as plain bytes."""
    leaves = Leaves([bytes([number]) * 32 for number in range(11)])
    root = leaves.root
    head = LogHead(tree_size=11, root_hash=root.hex(), time=rfc3339(TIME))
    entry = encode_entry(
        LoggedKey(
            kind="receipt_key",
            action="published",
            key_id="0" * 16,
            public_key=to_base64(ZERO),
            time=rfc3339(TIME),
        )
    )

    def numbers(data: bytes) -> tuple[int, int, list[bytes]]:
        first, second = struct.unpack(">QQ", data[:16].ljust(16, b"\0"))
        return first, second, [data[at : at + 32] for at in range(16, len(data), 32)]

    def inclusion(data: bytes) -> object:
        index, size, path = numbers(data)
        includes(head, data, index, path)
        return verify_inclusion(bytes([3]) * 32, index, size, path, root)

    def consistency(data: bytes) -> object:
        old, new, path = numbers(data)
        return verify_consistency(old, new, ZERO, root, path)

    return [
        Target("log_entry", decode_entry, (entry,)),
        Target(
            "inclusion_proof",
            inclusion,
            (struct.pack(">QQ", 3, 11) + b"".join(leaves.inclusion(3)),),
            refusals=(),
        ),
        Target(
            "consistency_proof",
            consistency,
            (struct.pack(">QQ", 5, 11) + b"".join(leaves.consistency(5)),),
            refusals=(),
        ),
    ]


def request_targets() -> list[Target]:
    """Return the decoders of requests, answers and documents."""
    pair, sender = new_key_pair(), new_key_pair()
    box = Box(PrivateKey(sender.private), PublicKey(pair.public)).encrypt(b"{}")
    envelope = json.dumps(
        {
            "kid": "0" * 16,
            "ephemeral_public_key": to_base64(sender.public),
            "ciphertext": to_base64(bytes(box)),
        }
    ).encode()
    asked = Asked("POST /v1/chat/completions", b"sk", 1_800_000_000_000)
    seal = Box(PrivateKey(sender.private), PublicKey(pair.public)).encrypt
    frame = struct.pack(">BBBBHHQQ32s", 1, 1, 1, 0, 0, 0, 0, asked.now_ms, asked.context)

    def open_frame(data: bytes) -> object:
        # Sealed anew each time: what is behind the box is what is tried.
        box = bytes(seal(data))
        return open_request(Sealed(sender.public, box[:24], box[24:]), pair, asked, bytes)

    chat = json.dumps(
        {
            "model": "tiny",
            "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
            "stream": True,
            "max_tokens": 5,
            "temperature": 0.5,
        }
    ).encode()

    return [
        Target(
            "sealed_envelope",
            lambda data: open_request(unpack(read_envelope(data)), pair, None, bytes),
            (envelope,),
            refusals=(SealedError,),
        ),
        Target("sealed_frame", open_frame, (frame + chat,), refusals=(SealedError,)),
        Target("sealing_keys", parse_keys, (new_file(lambda size: bytes(range(size)), TIME),)),
        Target("json", lambda data: parse_json(data, max_bytes=1 << 20), (chat, envelope)),
        Target("chat_request", lower, (chat,), refusals=(EdgeError, RequestError)),
        Target("messages_request", MESSAGES.lower, (_MESSAGES,), refusals=(EdgeError,)),
        Target("responses_request", RESPONSES.lower, (_RESPONSES,), refusals=(EdgeError,)),
        Target("completions_request", COMPLETIONS.lower, (_COMPLETIONS,), refusals=(EdgeError,)),
        Target("delta", decode_delta, (encode_delta(Delta(text="a", completion_tokens=1)),)),
    ]


def all_targets() -> list[Target]:
    """Return every target."""
    return [
        *apple_targets(),
        *management_targets(),
        *provider_targets(),
        *log_targets(),
        *request_targets(),
        *document_targets(),
    ]
