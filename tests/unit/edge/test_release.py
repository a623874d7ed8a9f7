import hashlib

import msgspec
import pytest
from darkbloom_edge.documents import encode_document
from darkbloom_edge.errors import MalformedError, RejectReason, SignatureRejected
from darkbloom_edge.release import (
    KIND,
    MAX_MANIFEST_BYTES,
    Library,
    Package,
    ReleaseManifest,
    TreeFile,
    code_release_id,
    open_manifest,
    parse_manifest,
    runtime_hash,
    sign_manifest,
    tree_hash,
)
from darkbloom_edge.signatures import Ed25519Signer
from hypothesis import given
from hypothesis import strategies as st

SIGNER = Ed25519Signer.generate()
PINS = {SIGNER.key_id: SIGNER.public}
HASH = hashlib.sha256(b"x").hexdigest()


def file(path: str = "a.py", **changes: object) -> TreeFile:
    return TreeFile(**{"path": path, "mode": "0", "size": 1, "sha256": HASH, **changes})


def manifest(*files: TreeFile, **changes: object) -> ReleaseManifest:
    packages = [Package(name="darkbloom_provider", files=list(files or (file(),)))]
    libraries = [Library(name="mlx", installed="1.0", listing_sha256=HASH)]
    hashed = runtime_hash(packages, libraries)
    fields = {
        "release_version": "1.2.3",
        "platform": "macos-arm64",
        "code_release": code_release_id(hashed),
        "python_hash": HASH,
        "runtime_hash": hashed,
        "template_hashes": {},
        "packages": packages,
        "libraries": libraries,
        "created_at": "2026-01-31T12:00:00Z",
    }
    return ReleaseManifest(**{**fields, **changes})


def test_what_was_signed_is_read_again() -> None:
    document, signature = sign_manifest(manifest(), SIGNER)
    assert open_manifest(document, signature, SIGNER.key_id, PINS) == manifest()


@pytest.mark.parametrize(
    "changed",
    [
        file(path="b.py"),
        file(mode="111"),
        file(size=2),
        file(sha256=hashlib.sha256(b"y").hexdigest()),
    ],
)
def test_a_tree_hash_covers_path_mode_size_and_digest(changed: TreeFile) -> None:
    assert tree_hash([changed]) != tree_hash([file()])


def test_a_tree_hash_does_not_depend_on_the_order_of_the_listing() -> None:
    files = [file("a/b.py"), file("a.py"), file("a/a.py")]
    assert tree_hash(files) == tree_hash(files[::-1])


def test_a_runtime_hash_covers_names_and_versions() -> None:
    package, library = Package(name="p", files=[file()]), Library(name="l", installed="1")
    base = runtime_hash([package], [library])
    assert base != runtime_hash([Package(name="q", files=[file()])], [library])
    assert base != runtime_hash([package], [Library(name="l", installed="2")])
    assert base != runtime_hash([package], [Library(name="m", installed="1")])
    assert base != runtime_hash([package], [])


@pytest.mark.parametrize(
    "changes",
    [
        {"runtime_hash": HASH},
        {"code_release": code_release_id(HASH)},
        {"packages": [Package(name="darkbloom_provider", files=[file("b.py")])]},
        {"libraries": []},
    ],
)
def test_a_manifest_that_contradicts_itself_is_neither_signed_nor_read(
    changes: dict[str, object],
) -> None:
    wrong = msgspec.structs.replace(manifest(), **changes)
    with pytest.raises(MalformedError):
        sign_manifest(wrong, SIGNER)
    document = encode_document(wrong)
    with pytest.raises(SignatureRejected) as refused:
        open_manifest(document, SIGNER.sign(KIND, document), SIGNER.key_id, PINS)
    assert refused.value.reason is RejectReason.MALFORMED


def test_an_unpinned_key_signs_nothing() -> None:
    other = Ed25519Signer.generate()
    document, signature = sign_manifest(manifest(), other)
    with pytest.raises(SignatureRejected) as refused:
        open_manifest(document, signature, other.key_id, PINS)
    assert refused.value.reason is RejectReason.UNKNOWN_KEY
    with pytest.raises(SignatureRejected) as refused:
        open_manifest(document, signature, SIGNER.key_id, PINS)
    assert refused.value.reason is RejectReason.BAD_SIGNATURE


def test_another_kind_of_document_is_no_release() -> None:
    document, _ = sign_manifest(manifest(), SIGNER)
    with pytest.raises(SignatureRejected):
        open_manifest(document, SIGNER.sign("verdict", document), SIGNER.key_id, PINS)


def test_a_manifest_has_a_largest_size() -> None:
    with pytest.raises(MalformedError, match="larger"):
        parse_manifest(b" " * (MAX_MANIFEST_BYTES + 1))


@given(st.binary(max_size=300))
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_manifest(data)
