"""GGUF files: what a good one becomes, and that a bad one is only ever an error."""

import json
import struct
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from darkbloom_provider.models.errors import GgufError, ManifestError, ModelError, ModelExistsError
from darkbloom_provider.models.gguf import WeightType, import_gguf
from darkbloom_provider.models.gguf_file import GgufFile
from darkbloom_provider.models.gguf_tensors import repack, unpack
from darkbloom_provider.models.store import ModelStore
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.provider.models import tiny_gguf

NOW = datetime(2026, 1, 1, tzinfo=UTC)
GOOD = tiny_gguf.gguf_bytes()
HEADER_BYTES = 12_000


def write(folder: Path, data: bytes) -> Path:
    path = folder / "model.gguf"
    path.write_bytes(data)
    return path


def run_import(folder: Path, data: bytes, **changes: Any) -> Any:
    options: dict[str, Any] = {
        "build_id": "org/tiny",
        "version": "r1",
        "root": folder / "store",
        "created_at": NOW,
        "dtype": WeightType.FLOAT32,
    }
    return import_gguf(write(folder, data), **(options | changes))


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__")
    body, layouts = data[8 + length :], {"F32": "<f4", "F16": "<f2", "U32": "<u4"}
    return {
        name: np.frombuffer(
            body[entry["data_offsets"][0] : entry["data_offsets"][1]], layouts[entry["dtype"]]
        ).reshape(entry["shape"])
        for name, entry in header.items()
    }


def test_an_imported_file_is_a_complete_verified_version(tmp_path: Path) -> None:
    manifest = run_import(tmp_path, GOOD)

    store = ModelStore(tmp_path / "store")
    stored = store.get("org/tiny")
    assert store.verify(stored) == manifest.aggregate_sha256
    assert {file.path for file in manifest.files} == {
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_float32_weights_are_those_of_the_file(tmp_path: Path) -> None:
    run_import(tmp_path, GOOD)

    written = read_safetensors(
        ModelStore(tmp_path / "store").get("org/tiny").directory / "model.safetensors"
    )
    source = tiny_gguf.weights()
    np.testing.assert_array_equal(
        written["model.layers.1.mlp.down_proj.weight"], source["blk.1.ffn_down.weight"]
    )
    np.testing.assert_array_equal(written["model.embed_tokens.weight"], source["token_embd.weight"])


def test_the_same_file_gives_the_same_hash_and_another_one_is_refused(tmp_path: Path) -> None:
    first = run_import(tmp_path, GOOD)
    again = run_import(tmp_path, GOOD)
    assert again.identity_sha256 == first.identity_sha256

    other = tiny_gguf.gguf_bytes(arrays=tiny_gguf.weights(seed=8))
    with pytest.raises(ModelExistsError):
        run_import(tmp_path, other)


def test_the_tokenizer_splits_digits_and_knows_special_tokens(tmp_path: Path) -> None:
    run_import(tmp_path, GOOD)

    path = ModelStore(tmp_path / "store").get("org/tiny").directory / "tokenizer.json"
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    assert tokenizer.encode("hello world").tokens == ["hello", "Ġworld"]
    assert tokenizer.encode("<|im_end|>42").tokens == ["<|im_end|>", "4", "2"]


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q4_0", "Q4_1", "Q8_0"])
def test_unpacked_values_are_close_to_what_was_packed(tmp_path: Path, kind: str) -> None:
    name, tolerance = (
        "blk.0.attn_q.weight",
        {"F16": 1e-3, "BF16": 1e-2, "Q8_0": 1e-2}.get(kind, 0.1),
    )
    with GgufFile(write(tmp_path, tiny_gguf.gguf_bytes(kind=kind))) as file:
        values = unpack(file.tensors[name], file.read(name))

    np.testing.assert_allclose(values, tiny_gguf.weights()[name], atol=tolerance)


@pytest.mark.parametrize(("kind", "bits"), [("Q4_0", 4), ("Q4_1", 4), ("Q8_0", 8)])
def test_repacking_loses_nothing(tmp_path: Path, kind: str, bits: int) -> None:
    name = "blk.0.ffn_down.weight"
    with GgufFile(write(tmp_path, tiny_gguf.gguf_bytes(kind=kind))) as file:
        info, data = file.tensors[name], file.read(name)
        weight, scales, biases = repack(info, data)
        expected = unpack(info, data)

    levels = np.stack([(weight >> shift) & ((1 << bits) - 1) for shift in range(0, 32, bits)], -1)
    groups = levels.reshape(info.shape[0], -1, 32).astype(np.float32)
    values = groups * scales[..., None].astype(np.float32) + biases[..., None].astype(np.float32)
    np.testing.assert_allclose(values.reshape(info.shape), expected, rtol=2e-3, atol=1e-3)


def test_a_quantised_import_says_so_in_its_config(tmp_path: Path) -> None:
    run_import(tmp_path, tiny_gguf.gguf_bytes(kind="Q4_1"), dtype=WeightType.QUANTIZED)

    directory = ModelStore(tmp_path / "store").get("org/tiny").directory
    config = json.loads((directory / "config.json").read_text())
    assert config["quantization"] == {"group_size": 32, "bits": 4}
    assert config["rope_traditional"]
    assert config["tie_word_embeddings"]


def test_progress_ends_at_the_size_of_the_weights(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    run_import(tmp_path, GOOD, progress=lambda done, total: seen.append((done, total)))

    assert seen[-1][0] == seen[-1][1] == sum(a.size * 4 for a in tiny_gguf.weights().values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"general.architecture": "mamba"}, "architecture"),
        ({"general.architecture": 5}, "not a string"),
        ({"general.alignment": 3}, "power of two"),
        ({"llama.block_count": 3}, "missing"),
        ({"llama.block_count": 1}, "does not know"),
        ({"llama.attention.head_count": 0}, "out of bounds"),
        ({"llama.attention.head_count_kv": 3}, "multiple"),
        ({"llama.feed_forward_length": 97}, "wrong shape"),
        ({"llama.attention.layer_norm_rms_epsilon": float("nan")}, "out of bounds"),
        ({"llama.rope.scaling.type": "yarn"}, "rope scaling"),
        ({"llama.rope.dimension_count": 8}, "rotation"),
        ({"llama.expert_count": 8}, "experts"),
        ({"tokenizer.ggml.model": "llama"}, "byte-level"),
        ({"tokenizer.ggml.pre": "martian"}, "pre-tokenizer"),
        ({"tokenizer.ggml.tokens": ["a"]}, "differ in length"),
        ({"tokenizer.ggml.tokens": ["a"] * len(tiny_gguf.tokens())}, "occurs twice"),
        ({"tokenizer.ggml.merges": ["nope nope"]}, "vocabulary"),
        ({"tokenizer.ggml.merges": [1]}, "list of strings"),
        ({"tokenizer.ggml.eos_token_id": 10**6}, "out of bounds"),
        ({"tokenizer.ggml.eos_token_id": None}, "missing"),
        ({"tokenizer.chat_template": "{% for %}"}, "template"),
    ],
)
def test_a_file_that_cannot_be_imported_says_why(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    data = tiny_gguf.gguf_bytes(values=tiny_gguf.metadata(**changes))

    with pytest.raises(GgufError, match=message):
        run_import(tmp_path, data)
    assert ModelStore(tmp_path / "store").list() == []


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    arrays = tiny_gguf.weights()
    arrays["blk.0.attn_q.weight"][0, 0] = np.nan

    with pytest.raises(GgufError, match="not finite"):
        run_import(tmp_path, tiny_gguf.gguf_bytes(arrays=arrays))
    assert list((tmp_path / "store").rglob("*.safetensors")) == []


@pytest.mark.parametrize("build_id", ["", "/absolute", "a/../b", "späce", "x" * 300])
def test_a_bad_build_id_is_refused(tmp_path: Path, build_id: str) -> None:
    with pytest.raises(ManifestError):
        run_import(tmp_path, GOOD, build_id=build_id)


def test_a_folder_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(GgufError):
            GgufFile(path)


def test_a_count_that_lies_does_not_allocate(tmp_path: Path) -> None:
    for layout in (struct.pack("<IQQ", 3, 2**63, 0), struct.pack("<IQQ", 3, 0, 2**63)):
        with pytest.raises(GgufError, match="too many"):
            GgufFile(write(tmp_path, b"GGUF" + layout))


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    edits=st.lists(
        st.tuples(st.integers(0, HEADER_BYTES), st.binary(min_size=1, max_size=8)), max_size=4
    ),
    cut=st.integers(0, len(GOOD)),
    cutting=st.booleans(),
)
def test_a_mutated_file_is_imported_or_refused_and_never_crashes(
    tmp_path: Path, edits: list[tuple[int, bytes]], cut: int, cutting: bool
) -> None:
    data = bytearray(GOOD)
    for position, replacement in edits:
        data[position : position + len(replacement)] = replacement
    path = write(tmp_path, bytes(data[:cut] if cutting else data))

    try:
        with GgufFile(path) as file:
            for name in file.tensors:
                unpack(file.tensors[name], file.read(name))
    except ModelError:
        return


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(position=st.integers(0, HEADER_BYTES), replacement=st.binary(min_size=1, max_size=4))
def test_importing_a_mutated_file_leaves_a_verified_version_or_nothing(
    tmp_path: Path, position: int, replacement: bytes
) -> None:
    data = bytearray(GOOD)
    data[position : position + len(replacement)] = replacement
    store = ModelStore(tmp_path / "store")
    for stored in store.list():
        store.remove(stored.manifest.model_id, stored.manifest.version)

    try:
        run_import(tmp_path, bytes(data))
    except ModelError:
        assert store.list() == []
        return
    store.verify(store.get("org/tiny"))
