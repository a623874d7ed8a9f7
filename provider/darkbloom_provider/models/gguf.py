"""Import a GGUF file into the model store as an MLX build.

The file is validated in full before anything is written, weights are converted one tensor at a
time, and the result is published by one rename: an import that fails leaves nothing behind.
"""

import enum
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import tokenizers
from darkbloom_edge.chat_template.template import ChatTemplate, TemplateError
from darkbloom_edge.manifest import Manifest

from darkbloom_provider.models.errors import GgufError
from darkbloom_provider.models.files import write_durably
from darkbloom_provider.models.gguf_file import GgufFile, TensorInfo
from darkbloom_provider.models.gguf_llama import mlx_config, mlx_name, read_shape
from darkbloom_provider.models.gguf_metadata import text
from darkbloom_provider.models.gguf_tensors import BITS, GROUP, repack, unpack
from darkbloom_provider.models.gguf_tokenizer import tokenizer_files
from darkbloom_provider.models.safetensors import TensorSpec, write_safetensors
from darkbloom_provider.models.store import ModelStore, describe, require_ids

WEIGHTS_NAME: Final = "model.safetensors"
_TEMPLATE_KEY: Final = "tokenizer.chat_template"


class WeightType(enum.StrEnum):
    """How an import stores weights."""

    AUTO = "auto"
    """Quantised on Metal, float32 elsewhere: a CPU multiplies floats several times faster."""
    FLOAT32 = "float32"
    FLOAT16 = "float16"
    QUANTIZED = "quantized"
    """The file's own quantisation, in MLX's layout and without loss."""


def import_gguf(
    path: Path,
    *,
    build_id: str,
    version: str,
    root: Path,
    created_at: datetime,
    dtype: WeightType = WeightType.AUTO,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Manifest:
    """Convert a GGUF file and publish it in the store under `root`.

    Args:
        path: The file.
        build_id: What the build will be called.
        version: The version tag; the same bytes again are a no-op.
        root: The model store.
        created_at: Written into the manifest; not part of the identity.
        dtype: How weights are stored.
        progress: Called with weight bytes written so far and in all.

    Raises:
        GgufError: The file is malformed or uses something that cannot be imported.
        ManifestError: `build_id` or `version` is outside the rules.
        ModelExistsError: The version exists with other bytes.
        ModelBusyError: Another process is writing this build.
        DiskFullError: The volume cannot hold the result.
    """
    require_ids(build_id, version)
    store = ModelStore(root)
    with GgufFile(path) as file:
        files, tensors = _plan(file, _resolve(dtype))
        total = sum(spec.nbytes for spec in tensors)
        store.require_space(total + sum(len(data) for data in files.values()))

        with store.staging(build_id, version) as staging:
            for name, data in files.items():
                write_durably(staging / name, data)
            _write_weights(staging / WEIGHTS_NAME, tensors, lambda done: progress(done, total))
            document = describe(staging, build_id, version, created_at.isoformat())
            return store.publish(staging, document).manifest


def _resolve(dtype: WeightType) -> WeightType:
    if dtype is not WeightType.AUTO:
        return dtype
    return WeightType.QUANTIZED if sys.platform == "darwin" else WeightType.FLOAT32


def _plan(file: GgufFile, dtype: WeightType) -> tuple[dict[str, bytes], list[TensorSpec]]:
    """Give the small files by name and the weights to write."""
    shape = read_shape(file.metadata, file.tensors)
    files = tokenizer_files(file.metadata, shape.vocabulary)
    _check_tokenizer(files["tokenizer.json"])
    if _TEMPLATE_KEY in file.metadata:
        files["chat_template.jinja"] = _template(text(file.metadata, _TEMPLATE_KEY))

    bits = _majority_bits(file.tensors) if dtype is WeightType.QUANTIZED else None
    config = mlx_config(shape, quantised_bits=bits)
    files["config.json"] = json.dumps(config, indent=1).encode()

    repacker = _Repacker(file)
    tensors = [
        spec
        for _, info in sorted(file.tensors.items())
        for spec in _specs(file, repacker, info, dtype)
    ]
    return files, tensors


def _check_tokenizer(document: bytes) -> None:
    try:
        tokenizers.Tokenizer.from_str(document.decode())
    except Exception as error:  # the native library raises nothing narrower
        raise GgufError("the file's tokenizer cannot be built") from error


def _template(source: str) -> bytes:
    try:
        ChatTemplate(source)
    except TemplateError as error:
        raise GgufError("the file's chat template cannot be compiled") from error
    return source.encode()


def _majority_bits(tensors: Mapping[str, TensorInfo]) -> int | None:
    """Tell the default of `config.json`; tensors of other widths are recognised by their shape."""
    sizes: dict[int, int] = {}
    for info in tensors.values():
        if _quantisable(info):
            bits = BITS[info.type.name]
            sizes[bits] = sizes.get(bits, 0) + info.nbytes
    return max(sizes, key=lambda bits: sizes[bits]) if sizes else None


def _quantisable(info: TensorInfo) -> bool:
    return info.type.name in BITS and len(info.shape) == 2  # noqa: PLR2004 - a matrix


class _Repacker:
    """Repacks one tensor at a time; its three parts are written one after the other."""

    def __init__(self, file: GgufFile) -> None:
        self._file = file
        self._name = ""
        self._parts: tuple[npt.NDArray[np.generic], ...] = ()

    def part(self, info: TensorInfo, index: int) -> npt.NDArray[np.generic]:
        """Give weight, scales or biases (0, 1, 2) of a tensor."""
        if self._name != info.name:
            self._parts = repack(info, self._file.read(info.name))
            self._name = info.name
        return self._parts[index]


def _specs(
    file: GgufFile, repacker: _Repacker, info: TensorInfo, dtype: WeightType
) -> Iterator[TensorSpec]:
    name = mlx_name(info.name)
    if dtype is WeightType.QUANTIZED and _quantisable(info):
        rows, columns = info.shape
        words = columns * BITS[info.type.name] // 32
        for part, (suffix, stored, width) in enumerate(
            (("weight", "U32", words), ("scales", "F16", None), ("biases", "F16", None))
        ):
            yield TensorSpec(
                name=f"{name}.{suffix}",
                dtype=stored,
                shape=(rows, columns // GROUP if width is None else width),
                values=partial(repacker.part, info, part),
            )
        return
    yield TensorSpec(
        name=f"{name}.weight",
        dtype="F32" if dtype is WeightType.FLOAT32 else "F16",
        shape=info.shape,
        values=partial(_unpacked, file, info),
    )


def _unpacked(file: GgufFile, info: TensorInfo) -> npt.NDArray[np.generic]:
    values = unpack(info, file.read(info.name))
    if not np.isfinite(values).all():
        raise GgufError(f"tensor {info.name} holds values that are not finite")
    return values


def _write_weights(path: Path, tensors: list[TensorSpec], progress: Callable[[int], None]) -> None:
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress(done)

    with path.open("wb") as file:
        write_safetensors(file, tensors, advance)
