"""Payloads that are no JSON: their calls are read when they are complete."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from darkbloom_provider.engine.tools.reading import CallPiece, Reading

MAX_PAYLOAD_CHARS: Final = 1 << 20


class HeldCall(NamedTuple):
    """A call that was read whole; repr is redacted."""

    name: str
    arguments: Mapping[str, Any]

    def __repr__(self) -> str:
        return "HeldCall(<redacted>)"


class NoCallError(Exception):
    """The payload is not written as the family writes calls; holds no content."""


Parse = Callable[[str], Sequence[HeldCall]]
"""Reads a payload without its markers.

Raises:
    NoCallError: It is no call.
"""


class HeldPayload:
    """Holds a payload up to its closing marker and reads it then.

    Args:
        close: The marker.
        parse: Reads what came before it.
        inner: What must stand directly before the marker, where something must.
    """

    def __init__(self, close: str, parse: Parse, *, inner: str = "") -> None:
        self.pieces: list[CallPiece] = []
        self.rest = ""
        self._close = close
        self._parse = parse
        self._inner = inner
        self._payload: list[str] = []
        self._size = 0
        self._last = close[-1]

    def feed(self, char: str) -> Reading:
        """Take one character."""
        self._payload.append(char)
        self._size += 1
        if self._size > MAX_PAYLOAD_CHARS:
            return Reading.REJECTED
        if char != self._last:
            return Reading.MORE
        text = "".join(self._payload[-len(self._close) :])
        if text != self._close:
            return Reading.MORE
        payload = "".join(self._payload[: -len(self._close)])
        if self._inner and not payload.rstrip().endswith(self._inner):
            # The marker is part of a value.
            return Reading.MORE
        return self._read(payload)

    def finish(self) -> Reading:
        """Take the end: a payload that is whole needs no marker."""
        return self._read("".join(self._payload))

    def _read(self, payload: str) -> Reading:
        try:
            calls = [(call.name, _written(call.arguments)) for call in self._parse(payload)]
        except (NoCallError, ValueError):
            return Reading.REJECTED
        for name, arguments in calls:
            self.pieces += [CallPiece(name), CallPiece(arguments=arguments)]
        return Reading.DONE if calls else Reading.REJECTED


def _written(arguments: Mapping[str, Any]) -> str:
    """Write arguments as JSON.

    Raises:
        ValueError: A number is not finite, or a text is not valid unicode.
    """
    text = json.dumps(arguments, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    text.encode()
    return text


def typed(text: str, name: str, parameters: Mapping[str, Any] | None) -> Any:
    """Read the value of a parameter that a model wrote without quotes.

    Args:
        text: As it was written.
        name: Of the parameter.
        parameters: The function's schema: what it calls a string stays one.

    Raises:
        NoCallError: The schema wants no string, and the text is no JSON.
    """
    properties = (parameters or {}).get("properties")
    schema = properties.get(name) if isinstance(properties, Mapping) else None
    kinds = schema.get("type") if isinstance(schema, Mapping) else None
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if not isinstance(kinds, list) or kinds == ["string"]:
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        if "string" in kinds:
            return text
        raise NoCallError("value is no json") from None
