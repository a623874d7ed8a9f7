"""Unpack GGUF blocks to floats, or repack them as MLX affine quantisation without loss of a bit.

A block of 32 values holds a scale, sometimes a minimum, and small integers. MLX's affine form
(`scale x q + bias`, groups of 32, integers packed little-endian into 32-bit words) can say the same
thing exactly, so a quantised import changes layout only.
"""

import dataclasses
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from darkbloom_provider.models.gguf_file import TensorInfo

Bytes: TypeAlias = npt.NDArray[np.uint8]
Floats: TypeAlias = npt.NDArray[np.float32]

GROUP: Final = 32
BITS: Final = {"Q4_0": 4, "Q4_1": 4, "Q8_0": 8}
"""Bits per value of the types that MLX can hold quantised."""


@dataclasses.dataclass(frozen=True, slots=True)
class Blocks:
    """A quantised tensor as scale, bias and unsigned integers, one row per block."""

    scales: Floats
    biases: Floats
    levels: Bytes
    """Shape (blocks, 32)."""


def unpack(info: TensorInfo, data: Bytes) -> Floats:
    """Give the values of a tensor in its own shape."""
    name = info.type.name
    if name == "F32":
        return data.view("<f4").astype(np.float32).reshape(info.shape)
    if name == "F16":
        return data.view("<f2").astype(np.float32).reshape(info.shape)
    if name == "BF16":
        return (data.view("<u2").astype(np.uint32) << 16).view(np.float32).reshape(info.shape)
    blocks = _blocks(info, data)
    values = blocks.levels * blocks.scales[:, None] + blocks.biases[:, None]
    return values.astype(np.float32).reshape(info.shape)


def repack(
    info: TensorInfo, data: Bytes
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.float16], npt.NDArray[np.float16]]:
    """Give a quantised matrix as MLX's packed weight, scales and biases.

    Returns:
        Weight (rows, columns x bits / 32) and scales and biases (rows, columns / 32).
    """
    blocks = _blocks(info, data)
    bits = BITS[info.type.name]
    per_byte = 8 // bits
    shifts = (np.arange(per_byte, dtype=np.uint8) * bits).astype(np.uint8)
    grouped = blocks.levels.reshape(-1, per_byte)
    packed = np.bitwise_or.reduce(grouped << shifts, axis=1).astype(np.uint8)

    rows, groups = info.shape[0], info.shape[1] // GROUP
    weight = packed.view("<u4").reshape(rows, info.shape[1] * bits // 32)
    scales = blocks.scales.astype(np.float16).reshape(rows, groups)
    biases = blocks.biases.astype(np.float16).reshape(rows, groups)
    return weight, scales, biases


def _blocks(info: TensorInfo, data: Bytes) -> Blocks:
    rows = data.reshape(-1, info.type.block_bytes)
    scales = _halves(rows[:, :2])
    if info.type.name == "Q4_0":
        return Blocks(scales, -8.0 * scales, _nibbles(rows[:, 2:]))
    if info.type.name == "Q4_1":
        return Blocks(scales, _halves(rows[:, 2:4]), _nibbles(rows[:, 4:]))
    # Q8_0 is signed; its offset becomes the bias.
    levels = (np.ascontiguousarray(rows[:, 2:]).view(np.int8).astype(np.int16) + 128).astype(
        np.uint8
    )
    return Blocks(scales, -128.0 * scales, levels)


def _halves(column: Bytes) -> Floats:
    return np.ascontiguousarray(column).view("<f2").astype(np.float32).reshape(-1)


def _nibbles(packed: Bytes) -> Bytes:
    # Byte j holds value j in its low half and value j + 16 in its high half.
    return np.concatenate([packed & 0x0F, packed >> 4], axis=1)
