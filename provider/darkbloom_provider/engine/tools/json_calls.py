"""Calls that are written in JSON, read as they come."""

import json
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Final

from darkbloom_provider.engine.tools.json_value import WHITESPACE, Step, ValueScanner
from darkbloom_provider.engine.tools.reading import CallPiece, Reading

_ARGUMENTS: Final = frozenset({"arguments", "parameters"})
_MAX_HEADER_CHARS: Final = 256


class CallObject:
    """Reads `{"name": …, "arguments": …}`; the members may come in any order.

    Args:
        known: Names that may be called; None for any. An answer that merely is JSON is no call.
    """

    def __init__(self, known: AbstractSet[str] | None = None) -> None:
        self.pieces: list[CallPiece] = []
        self.rest = ""
        self.begun = False
        """The name has been given: there is no way back."""
        self.in_arguments = False
        """Characters are being given as arguments."""
        self._known = known
        self._state: Callable[[str], Reading] = self._before
        self._scanner = ValueScanner()
        self._raw = ""
        self._key = ""
        self._name = ""
        self._held: str | None = None
        """Arguments that came before the name."""
        self._answered = False
        """The arguments are complete."""

    def feed(self, char: str) -> Reading:
        """Take one character."""
        return self._state(char)

    def finish(self) -> Reading:
        """Take the end; a call that was begun stays as far as it came."""
        return Reading.DONE if self.begun else Reading.REJECTED

    def _before(self, char: str) -> Reading:
        if char in WHITESPACE:
            return Reading.MORE
        return self._go(self._before_key) if char == "{" else Reading.REJECTED

    def _before_key(self, char: str) -> Reading:
        if char in WHITESPACE:
            return Reading.MORE
        if char == "}":
            return self._end()
        if char != '"':
            return Reading.REJECTED
        self._raw, self._scanner = "", ValueScanner()
        self._state = self._in_key
        return self._in_key(char)

    def _in_key(self, char: str) -> Reading:
        self._raw += char
        step = self._scanner.feed(char)
        if step is Step.BROKEN:
            return Reading.REJECTED
        if step is Step.END:
            key = _loaded(self._raw)
            if key is None:
                return Reading.REJECTED
            self._key = key
            return self._go(self._colon)
        return Reading.MORE

    def _colon(self, char: str) -> Reading:
        if char in WHITESPACE:
            return Reading.MORE
        self._raw, self._scanner = "", ValueScanner()
        return self._go(self._before_value) if char == ":" else Reading.REJECTED

    def _before_value(self, char: str) -> Reading:
        if char in WHITESPACE:
            return Reading.MORE
        if char in ",}]":
            return Reading.REJECTED
        if self._key in _ARGUMENTS and char == "{" and self._name and not self._answered:
            self._begin("")
            self.in_arguments = True
        self._state = self._in_value
        return self._in_value(char)

    def _in_value(self, char: str) -> Reading:
        step = self._scanner.feed(char)
        if step is Step.BROKEN:
            return Reading.REJECTED
        if step is Step.END_BEFORE:
            return self._after_value(char) if self._store() is Reading.MORE else Reading.REJECTED
        if self.in_arguments:
            self.pieces.append(CallPiece(arguments=char))
        else:
            self._raw += char
        if step is Step.END:
            return self._store()
        return Reading.MORE

    def _after_value(self, char: str) -> Reading:
        if char in WHITESPACE:
            return Reading.MORE
        if char == ",":
            return self._go(self._before_key)
        return self._end() if char == "}" else Reading.REJECTED

    def _store(self) -> Reading:
        self._state = self._after_value
        if self.in_arguments:
            self.in_arguments = False
            self._answered = True
        elif self._key == "name":
            return self._store_name()
        elif self._key in _ARGUMENTS and not self._answered:
            text = self._raw
            if text.startswith('"'):
                # Arguments as a string of JSON: the string is what the caller wants.
                decoded = _loaded(text)
                if decoded is None:
                    return Reading.REJECTED
                text = decoded
            self._answered = True
            if self._name:
                self._begin(text)
            else:
                self._held = text
        return Reading.MORE

    def _store_name(self) -> Reading:
        name = _loaded(self._raw)
        if not name or self._name or (self._known is not None and name not in self._known):
            return Reading.REJECTED
        self._name = name
        if self._held is not None:
            self._begin(self._held)
        return Reading.MORE

    def _begin(self, arguments: str) -> None:
        self.begun = True
        self.pieces.append(CallPiece(self._name, arguments))

    def _end(self) -> Reading:
        if not self._name:
            return Reading.REJECTED
        if not self.begun:
            self._begin("{}")
        return Reading.DONE

    def _go(self, state: Callable[[str], Reading]) -> Reading:
        self._state = state
        return Reading.MORE


class JsonPayload:
    """Reads one object, or a list of them, up to a closing marker.

    Args:
        close: The marker; empty where the payload's end is the end of its JSON.
        known: As for `CallObject`.
        many: Whether a list is meant; otherwise one object.
    """

    def __init__(
        self, close: str, *, known: AbstractSet[str] | None = None, many: bool = False
    ) -> None:
        self.pieces: list[CallPiece] = []
        self.rest = ""
        self._close = close
        self._known = known
        self._many = many
        self._begun = False
        self._object = CallObject(known)
        self._tail = ""
        self._state: Callable[[str], Reading] = self._before_list if many else self._in_object

    def feed(self, char: str) -> Reading:
        """Take one character."""
        return self._state(char)

    def finish(self) -> Reading:
        """Take the end; what is held of the closing marker was not the marker."""
        if not self._begun:
            return Reading.REJECTED
        self.rest = self._tail if self._state == self._after else ""
        return Reading.DONE

    def _before_list(self, char: str) -> Reading:
        if char in WHITESPACE:
            return Reading.MORE
        if char != "[":
            return Reading.REJECTED
        self._state = self._in_object
        return Reading.MORE

    def _in_object(self, char: str) -> Reading:
        within = self._object.in_arguments
        reading = self._object.feed(char)
        self.pieces += self._object.pieces
        self._object.pieces.clear()
        self._begun = self._begun or self._object.begun
        if reading is Reading.DONE:
            self._state = self._between if self._many else self._after
            return Reading.MORE if self._many or self._close else Reading.DONE
        if reading is Reading.REJECTED:
            if not self._begun:
                return Reading.REJECTED
            # Too late to take it back: what was begun stays, and goes on word for word.
            self._state = self._broken_arguments if within else self._broken
            return self._state(char)
        return Reading.MORE

    def _between(self, char: str) -> Reading:
        if char in WHITESPACE or char == ",":
            return Reading.MORE
        if char == "]":
            self._state = self._after
            return Reading.MORE if self._close else Reading.DONE
        self._object = CallObject(self._known)
        self._state = self._in_object
        return self._in_object(char)

    def _after(self, char: str) -> Reading:
        if not self._tail and char in WHITESPACE:
            return Reading.MORE
        self._tail += char
        if self._tail == self._close:
            return Reading.DONE
        if self._close.startswith(self._tail):
            return Reading.MORE
        self.rest = self._tail
        return Reading.DONE

    def _broken(self, char: str) -> Reading:
        """Wait for the marker."""
        self._tail = (self._tail + char)[-len(self._close) :] if self._close else ""
        return Reading.DONE if self._close and self._tail == self._close else Reading.MORE

    def _broken_arguments(self, char: str) -> Reading:
        """Give everything up to the marker, as it came."""
        self._tail += char
        while self._tail and not self._close.startswith(self._tail):
            self.pieces.append(CallPiece(arguments=self._tail[0]))
            self._tail = self._tail[1:]
        return Reading.DONE if self._close and self._tail == self._close else Reading.MORE


class HeaderCall:
    """Reads Mistral's `name[ARGS]{…}`, or the list `[{…}]` of its elder models."""

    def __init__(self) -> None:
        self.pieces: list[CallPiece] = []
        self.rest = ""
        self._header = ""
        self._list: JsonPayload | None = None
        self._arguments: ValueScanner | None = None
        self._broken = False

    def feed(self, char: str) -> Reading:
        """Take one character."""
        if self._list is not None:
            return self._feed_list(self._list, char)
        if self._arguments is not None:
            return self._feed_arguments(self._arguments, char)
        if not self._header.strip() and char == "[":
            self._list = JsonPayload("", many=True)
            return self._feed_list(self._list, char)
        if char != "{":
            self._header += char
            return Reading.MORE if len(self._header) <= _MAX_HEADER_CHARS else Reading.REJECTED

        name = self._header.strip().removesuffix("[ARGS]").split("[CALL_ID]")[0].strip()
        if not name or not name.replace("_", "").replace("-", "").replace(".", "").isalnum():
            return Reading.REJECTED
        self.pieces.append(CallPiece(name))
        self._arguments = ValueScanner()
        return self._feed_arguments(self._arguments, char)

    def finish(self) -> Reading:
        """Take the end."""
        if self._list is not None:
            return self._list.finish()
        return Reading.REJECTED if self._arguments is None else Reading.DONE

    def _feed_list(self, inner: JsonPayload, char: str) -> Reading:
        reading = inner.feed(char)
        self.pieces += inner.pieces
        inner.pieces.clear()
        return reading

    def _feed_arguments(self, scanner: ValueScanner, char: str) -> Reading:
        step = Step.BROKEN if self._broken else scanner.feed(char)
        self._broken = step is Step.BROKEN
        self.pieces.append(CallPiece(arguments=char))
        return Reading.DONE if step is Step.END else Reading.MORE


def _loaded(text: str) -> str | None:
    """Read a JSON string; None for anything else."""
    try:
        value = json.loads(text)
        if isinstance(value, str):
            value.encode()
    except (ValueError, RecursionError):
        # Half a surrogate pair is no text that could be sent on.
        return None
    return value if isinstance(value, str) else None
