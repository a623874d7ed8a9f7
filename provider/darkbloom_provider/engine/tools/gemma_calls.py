"""Gemma's calls: `call:name{key:<escape>text<escape>,other:1}`."""

import json
import re
from typing import Any, Final

from darkbloom_provider.engine.tools.held import HeldCall, NoCallError

MAX_DEPTH: Final = 32
_CALL: Final = re.compile(r"\s*call:([\w.-]+)\{")
_KEY: Final = re.compile(r"\s*([\w.-]+)\s*:\s*")
_SCALAR: Final = re.compile(r"[^,{}\[\]]+")


def gemma_calls(payload: str, quote: str) -> list[HeldCall]:
    """Read one or more calls.

    Args:
        payload: Without its markers.
        quote: Stands before and after every text.

    Raises:
        NoCallError: It is not written so.
    """
    calls = []
    place = 0
    while (found := _CALL.match(payload, place)) is not None:
        reader = _Values(payload, found.end(), quote)
        calls.append(HeldCall(found.group(1), reader.members(0)))
        place = reader.place
    if payload[place:].strip():
        raise NoCallError("something else beside the calls")
    return calls


class _Values:
    """Reads values from a place on."""

    def __init__(self, text: str, place: int, quote: str) -> None:
        self.place = place
        self._text = text
        self._quote = quote

    def members(self, depth: int) -> dict[str, Any]:
        """Read members up to their closing brace."""
        found: dict[str, Any] = {}
        while not self._takes("}"):
            if found and not self._takes(","):
                raise NoCallError("no comma")
            if self._text.startswith(self._quote, self._skip()):
                key = self._quoted()
                if not self._takes(":"):
                    raise NoCallError("no colon")
            else:
                match = _KEY.match(self._text, self.place)
                if match is None:
                    raise NoCallError("no key")
                key, self.place = match.group(1), match.end()
            if key in found:
                raise NoCallError("a key comes twice")
            found[key] = self._value(depth + 1)
        return found

    def _value(self, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise NoCallError("too deep")
        if self._text.startswith(self._quote, self._skip()):
            return self._quoted()
        if self._takes("{"):
            return self.members(depth)
        if self._takes("["):
            return self._items(depth)
        match = _SCALAR.match(self._text, self.place)
        if match is None:
            raise NoCallError("no value")
        self.place = match.end()
        try:
            return json.loads(match.group(0))
        except ValueError:
            raise NoCallError("a value is no json") from None

    def _items(self, depth: int) -> list[Any]:
        items: list[Any] = []
        while not self._takes("]"):
            if items and not self._takes(","):
                raise NoCallError("no comma")
            items.append(self._value(depth + 1))
        return items

    def _quoted(self) -> str:
        begin = self.place + len(self._quote)
        end = self._text.find(self._quote, begin)
        if end < 0:
            raise NoCallError("a text does not end")
        self.place = end + len(self._quote)
        return self._text[begin:end]

    def _skip(self) -> int:
        while self.place < len(self._text) and self._text[self.place].isspace():
            self.place += 1
        return self.place

    def _takes(self, char: str) -> bool:
        if not self._text.startswith(char, self._skip()):
            return False
        self.place += len(char)
        return True
