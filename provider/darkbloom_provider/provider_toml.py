"""Read `provider.toml`: what it sets, and one message for each thing that is wrong with it.

Nothing in the file stops a start: a key with a wrong value takes its default, a file that cannot be
read is as if it were empty, and `darkbloom doctor` fails on both. One default is not safe, so it is
turned round: where `private_only` might have been set and cannot be read, it holds.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from darkbloom_provider.config import ProviderConfig
from darkbloom_provider.file_keys import (
    BY_PATH,
    CONFIG_VERSION,
    RETIRED,
    SCHEDULE_ENABLED,
    SCHEDULE_WINDOWS,
)
from darkbloom_provider.schedule import Window, WindowError, parse_window

MAX_BYTES = 1 << 20
_WANTED: dict[Any, tuple[str, tuple[type, ...]]] = {
    bool: ("true or false", (bool,)),
    int: ("a whole number", (int,)),
    float: ("a number", (int, float)),
}
_AT_LINE = re.compile(r" ?\(at (?:line (\d+), column \d+|end of document)\)$")
_TABLE = re.compile(r"\s*\[{1,2}\s*([A-Za-z0-9_.\"' -]+?)\s*\]{1,2}\s*(#.*)?$")
_ASSIGNMENT = re.compile(r"\s*([A-Za-z0-9_.\"'-]+(?:\s*\.\s*[A-Za-z0-9_\"'-]+)*)\s*=")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with the file."""

    message: str
    """What is wrong; never the value."""
    key: str = ""
    line: int = 0
    """From 1; 0 where no line can be named."""

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        what = f"{self.key}: " if self.key else ""
        return f"{where}{what}{self.message}"


@dataclass(frozen=True, kw_only=True, slots=True)
class ProviderFile:
    """What a file says."""

    path: Path
    exists: bool = False
    values: Mapping[str, str] = field(default_factory=dict)
    """Field of `ProviderConfig` to text, as a variable would hold it."""
    lines: Mapping[str, int] = field(default_factory=dict)
    """Key to line."""
    schedule_enabled: bool = False
    windows: tuple[Window, ...] = ()
    """Those that can be understood."""
    problems: tuple[Problem, ...] = ()
    """A wrong value or a broken file: what it touched took its default."""
    unknown: tuple[Problem, ...] = ()
    """Keys that nothing reads; only `doctor` minds."""
    retired: tuple[Problem, ...] = ()
    """Keys of older programs; named once at a start."""


def read(path: Path) -> ProviderFile:
    """Return what the file says; a file that is not there says nothing."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return ProviderFile(path=path)
    except OSError as error:
        return _broken(path, Problem(f"cannot be read ({error.strerror})"))
    if len(data) > MAX_BYTES:
        return _broken(path, Problem(f"larger than {MAX_BYTES} bytes"))
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return _broken(path, Problem("not UTF-8 text"))
    return parse(path, text)


def parse(path: Path, text: str) -> ProviderFile:
    """Return what the text of a file says."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = _AT_LINE.search(str(error))
        line = int(found.group(1) or text.count("\n") + 1) if found else 0
        reason = _AT_LINE.sub("", str(error)).rstrip(".")
        return _broken(path, Problem(f"not valid TOML: {reason[:1].lower()}{reason[1:]}", "", line))

    lines = _lines(text)
    reader = _Reader(lines)
    for key, value in _flat(document):
        reader.take(key, value)
    return ProviderFile(
        path=path,
        exists=True,
        values=reader.values,
        lines=lines,
        schedule_enabled=reader.schedule_enabled,
        windows=tuple(reader.windows),
        problems=tuple(reader.problems),
        unknown=tuple(reader.unknown),
        retired=tuple(reader.retired),
    )


def as_text(field_name: str, value: object) -> str:
    """Return a value of the file as a variable of the environment would hold it.

    Raises:
        ValueError: It is of another type than the field; the message says which is wanted.
    """
    kind = _kind(field_name)
    if get_origin(kind) is tuple:
        return _joined(value)
    wanted, types = _WANTED.get(kind, ("a text in quotes", (str,)))
    # True is an int to Python, and to nobody who writes a file.
    if not isinstance(value, types) or (isinstance(value, bool) and kind is not bool):
        choices = f", one of {', '.join(get_args(kind))}" if get_origin(kind) is Literal else ""
        raise ValueError(f"must be {wanted}{choices}")
    return str(value).lower() if kind is bool else str(value)


def from_text(field_name: str, text: str) -> bool | int | float | str | list[str]:
    """Return what the file holds for a text that was typed; the reverse of `as_text`.

    Raises:
        ValueError: The text cannot be such a value.
    """
    kind = _kind(field_name)
    if kind is bool:
        words = {"true": True, "yes": True, "on": True, "1": True}
        words |= {"false": False, "no": False, "off": False, "0": False}
        if text.lower() not in words:
            raise ValueError("must be true or false")
        return words[text.lower()]
    if kind in (int, float):
        try:
            return int(text) if kind is int or text.isdecimal() else float(text)
        except ValueError:
            word = "a whole number" if kind is int else "a number"
            raise ValueError(f"must be {word}") from None
    if get_origin(kind) is tuple:
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _joined(value: object) -> str:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ValueError('must be a list of texts, like ["one", "two"]')
    if any("," in one for one in value):
        raise ValueError("no text of the list may hold a comma")
    return ",".join(value)


class _Reader:
    """Sorts keys by what they are."""

    def __init__(self, lines: Mapping[str, int]) -> None:
        self.values: dict[str, str] = {}
        self.windows: list[Window] = []
        self.schedule_enabled = False
        self.problems: list[Problem] = []
        self.unknown: list[Problem] = []
        self.retired: list[Problem] = []
        self._lines = lines

    def take(self, key: str, value: object) -> None:
        line = self._lines.get(key, 0)
        known = BY_PATH.get(key)
        if known is not None:
            try:
                self.values[known.field] = as_text(known.field, value)
            except ValueError as error:
                self.problems.append(Problem(str(error), key, line))
                if known.field == "private_only":
                    self.values[known.field] = "true"
        elif key == "config_version":
            self._version(value, line)
        elif key == SCHEDULE_ENABLED:
            if isinstance(value, bool):
                self.schedule_enabled = value
            else:
                self.problems.append(Problem("must be true or false", key, line))
        elif key == SCHEDULE_WINDOWS:
            self._take_windows(value, line)
        elif key in RETIRED or key.partition(".")[0] in RETIRED:
            self.retired.append(Problem("has no use any more; remove it", key, line))
        else:
            self.unknown.append(Problem("no such key", key, line))

    def _version(self, value: object, line: int) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            self.problems.append(Problem("must be a whole number", "config_version", line))
        elif value > CONFIG_VERSION:
            self.problems.append(
                Problem(
                    "written by a newer darkbloom; some keys may not be understood",
                    "config_version",
                    line,
                )
            )

    def _take_windows(self, value: object, line: int) -> None:
        if not isinstance(value, list):
            self.problems.append(Problem("must be a list of windows", SCHEDULE_WINDOWS, line))
            return
        for number, one in enumerate(value, start=1):
            where = self._lines.get(f"{SCHEDULE_WINDOWS}.{number}", line)
            try:
                self.windows.append(_window(one))
            except WindowError as error:
                self.problems.append(Problem(str(error), f"{SCHEDULE_WINDOWS} {number}", where))


def _window(one: object) -> Window:
    if not isinstance(one, dict) or set(one) != {"days", "start", "end"}:
        raise WindowError("needs days, start and end, and nothing else")
    return parse_window(one["days"], one["start"], one["end"])


def _broken(path: Path, problem: Problem) -> ProviderFile:
    return ProviderFile(
        path=path, exists=True, values={"private_only": "true"}, problems=(problem,)
    )


def _flat(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield (dotted key, value); a table below a known one is walked, a list is a value."""
    for name, value in document.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and key not in RETIRED:
            yield from _flat(value, f"{key}.")
        else:
            yield key, value


def _lines(text: str) -> dict[str, int]:
    """Return the line of each key; what a line scan cannot see has none."""
    found: dict[str, int] = {}
    table, windows = "", 0
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _TABLE.match(line):
            table = _dotted(header.group(1))
            if table == SCHEDULE_WINDOWS:
                windows += 1
                found[f"{SCHEDULE_WINDOWS}.{windows}"] = number
            found.setdefault(table, number)
        elif assignment := _ASSIGNMENT.match(line):
            key = _dotted(assignment.group(1))
            found.setdefault(f"{table}.{key}" if table else key, number)
    return found


def _dotted(text: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in text.split("."))


def _kind(field_name: str) -> Any:
    hint = get_type_hints(ProviderConfig, include_extras=True)[field_name]
    kind = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    options = [one for one in get_args(kind) if one is not NoneType]
    return options[0] if NoneType in get_args(kind) else kind
