"""Typed access to GGUF metadata: present, of the right type, within bounds, or a clear error."""

from collections.abc import Mapping

from darkbloom_provider.models.errors import GgufError
from darkbloom_provider.models.gguf_file import Value


def text(metadata: Mapping[str, Value], key: str, default: str | None = None) -> str:
    """Read a string.

    Raises:
        GgufError: Missing without a default, or not a string.
    """
    value = metadata.get(key, default)
    if not isinstance(value, str):
        raise GgufError(f"metadata {key} is missing or not a string")
    return value


def number(
    metadata: Mapping[str, Value],
    key: str,
    *,
    low: float,
    high: float,
    default: float | None = None,
) -> float:
    """Read a number within inclusive bounds.

    Raises:
        GgufError: Missing without a default, not a number, or out of bounds (NaN included).
    """
    value = metadata.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise GgufError(f"metadata {key} is missing or not a number")
    if not low <= value <= high:
        raise GgufError(f"metadata {key} is out of bounds")
    return value


def integer(
    metadata: Mapping[str, Value], key: str, *, low: int, high: int, default: int | None = None
) -> int:
    """Read a whole number within inclusive bounds.

    Raises:
        GgufError: As `number`, or with a fraction.
    """
    value = number(metadata, key, low=low, high=high, default=default)
    if not isinstance(value, int):
        raise GgufError(f"metadata {key} is not a whole number")
    return value


def flag(metadata: Mapping[str, Value], key: str, *, default: bool) -> bool:
    """Read a boolean.

    Raises:
        GgufError: Not a boolean.
    """
    value = metadata.get(key, default)
    if not isinstance(value, bool):
        raise GgufError(f"metadata {key} is not a boolean")
    return value


def texts(metadata: Mapping[str, Value], key: str) -> list[str]:
    """Read a list of strings.

    Raises:
        GgufError: Missing or of another type.
    """
    value = metadata.get(key)
    if not isinstance(value, list):
        raise GgufError(f"metadata {key} is missing or not a list")
    strings = [item for item in value if isinstance(item, str)]
    if len(strings) != len(value):
        raise GgufError(f"metadata {key} is not a list of strings")
    return strings


def integers(metadata: Mapping[str, Value], key: str) -> list[int]:
    """Read a list of whole numbers.

    Raises:
        GgufError: Missing or of another type.
    """
    value = metadata.get(key)
    if not isinstance(value, list):
        raise GgufError(f"metadata {key} is missing or not a list")
    numbers = [item for item in value if isinstance(item, int) and not isinstance(item, bool)]
    if len(numbers) != len(value):
        raise GgufError(f"metadata {key} is not a list of whole numbers")
    return numbers
