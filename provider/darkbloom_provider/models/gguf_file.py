"""Read a GGUF file with bounds on everything: the header in full, tensor bytes on request.

Files come from strangers, so no count, length or offset is believed before it is compared with what
the file really holds, and nothing native ever parses them.
"""

import dataclasses
import math
import os
import struct
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from darkbloom_provider.models.errors import GgufError

MAGIC: Final = b"GGUF"
VERSIONS: Final = frozenset({2, 3})
MAX_METADATA: Final = 4096
MAX_TENSORS: Final = 65_536
MAX_KEY_BYTES: Final = 1024
MAX_STRING_BYTES: Final = 4 << 20
MAX_ARRAY_ITEMS: Final = 1 << 21
MAX_HEADER_BYTES: Final = 256 << 20
MAX_DIMENSIONS: Final = 4
MAX_EXTENT: Final = 1 << 32
DEFAULT_ALIGNMENT: Final = 32
MAX_ALIGNMENT: Final = 1 << 16

_STRING: Final = 8
_ARRAY: Final = 9
_SCALARS: Final = {
    0: "<u1",
    1: "<i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    7: "|b1",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}

Scalar: TypeAlias = bool | int | float | str
Value: TypeAlias = Scalar | list[str] | list[bool | int | float]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TensorType:
    """How a tensor's values are packed."""

    name: str
    block_items: int
    """Values in one block."""
    block_bytes: int
    """Bytes of one block."""


TENSOR_TYPES: Final = {
    0: TensorType(name="F32", block_items=1, block_bytes=4),
    1: TensorType(name="F16", block_items=1, block_bytes=2),
    2: TensorType(name="Q4_0", block_items=32, block_bytes=18),
    3: TensorType(name="Q4_1", block_items=32, block_bytes=20),
    8: TensorType(name="Q8_0", block_items=32, block_bytes=34),
    30: TensorType(name="BF16", block_items=1, block_bytes=2),
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """Where a tensor is and what it is."""

    name: str
    shape: tuple[int, ...]
    """Outermost dimension first (a GGUF file writes it last)."""
    type: TensorType
    offset: int
    """Bytes from the start of the file."""

    @property
    def nbytes(self) -> int:
        """Size in the file."""
        return math.prod(self.shape) // self.type.block_items * self.type.block_bytes


class GgufFile:
    """An open, validated GGUF file.

    Invariant: every tensor in `tensors` lies wholly inside the file and overlaps no other.
    """

    def __init__(self, path: Path) -> None:
        """Open and validate.

        Raises:
            GgufError: Malformed, beyond a limit, or of an unsupported kind.
        """
        try:
            if not path.is_file():
                raise GgufError("not a regular file")
            self._file: BinaryIO = path.open("rb", buffering=1 << 20)
        except (OSError, ValueError) as error:
            raise GgufError("file cannot be opened") from error
        try:
            self.size_bytes = os.fstat(self._file.fileno()).st_size
            self.metadata, self.tensors = _Header(self._file, self.size_bytes).read()
        except OSError as error:
            self._file.close()
            raise GgufError("file cannot be read") from error
        except BaseException:
            self._file.close()
            raise

    def read(self, name: str) -> npt.NDArray[np.uint8]:
        """Read the packed bytes of one tensor.

        Raises:
            GgufError: The file changed or failed under us.
        """
        info = self.tensors[name]
        try:
            self._file.seek(info.offset)
            data = self._file.read(info.nbytes)
        except OSError as error:
            raise GgufError("file cannot be read") from error
        if len(data) != info.nbytes:
            raise GgufError("file became shorter while it was read")
        return np.frombuffer(data, np.uint8)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class _Header:
    """One pass over the header."""

    def __init__(self, file: BinaryIO, size_bytes: int) -> None:
        self._file = file
        self._left = min(size_bytes, MAX_HEADER_BYTES)
        self._size_bytes = size_bytes

    def read(self) -> tuple[dict[str, Value], dict[str, TensorInfo]]:
        if self._take(4) != MAGIC:
            raise GgufError("not a GGUF file")
        if self._number("<I") not in VERSIONS:
            raise GgufError("unsupported GGUF version")
        tensor_count = self._count("<Q", MAX_TENSORS, "too many tensors")
        metadata_count = self._count("<Q", MAX_METADATA, "too many metadata entries")

        metadata: dict[str, Value] = {}
        for _ in range(metadata_count):
            key = self._string(MAX_KEY_BYTES)
            if key in metadata:
                raise GgufError("metadata key occurs twice")
            metadata[key] = self._value()

        raw = [self._tensor() for _ in range(tensor_count)]
        return metadata, self._place(raw, _alignment(metadata))

    def _take(self, count: int) -> bytes:
        if count > self._left:
            raise GgufError("header is cut short or too long")
        data = self._file.read(count)
        if len(data) != count:
            raise GgufError("header is cut short")
        self._left -= count
        return data

    def _number(self, layout: str) -> int:
        (value,) = struct.unpack(layout, self._take(struct.calcsize(layout)))
        return int(value)

    def _count(self, layout: str, limit: int, message: str) -> int:
        value = self._number(layout)
        if value > limit:
            raise GgufError(message)
        return value

    def _string(self, limit: int) -> str:
        data = self._take(self._count("<Q", limit, "string is too long"))
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise GgufError("string is not UTF-8") from error

    def _value(self) -> Value:
        kind = self._number("<I")
        if kind == _STRING:
            return self._string(MAX_STRING_BYTES)
        if kind == _ARRAY:
            return self._array()
        return self._scalars(kind, 1)[0]

    def _array(self) -> list[str] | list[bool | int | float]:
        kind = self._number("<I")
        count = self._count("<Q", MAX_ARRAY_ITEMS, "array is too long")
        if kind == _STRING:
            # Each string needs at least its own length field, so a lying count cannot allocate.
            return [self._string(MAX_STRING_BYTES) for _ in range(count)]
        return self._scalars(kind, count)

    def _scalars(self, kind: int, count: int) -> list[bool | int | float]:
        layout = _SCALARS.get(kind)
        if layout is None:
            raise GgufError("unsupported metadata type")
        dtype = np.dtype(layout)
        # Booleans are read as bytes: any value other than 0 and 1 would be undefined as a bool.
        data = np.frombuffer(self._take(count * dtype.itemsize), "<u1" if kind == 7 else dtype)  # noqa: PLR2004 - the format's number of the boolean type
        values: list[bool | int | float] = (data != 0 if layout == "|b1" else data).tolist()
        return values

    def _tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._string(MAX_KEY_BYTES)
        rank = self._number("<I")
        if not 1 <= rank <= MAX_DIMENSIONS:
            raise GgufError("tensor has an unsupported number of dimensions")
        extents = [self._count("<Q", MAX_EXTENT, "tensor is too large") for _ in range(rank)]
        if 0 in extents:
            raise GgufError("tensor is empty")
        return name, tuple(reversed(extents)), self._number("<I"), self._number("<Q")

    def _place(
        self, raw: list[tuple[str, tuple[int, ...], int, int]], alignment: int
    ) -> dict[str, TensorInfo]:
        start = -(-self._file.tell() // alignment) * alignment
        tensors: dict[str, TensorInfo] = {}
        for name, shape, kind, offset in raw:
            if name in tensors:
                raise GgufError("tensor name occurs twice")
            tensor_type = TENSOR_TYPES.get(kind)
            if tensor_type is None:
                raise GgufError("unsupported tensor type")
            if shape[-1] % tensor_type.block_items:
                raise GgufError("tensor row is not a whole number of blocks")
            if offset % alignment:
                raise GgufError("tensor is not aligned")
            tensors[name] = TensorInfo(
                name=name, shape=shape, type=tensor_type, offset=start + offset
            )

        end = start
        for info in sorted(tensors.values(), key=lambda info: info.offset):
            if info.offset < end:
                raise GgufError("tensors overlap")
            end = info.offset + info.nbytes
        if end > self._size_bytes and tensors:
            raise GgufError("tensor lies beyond the end of the file")
        return tensors


def _alignment(metadata: dict[str, Value]) -> int:
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or isinstance(alignment, bool):
        raise GgufError("general.alignment is not a number")
    if not 1 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise GgufError("general.alignment is not a power of two within bounds")
    return alignment
