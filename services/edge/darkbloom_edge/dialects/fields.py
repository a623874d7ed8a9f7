"""Typed reading of a request's top level: every refusal names its field and quotes nothing."""

from collections.abc import Mapping
from typing import Any, final

from darkbloom_edge.errors import RequestError

MAX_INTEGER = 2**63 - 1
"""Largest integer of any field."""


@final
class Fields:
    """A parsed JSON object; a null field is an absent one."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def get(self, name: str) -> Any:
        """Return a field as it is, or None."""
        return self._values.get(name)

    def flag(self, name: str) -> bool | None:
        """Return a boolean field.

        Raises:
            RequestError: it is something else.
        """
        value = self._values.get(name)
        if value is not None and not isinstance(value, bool):
            raise RequestError(f"{name} must be a boolean", name)

        return value

    def text(self, name: str) -> str | None:
        """Return a string field; errors as `flag`."""
        value = self._values.get(name)
        if value is not None and not isinstance(value, str):
            raise RequestError(f"{name} must be a string", name)

        return value

    def object(self, name: str) -> dict[str, Any] | None:
        """Return an object field; errors as `flag`."""
        value = self._values.get(name)
        if value is not None and not isinstance(value, dict):
            raise RequestError(f"{name} must be an object", name)

        return value

    def array(self, name: str) -> list[Any] | None:
        """Return an array field; errors as `flag`."""
        value = self._values.get(name)
        if value is not None and not isinstance(value, list):
            raise RequestError(f"{name} must be an array", name)

        return value

    def integer(self, name: str, low: int, high: int = MAX_INTEGER) -> int | None:
        """Return an integer field between two bounds, both included; errors as `flag`."""
        value = self._values.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise RequestError(f"{name} must be an integer", name)
        if not low <= value <= high:
            raise RequestError(f"{name} must be between {low} and {high}", name)

        return value

    def number(self, name: str, low: float, high: float) -> float | None:
        """Return a number field between two bounds, both included; errors as `flag`."""
        value = self._values.get(name)
        if value is None:
            return None

        return number_between(value, low, high, name)


def number_between(value: Any, low: float, high: float, name: str) -> float:
    """Return `value` as a float between two bounds, both included.

    Raises:
        RequestError: it is no number, or outside.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RequestError(f"{name} must be a number", name)
    if not low <= value <= high:
        raise RequestError(f"{name} must be between {low:g} and {high:g}", name)

    return float(value)
