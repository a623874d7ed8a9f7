"""Write weights as one safetensors file, a tensor at a time.

The format is eight bytes of little-endian header length, a JSON header and the raw tensors. Writing
it here keeps memory at one tensor, whatever the size of the model.
"""

import dataclasses
import json
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import BinaryIO, Final, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.generic]

DTYPES: Final = {"F32": "<f4", "F16": "<f2", "U32": "<u4"}
_HEADER_ALIGNMENT: Final = 8


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """A tensor that will be written: its name and shape now, its values when its turn comes."""

    name: str
    dtype: str
    """A key of `DTYPES`."""
    shape: tuple[int, ...]
    values: Callable[[], Array]

    @property
    def nbytes(self) -> int:
        """Size in the file."""
        count = 1
        for extent in self.shape:
            count *= extent
        return count * np.dtype(DTYPES[self.dtype]).itemsize


def write_safetensors(
    file: BinaryIO, tensors: Sequence[TensorSpec], progress: Callable[[int], None]
) -> None:
    """Write a whole file.

    Args:
        file: Open for writing, positioned at its start.
        tensors: In the order of the file.
        progress: Called with the bytes of each tensor once it is written.

    Raises:
        ValueError: A tensor's values do not have the shape that its spec announced.
    """
    file.write(_header(tensors))
    for spec in tensors:
        values = np.ascontiguousarray(spec.values(), dtype=DTYPES[spec.dtype])
        if values.shape != spec.shape:
            raise ValueError(f"tensor {spec.name} has another shape than announced")
        file.write(values.data)
        progress(spec.nbytes)


def _header(tensors: Iterable[TensorSpec]) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "mlx"}}
    offset = 0
    for spec in tensors:
        end = offset + spec.nbytes
        entries[spec.name] = {
            "dtype": spec.dtype,
            "shape": list(spec.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    encoded = json.dumps(entries, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % _HEADER_ALIGNMENT)
    return struct.pack("<Q", len(encoded)) + encoded
