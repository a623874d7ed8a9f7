"""Shows that the engine can be loaded and that the device computes, without any model."""

from __future__ import annotations

from importlib import metadata
from typing import Final

import mlx.core as mx
import msgspec

# Nothing of it is called: a library that does not fit the others fails when it is imported.
import darkbloom_provider.engine.mlx.loader  # noqa: F401 - imported to see that it can be
from darkbloom_provider.errors import ProviderError

SIDE: Final = 8
"""Rows and columns; the numbers are small and whole, so every device has to get them exactly."""
LIBRARIES: Final = ("mlx", "mlx-lm")


class Smoke(msgspec.Struct, frozen=True, kw_only=True):
    """What has computed."""

    device: str
    """`gpu` or `cpu`."""
    device_name: str
    versions: dict[str, str]


def run() -> Smoke:
    """Multiply two small matrices on the default device.

    Raises:
        ProviderError: the device does not compute, or gets it wrong.
    """
    left = [[float(row + column) for column in range(SIDE)] for row in range(SIDE)]
    right = [[float(row * column % 5) for column in range(SIDE)] for row in range(SIDE)]
    expected = [
        [
            sum(a * b for a, b in zip(row, column, strict=True))
            for column in zip(*right, strict=True)
        ]
        for row in left
    ]
    try:
        found = multiply(left, right)
    except (RuntimeError, ValueError) as error:
        raise ProviderError(f"the device does not compute, {error}", _REMEDY) from error
    if found != expected:
        raise ProviderError("the device computes wrong numbers", _REMEDY)
    return Smoke(
        device=mx.default_device().type.name,
        device_name=str(mx.device_info().get("device_name", "")),
        versions={name: metadata.version(name) for name in LIBRARIES},
    )


def multiply(left: list[list[float]], right: list[list[float]]) -> object:
    """Multiply on the default device and return rows of numbers."""
    product = mx.matmul(mx.array(left), mx.array(right))
    mx.eval(product)
    return product.tolist()


_REMEDY: Final = "restart this machine; if it stays so, tell the operator which system this is"
