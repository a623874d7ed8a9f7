import pytest
from darkbloom_edge.errors import MalformedError, SignatureRejected
from darkbloom_edge.manifest import FileRole, ManifestFile, build_manifest
from darkbloom_edge.model_source import SourceKind, parse_source
from darkbloom_edge.signatures import Ed25519Signer
from darkbloom_edge.signed_manifest import open_manifest, sign_manifest

COMMIT = "0" * 40


@pytest.mark.parametrize(
    ("text", "kind", "location"),
    [
        ("https://models.example/v2/x/", SourceKind.HTTPS, "https://models.example/v2/x"),
        ("https://models.example:8443/x", SourceKind.HTTPS, "https://models.example:8443/x"),
        (f"hf:org/name@{COMMIT}", SourceKind.HUGGING_FACE, "org/name"),
        ("s3://bucket/a/b", SourceKind.S3, "bucket/a/b"),
        ("file:///srv/models", SourceKind.FILE, "/srv/models"),
    ],
)
def test_each_kind_of_place_is_read(text: str, kind: SourceKind, location: str) -> None:
    found = parse_source(text)
    assert (found.kind, found.location) == (kind, location)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "http://models.example/x",
        "http://127.0.0.1:1/x",
        "https:///x",
        "https://user:secret@models.example/x",
        "https://models.example/x?sig=1",
        "https://models.example/a/../b",
        "https://models.example:x/y",
        "https://models.example/a b",
        "hf:org/name@main",
        f"hf:org/../name@{COMMIT}",
        f"hf:org/..@{COMMIT}",
        "s3://Bucket/x",
        "s3:///x",
        "file://host/x",
        "file:///",
        "file:///a/../b",
        "ftp://x/y",
        "https://x/" + "a" * 1024,
    ],
)
def test_anything_else_is_no_place(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_source(text)


def test_plain_http_is_a_place_on_the_loopback_in_development_only() -> None:
    found = parse_source("http://127.0.0.1:8080/x", plain_http=True)
    assert found.file_url("a b.json") == "http://127.0.0.1:8080/x/a%20b.json"
    with pytest.raises(MalformedError):
        parse_source("http://models.example/x", plain_http=True)


def test_a_hub_repository_is_read_at_its_commit() -> None:
    found = parse_source(f"hf:org/name@{COMMIT}")
    assert found.file_url("sub/a.json") == (
        f"https://huggingface.co/org/name/resolve/{COMMIT}/sub/a.json"
    )


def test_a_manifest_opens_only_with_the_key_that_signed_it() -> None:
    signer, other = Ed25519Signer(bytes(32)), Ed25519Signer(bytes([1]) * 32)
    entry = ManifestFile(path="a.bin", size_bytes=1, sha256="a" * 64, role=FileRole.WEIGHT)
    document = build_manifest("org/x", "v1", [entry], "2026-01-01T00:00:00Z")
    signature = sign_manifest(document, signer)
    keys = {signer.key_id: signer.public}

    assert open_manifest(document, signature, signer.key_id, keys).version == "v1"
    for changed in (
        (document + b" ", signature, signer.key_id, keys),
        (document, sign_manifest(document, other), signer.key_id, keys),
        (document, signature, other.key_id, keys),
        (document, b"", "", keys),
    ):
        with pytest.raises(SignatureRejected):
            open_manifest(*changed)
