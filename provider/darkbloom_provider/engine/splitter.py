"""Split generated text, as it comes, into content, reasoning and tool calls, and find stop strings.

Text that may be the beginning of a marker is held back until it is known; nothing else ever waits.
Tool payloads are opaque to the other markers. A payload that is not a call is given as content,
word for word: arguments are never repaired or invented.
"""

import json
from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Any, Final, NamedTuple

from darkbloom_edge.delta import MAX_TOOL_CALLS, ToolCallPart

THINK_OPEN: Final = "<think>"
THINK_CLOSE: Final = "</think>"
TOOL_OPEN: Final = "<tool_call>"
TOOL_CLOSE: Final = "</tool_call>"


class Channel(Enum):
    """Where the next text belongs."""

    CONTENT = auto()
    REASONING = auto()
    TOOL = auto()


class Pieces(NamedTuple):
    """What became certain."""

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCallPart, ...] = ()


class Splitter:
    """The state of one row's text.

    After `stop_sequence` is set the row is over and nothing more may be pushed.
    """

    def __init__(
        self,
        *,
        stops: Sequence[str] = (),
        reasoning: bool = False,
        tools: bool = False,
        start: Channel = Channel.CONTENT,
        new_call_id: Callable[[], str],
    ) -> None:
        """Begin.

        Args:
            stops: Strings that end the answer, matched in content.
            reasoning: Whether think tags mean anything.
            tools: Whether tool tags mean anything.
            start: `REASONING` when the prompt ends inside an open think tag.
            new_call_id: Draws an id for a tool call.
        """
        content = [*stops]
        content += [THINK_OPEN, THINK_CLOSE] if reasoning else []
        content += [TOOL_OPEN] if tools else []
        self._stops = frozenset(stops)
        self._matchers = {
            Channel.CONTENT: [_Matcher(marker) for marker in content],
            Channel.REASONING: [_Matcher(THINK_CLOSE)],
            Channel.TOOL: [_Matcher(TOOL_CLOSE)],
        }
        self._channel = start
        self._held = ""
        self._payload = ""
        self._calls = 0
        self._new_call_id = new_call_id
        self.stop_sequence: str | None = None

    @property
    def channel(self) -> Channel:
        """Where the text goes now."""
        return self._channel

    @property
    def tool_calls(self) -> int:
        """Calls found so far."""
        return self._calls

    def push(self, text: str) -> Pieces:
        """Take more text and give what is certain."""
        out = _Output()
        for char in text:
            self._held += char
            marker = self._advance(char)
            if marker is None:
                continue
            self._give(out, self._held[: -len(marker)])
            self._held = ""
            self._switch(out, marker)
            if self.stop_sequence is not None:
                return out.pieces()

        pending = max((matcher.matched for matcher in self._active), default=0)
        certain = len(self._held) - pending
        self._give(out, self._held[:certain])
        self._held = self._held[certain:]
        return out.pieces()

    def finish(self) -> Pieces:
        """Give what was held back: no marker came of it."""
        out = _Output()
        self._give(out, self._held)
        self._held = ""
        if self._channel is Channel.TOOL:
            out.text += TOOL_OPEN + self._payload
        return out.pieces()

    @property
    def _active(self) -> list["_Matcher"]:
        return self._matchers[self._channel]

    def _advance(self, char: str) -> str | None:
        found = None
        for matcher in self._active:
            if matcher.feed(char) and (found is None or len(matcher.marker) > len(found)):
                found = matcher.marker
        return found

    def _give(self, out: "_Output", text: str) -> None:
        if self._channel is Channel.CONTENT:
            out.text += text
        elif self._channel is Channel.REASONING:
            out.reasoning += text
        else:
            self._payload += text

    def _switch(self, out: "_Output", marker: str) -> None:
        for matcher in self._active:
            matcher.reset()
        if self._channel is Channel.TOOL:
            self._end_call(out)
            self._channel = Channel.CONTENT
        elif marker in self._stops and self._channel is Channel.CONTENT:
            self.stop_sequence = marker
        elif marker == THINK_OPEN:
            self._channel = Channel.REASONING
        elif marker == TOOL_OPEN:
            self._channel = Channel.TOOL
            self._payload = ""
        else:
            self._channel = Channel.CONTENT

    def _end_call(self, out: "_Output") -> None:
        call = _parse_call(self._payload)
        if call is None or self._calls >= MAX_TOOL_CALLS:
            out.text += TOOL_OPEN + self._payload + TOOL_CLOSE
            return
        name, arguments = call
        out.tool_calls.append(
            ToolCallPart(index=self._calls, id=self._new_call_id(), name=name, arguments=arguments)
        )
        self._calls += 1


class _Output:
    """Collects what one push gives."""

    def __init__(self) -> None:
        self.text = ""
        self.reasoning = ""
        self.tool_calls: list[ToolCallPart] = []

    def pieces(self) -> Pieces:
        return Pieces(self.text, self.reasoning, tuple(self.tool_calls))


class _Matcher:
    """Finds one marker in a stream of characters (Knuth-Morris-Pratt)."""

    def __init__(self, marker: str) -> None:
        self.marker = marker
        self.matched = 0
        """How many characters of the marker the text ends with."""
        self._fallback = [0] * len(marker)
        length = 0
        for index in range(1, len(marker)):
            while length and marker[index] != marker[length]:
                length = self._fallback[length - 1]
            length += marker[index] == marker[length]
            self._fallback[index] = length

    def feed(self, char: str) -> bool:
        """Take one character; tell whether the marker is complete."""
        while self.matched and self.marker[self.matched] != char:
            self.matched = self._fallback[self.matched - 1]
        if self.marker[self.matched] == char:
            self.matched += 1
        return self.matched == len(self.marker)

    def reset(self) -> None:
        self.matched = 0


def _parse_call(payload: str) -> tuple[str, str] | None:
    """Read `{"name": …, "arguments": …}`; give name and arguments as JSON text."""
    try:
        call: Any = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    if not isinstance(call, dict):
        return None
    name, arguments = call.get("name"), call.get("arguments", call.get("parameters", {}))
    if not isinstance(name, str) or not name:
        return None
    if isinstance(arguments, str):
        return name, arguments
    return name, json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))
