"""DSSE: a payload, its type, and Ed25519 signatures over both (secure-systems-lab/dsse, v1.0.2).

The type is signed with the payload, so nobody can pass a list of digests off as a provenance.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from tools.release.errors import ReleaseError

_OTHERS_MAY_READ = 0o077


class EnvelopeError(Exception):
    """An envelope that proves nothing; the message says why."""


def new_key(path: Path) -> Path:
    """Make a signing key, PEM, 0600, and its public half beside it; returns the path of that.

    Raises:
        ReleaseError: There is a key already.
    """
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    try:
        path.touch(mode=0o600, exist_ok=False)
    except FileExistsError:
        raise ReleaseError(f"{path} exists; a key is never written over") from None
    path.write_bytes(private)
    beside = path.with_suffix(".pub")
    beside.write_bytes(public)
    return beside


def read_key(path: Path) -> Ed25519PrivateKey:
    """Read a signing key.

    Raises:
        ReleaseError: There is none, others may read it, or it is of another kind.
    """
    try:
        if path.stat().st_mode & _OTHERS_MAY_READ:
            raise ReleaseError(f"others may read the signing key: chmod 600 {path}")
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise ReleaseError(f"the signing key cannot be read: {error.strerror}") from None
    except (ValueError, TypeError):
        raise ReleaseError(f"{path} holds no PEM key without a password") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ReleaseError(f"{path} holds no Ed25519 key")
    return key


def read_public(path: Path) -> Ed25519PublicKey:
    """Read a public key.

    Raises:
        ReleaseError: There is none, or it is of another kind.
    """
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise ReleaseError(f"the public key cannot be read: {error.strerror}") from None
    except ValueError:
        raise ReleaseError(f"{path} holds no PEM public key") from None
    if not isinstance(key, Ed25519PublicKey):
        raise ReleaseError(f"{path} holds no Ed25519 key")
    return key


def key_id(key: Ed25519PublicKey) -> str:
    """Return SHA-256 over the raw key, hex."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()


def sign(kind: str, payload: bytes, key: Ed25519PrivateKey) -> str:
    """Return the envelope of a payload, JSON."""
    signature = key.sign(_encoded(kind, payload))
    envelope = {
        "payloadType": kind,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [
            {"keyid": key_id(key.public_key()), "sig": base64.b64encode(signature).decode()}
        ],
    }
    return json.dumps(envelope, indent=1) + "\n"


def opened(kind: str, text: str, key: Ed25519PublicKey) -> bytes:
    """Return the payload of an envelope that this key has signed.

    Raises:
        EnvelopeError: It is malformed, of another type, or not signed by the key.
    """
    payload, found, signatures = _parsed(text)
    if found != kind:
        raise EnvelopeError(f"it is of type {found!r}, not {kind!r}")
    name = key_id(key)
    ours = [sig for keyid, sig in signatures if keyid in ("", name)]
    if not ours:
        known = ", ".join(keyid[:16] for keyid, _ in signatures) or "nobody"
        raise EnvelopeError(f"signed by {known}, not by the given key {name[:16]}")
    for signature in ours:
        try:
            key.verify(signature, _encoded(kind, payload))
        except InvalidSignature:
            continue
        return payload
    raise EnvelopeError(f"the signature of key {name[:16]} does not fit")


def _encoded(kind: str, payload: bytes) -> bytes:
    """Return DSSE's pre-authentication encoding."""
    name = kind.encode()
    return b"DSSEv1 %d %s %d %s" % (len(name), name, len(payload), payload)


def _parsed(text: str) -> tuple[bytes, str, Sequence[tuple[str, bytes]]]:
    try:
        found: Any = json.loads(text)
        payload = base64.b64decode(found["payload"], validate=True)
        kind = str(found["payloadType"])
        signatures = [
            (str(one.get("keyid", "")), base64.b64decode(one["sig"], validate=True))
            for one in found["signatures"]
        ]
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
        raise EnvelopeError("it is no DSSE envelope") from None
    return payload, kind, signatures
