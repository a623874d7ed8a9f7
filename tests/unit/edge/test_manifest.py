import contextlib
import dataclasses
import hashlib
import json

import pytest
from darkbloom_edge.errors import MalformedError
from darkbloom_edge.manifest import (
    MAX_DOCUMENT_BYTES,
    MAX_FILES,
    FileRole,
    ManifestFile,
    aggregate_sha256,
    build_manifest,
    identity_sha256,
    object_prefix,
    parse_manifest,
    role_of,
    valid_model_id,
    valid_path,
    valid_version,
)
from hypothesis import given, settings
from hypothesis import strategies as st

CREATED = "2026-05-23T10:00:00Z"


def file(path: str, content: bytes = b"x", role: FileRole = FileRole.WEIGHT) -> ManifestFile:
    return ManifestFile(
        path=path,
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        role=role,
    )


def document(*files: ManifestFile) -> dict:
    listed = files or (file("a.txt", b"a"), file("b.txt", b"b"))
    return json.loads(build_manifest("org/name", "v1", listed, CREATED))


def refused(changed: dict) -> str | None:
    with pytest.raises(MalformedError) as caught:
        parse_manifest(json.dumps(changed).encode())
    return caught.value.field


def test_the_aggregate_is_the_published_vector() -> None:
    files = [file("b.txt", b"b"), file("a.txt", b"a")]
    assert aggregate_sha256(files) == (
        "e5a01fee14e0ed5c48714f22180f25ad8365b53f9779f79dc4a3d7e93963f94a"
    )


def test_the_prefix_is_the_published_example() -> None:
    name = "mlx-community/gemma-4-26B-A4B-it-qat-4bit"
    assert object_prefix(name, "r1") == (
        "v2/mlx-community-gemma-4-26B-A4B-it-qat-4bit--05e099331e2e/r1"
    )
    assert object_prefix("///", "r1").startswith("v2/model--")


def test_what_is_built_parses_to_the_same_facts() -> None:
    files = (file("w/model.safetensors", b"weights"), file("config.json", b"{}", FileRole.CONFIG))
    manifest = parse_manifest(build_manifest("org/name", "v1", files, CREATED))

    assert manifest.files == tuple(sorted(files, key=lambda entry: entry.path))
    assert (manifest.file_count, manifest.total_size_bytes, manifest.weight_bytes) == (2, 9, 7)
    assert manifest.identity_sha256 == identity_sha256("org/name", "v1", files)


def test_the_identity_sees_what_the_aggregate_does_not() -> None:
    one, other = [file("a.bin")], [file("b.bin")]
    assert aggregate_sha256(one) == aggregate_sha256(other)
    assert identity_sha256("m", "v", one) != identity_sha256("m", "v", other)
    assert identity_sha256("m", "v", one) != identity_sha256("n", "v", one)


def test_an_absent_identity_is_derived_and_a_wrong_one_refused() -> None:
    plain = document()
    del plain["identity_sha256"]
    assert len(parse_manifest(json.dumps(plain).encode()).identity_sha256) == 64
    assert refused(document() | {"identity_sha256": "0" * 64}) == "identity_sha256"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schema_version", 2),
        ("schema_version", True),
        ("model_id", "/abs"),
        ("model_id", "a/../b"),
        ("version", "a/b"),
        ("version", ".hidden"),
        ("r2_prefix", "v2/elsewhere"),
        ("aggregate_sha256", "0" * 64),
        ("total_size_bytes", 3),
        ("total_size_bytes", 2.0),
        ("file_count", 3),
        ("files", []),
        ("files", {}),
        ("created_at", "yesterday"),
        ("created_at", None),
    ],
)
def test_a_wrong_field_is_refused_by_name(field: str, value: object) -> None:
    assert refused(document() | {field: value}) == field


@pytest.mark.parametrize(
    "path", ["", "/a", "a//b", "./a", "a/..", "..", "a\\b", "a\0b", "Manifest.json", "x" * 1025]
)
def test_a_path_that_could_escape_is_refused(path: str) -> None:
    assert not valid_path(path)
    with pytest.raises(MalformedError):
        build_manifest("m", "v", [file(path)], CREATED)


def test_names_that_fold_to_one_file_are_refused() -> None:
    with pytest.raises(MalformedError, match="twice"):
        build_manifest("m", "v", [file("A.bin"), file("a.BIN")], CREATED)


def test_sizes_are_bounded() -> None:
    huge = dataclasses.replace(file("a.bin"), size_bytes=(1 << 63) - 1)
    parse_manifest(build_manifest("m", "v", [huge], CREATED))
    with pytest.raises(MalformedError, match="63 bits"):
        build_manifest("m", "v", [huge, file("b.bin")], CREATED)
    with pytest.raises(MalformedError, match="negative"):
        build_manifest("m", "v", [dataclasses.replace(huge, size_bytes=-1)], CREATED)


def test_the_document_limit_is_inclusive() -> None:
    data = build_manifest("m", "v", [file("a.bin")], CREATED)
    parse_manifest(data + b" " * (MAX_DOCUMENT_BYTES - len(data)))
    with pytest.raises(MalformedError, match="larger"):
        parse_manifest(data + b" " * (MAX_DOCUMENT_BYTES + 1 - len(data)))


def test_no_files_and_too_many_files_are_refused() -> None:
    for count in (0, MAX_FILES + 1):
        with pytest.raises(MalformedError, match="1 to"):
            build_manifest("m", "v", [file(f"{n}.bin") for n in range(count)], CREATED)


def test_a_repeated_key_is_refused() -> None:
    data = build_manifest("m", "v", [file("a.bin")], CREATED)
    with pytest.raises(MalformedError, match="repeats"):
        parse_manifest(data.replace(b"{", b'{"model_id": "other",', 1))


def test_roles_follow_names() -> None:
    assert role_of("sub/model-00001.safetensors") is FileRole.WEIGHT
    assert role_of("chat_template.jinja") is FileRole.TEMPLATE
    assert role_of("README.md") is None


def test_ids_and_versions_have_one_charset() -> None:
    assert valid_model_id("mlx-community/Qwen3.5-27B_8bit")
    assert not any(map(valid_model_id, ["", "/a", "a..b", "a b", "ä", "x" * 257, "a\n"]))
    assert valid_version("2026-05-23-r1")
    assert not any(map(valid_version, ["", "a/b", "..", ".a", "x" * 257, "a\n"]))


@given(st.binary(max_size=300))
def test_arbitrary_bytes_raise_only_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_manifest(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


@settings(max_examples=200)
@given(st.data())
def test_a_mutated_document_parses_or_raises_malformed(data: st.DataObject) -> None:
    changed = document()
    target = changed["files"][0] if data.draw(st.booleans()) else changed
    target[data.draw(st.sampled_from(sorted(target)))] = data.draw(JSON)
    with contextlib.suppress(MalformedError):
        parse_manifest(json.dumps(changed).encode())
