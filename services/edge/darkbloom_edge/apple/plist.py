"""One strict reader of XML property lists, as a device management server hands them on.

The reading itself is `plistlib`'s. Before it sees a byte, the shape is checked token by token, so
that nothing ambiguous, expanding or deep ever reaches a parser: no DTD of its own, no entities,
comments or instructions, no unknown element, no second root, no repeated key.
"""

import plistlib
import re
from typing import Any, NamedTuple
from xml.parsers.expat import ExpatError

from darkbloom_edge.errors import MalformedError

MAX_PLIST_BYTES = 131_072
"""Largest property list that is read."""
MAX_DEPTH = 16
"""Deepest nesting of dictionaries and arrays that is read."""
MAX_ELEMENTS = 4096
"""Most elements that are read."""

_PROLOGUE = re.compile(
    r"\s*(?:<\?xml\s+version=([\"'])1\.0\1(?:\s+encoding=([\"'])(?i:utf-8)\2)?\s*\?>\s*)?"
    r"(?:<!DOCTYPE\s+plist\s+PUBLIC\s+\"-//Apple(?: Computer)?//DTD PLIST 1\.0//EN\"\s+"
    r"\"https?://www\.apple\.com/DTDs/PropertyList-1\.0\.dtd\"\s*>\s*)?"
)
_TAG = re.compile(r"<(/?)([a-z]+)((?:\s+version=(?:\"1\.0\"|'1\.0'))?)\s*(/?)>")
_REFERENCE = re.compile(r"&(?!(?:lt|gt|amp|quot|apos);)")
_CONTAINERS = frozenset({"dict", "array"})
_EMPTY = frozenset({"true", "false"})
_TEXT = frozenset({"key", "string", "data", "date", "integer", "real"})
_BAD = MalformedError("not a plain xml property list", "plist")


class _Dictionary(dict[str, Any]):
    """A dictionary that is told of each key once."""

    def __setitem__(self, key: str, value: Any) -> None:
        if key in self:
            raise MalformedError("repeats a key", "plist")
        super().__setitem__(key, value)


class _Tag(NamedTuple):
    name: str
    opens: bool
    closes: bool
    text_before: str


def parse_plist(data: bytes, *, max_bytes: int = MAX_PLIST_BYTES) -> dict[str, Any]:
    """Read one XML property list whose root is a dictionary.

    Raises:
        MalformedError: too large, too deep, not UTF-8, not a property list, or ambiguous.
    """
    if len(data) > max_bytes:
        raise MalformedError(f"is larger than {max_bytes} bytes", "plist")

    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedError("is not utf-8", "plist") from None
    _check_shape(text)

    try:
        value = plistlib.loads(data, fmt=plistlib.FMT_XML, dict_type=_Dictionary)
    except MalformedError:
        raise
    except (ExpatError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError):
        # The cause quotes the document, so it is cut off.
        raise MalformedError("does not have the values of its elements", "plist") from None
    if not isinstance(value, dict):
        raise MalformedError("is not a dictionary", "plist")

    return value


def _check_shape(text: str) -> None:
    """Refuse what a property list never needs, in one pass and constant memory.

    Raises:
        MalformedError: anything of the kind.
    """
    begun = _PROLOGUE.match(text)
    position = begun.end() if begun is not None else 0
    if _REFERENCE.search(text) is not None or "\x00" in text:
        raise MalformedError("holds an entity or a control character", "plist")

    open_tags: list[str] = []
    elements = roots = 0
    while (tag := _next_tag(text, position)) is not None:
        parsed, position = tag
        _check_text(parsed, open_tags)
        if parsed.opens:
            _check_place(parsed.name, open_tags, roots)
            elements += 1
            roots += len(open_tags) == 1
            if elements > MAX_ELEMENTS or len(open_tags) > MAX_DEPTH:
                raise MalformedError("is too deep or too long", "plist")
            open_tags.append(parsed.name)
        if parsed.closes and (not open_tags or open_tags.pop() != parsed.name):
            raise _BAD
    if open_tags or roots != 1 or text[position:].strip():
        raise _BAD


def _next_tag(text: str, position: int) -> tuple[_Tag, int] | None:
    start = text.find("<", position)
    if start < 0:
        return None
    match = _TAG.match(text, start)
    if match is None:
        raise _BAD
    slash, name, version, empty = match.groups()
    if (slash and (version or empty)) or (version and name != "plist"):
        raise _BAD

    tag = _Tag(name, opens=not slash, closes=bool(slash or empty), text_before=text[position:start])
    return tag, match.end()


def _check_text(tag: _Tag, open_tags: list[str]) -> None:
    """Text belongs into the elements of text and nowhere else."""
    inside = open_tags[-1] if open_tags else ""
    if inside not in _TEXT and tag.text_before.strip():
        raise _BAD


def _check_place(name: str, open_tags: list[str], roots: int) -> None:
    if not open_tags:
        if name != "plist" or roots:
            raise _BAD
        return
    inside = open_tags[-1]
    known = name in _CONTAINERS or name in _EMPTY or name in _TEXT
    if not known or (inside == "plist" and (roots or name == "key")):
        raise _BAD
    if inside != "plist" and inside not in _CONTAINERS:
        raise _BAD
