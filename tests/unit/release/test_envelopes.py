"""DSSE: what is signed is the type and the payload, by this key and no other."""

import base64
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from tools.release import dsse
from tools.release.errors import ReleaseError

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key()
STRANGER = Ed25519PrivateKey.from_private_bytes(bytes(32))
KIND = "application/vnd.example"


def test_the_encoding_is_that_of_the_specification() -> None:
    """Its own test vector: protocol.md of secure-systems-lab/dsse."""
    encoded = dsse._encoded("http://example.com/HelloWorld", b"hello world")
    assert encoded == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


@given(payload=st.binary(max_size=200))
def test_what_was_signed_is_opened(payload: bytes) -> None:
    assert dsse.opened(KIND, dsse.sign(KIND, payload, KEY), PUBLIC) == payload


def test_another_payload_type_key_or_signature_is_refused() -> None:
    envelope = json.loads(dsse.sign(KIND, b"one", KEY))
    other = json.loads(dsse.sign(KIND, b"two", KEY))

    def refused(document: object, match: str, kind: str = KIND) -> None:
        with pytest.raises(dsse.EnvelopeError, match=match):
            dsse.opened(kind, json.dumps(document), PUBLIC)

    refused({**envelope, "payload": other["payload"]}, "does not fit")
    refused({**envelope, "signatures": other["signatures"]}, "does not fit")
    refused({**envelope, "payloadType": "application/other"}, "does not fit", "application/other")
    refused(envelope, "of type", "application/other")
    refused({**envelope, "signatures": []}, "signed by nobody")
    refused(json.loads(dsse.sign(KIND, b"one", STRANGER)), "not by the given key")
    claimed = json.loads(dsse.sign(KIND, b"one", STRANGER))
    claimed["signatures"][0]["keyid"] = dsse.key_id(PUBLIC)
    refused(claimed, "does not fit")


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "null", '{"payload": "=", "payloadType": "x", "signatures": []}'],
    ids=["nothing", "empty", "a list", "null", "no base64"],
)
def test_what_is_no_envelope_is_called_so(text: str) -> None:
    with pytest.raises(dsse.EnvelopeError, match="no DSSE envelope"):
        dsse.opened(KIND, text, PUBLIC)


def test_one_good_signature_of_several_is_enough() -> None:
    envelope = json.loads(dsse.sign(KIND, b"one", STRANGER))
    envelope["signatures"] += json.loads(dsse.sign(KIND, b"one", KEY))["signatures"]
    assert dsse.opened(KIND, json.dumps(envelope), PUBLIC) == b"one"


def test_a_key_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "release.pem"
    public = dsse.new_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert dsse.key_id(dsse.read_key(path).public_key()) == dsse.key_id(dsse.read_public(public))
    with pytest.raises(ReleaseError, match="never written over"):
        dsse.new_key(path)

    path.chmod(0o644)
    with pytest.raises(ReleaseError, match="others may read"):
        dsse.read_key(path)


def test_what_is_no_key_is_refused_without_showing_it(tmp_path: Path) -> None:
    path = tmp_path / "key"
    with pytest.raises(ReleaseError, match="cannot be read"):
        dsse.read_key(path)
    with pytest.raises(ReleaseError, match="cannot be read"):
        dsse.read_public(path)
    secret = base64.b64encode(bytes(range(32))).decode()
    path.write_text(secret)
    path.chmod(0o600)
    for read in (dsse.read_key, dsse.read_public):
        with pytest.raises(ReleaseError, match="holds no PEM") as refused:
            read(path)
        assert secret not in str(refused.value)
