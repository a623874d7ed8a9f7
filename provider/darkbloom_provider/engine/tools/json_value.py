"""Find where a JSON value ends, while its text comes a character at a time."""

from enum import Enum, auto
from typing import Final

WHITESPACE: Final = " \t\n\r"
_CLOSERS: Final = {"{": "}", "[": "]"}
_SCALAR_ENDS: Final = frozenset(",}]" + WHITESPACE)
_FIRST_PRINTABLE: Final = " "


class Step(Enum):
    """What one character did."""

    MORE = auto()
    END = auto()
    """The value is complete with this character."""
    END_BEFORE = auto()
    """The value was complete already; the character follows it."""
    BROKEN = auto()
    """This cannot become JSON."""


class ValueScanner:
    """Follows strings and brackets of one value that begins with its first character.

    It knows where a value ends, and not whether every word in it is valid.
    """

    def __init__(self) -> None:
        self._expected: list[str] = []
        """The brackets that must still close."""
        self._in_string = False
        self._escaped = False
        self._scalar = False

    def feed(self, char: str) -> Step:
        """Take one character."""
        if self._in_string:
            return self._feed_string(char)
        if self._scalar:
            return Step.END_BEFORE if char in _SCALAR_ENDS else Step.MORE
        if char == '"':
            self._in_string = True
        elif char in _CLOSERS:
            self._expected.append(_CLOSERS[char])
        elif char in "}]":
            if not self._expected or self._expected.pop() != char:
                return Step.BROKEN
            return Step.MORE if self._expected else Step.END
        elif not self._expected:
            self._scalar = True
        return Step.MORE

    def _feed_string(self, char: str) -> Step:
        if self._escaped:
            self._escaped = False
        elif char == "\\":
            self._escaped = True
        elif char == '"':
            self._in_string = False
            return Step.MORE if self._expected else Step.END
        elif char < _FIRST_PRINTABLE:
            return Step.BROKEN
        return Step.MORE
