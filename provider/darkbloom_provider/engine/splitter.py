"""Split generated text, as it comes, into content, reasoning and tool calls, and find stop strings.

Text that may be the beginning of a marker is held back until it is known; nothing else ever waits.
Tool payloads are opaque to the other markers: their reader alone says where they end. A payload
that is not a call is given as content, word for word.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from enum import Enum, auto
from typing import Final, NamedTuple

from darkbloom_edge.delta import MAX_TOOL_CALLS, ToolCallPart

from darkbloom_provider.engine.markers import Finder
from darkbloom_provider.engine.tools.families import DEFAULT, Family
from darkbloom_provider.engine.tools.reading import CallPiece, CallReader, Reading

THINK_OPEN: Final = "<think>"
THINK_CLOSE: Final = "</think>"
_BETWEEN_BARE_CALLS: Final = " \t\r\n;"


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


class Output:
    """Collects what one push gives, and numbers the calls."""

    def __init__(self, new_call_id: Callable[[], str]) -> None:
        self.text = ""
        self.reasoning = ""
        self.calls = 0
        """Calls that were begun so far."""
        self._parts: list[ToolCallPart] = []
        self._new_call_id = new_call_id

    def call(self, piece: CallPiece) -> None:
        """Add a piece of a call; what belongs to one call is joined."""
        if piece.name:
            self.calls += 1
            self._parts.append(
                ToolCallPart(
                    index=self.calls - 1,
                    id=self._new_call_id(),
                    name=piece.name,
                    arguments=piece.arguments,
                )
            )
        elif piece.arguments and self._parts:
            last = self._parts.pop()
            self._parts.append(
                ToolCallPart(last.index, last.id, last.name, last.arguments + piece.arguments)
            )
        elif piece.arguments:
            self._parts.append(ToolCallPart(index=self.calls - 1, arguments=piece.arguments))

    def take(self) -> Pieces:
        """Give what was collected."""
        pieces = Pieces(self.text, self.reasoning, tuple(self._parts))
        self.text = self.reasoning = ""
        self._parts = []
        return pieces


class AnswerSplitter(ABC):
    """The state of one row's text."""

    def __init__(self, channel: Channel, new_call_id: Callable[[], str]) -> None:
        self._channel = channel
        self._out = Output(new_call_id)
        self.stop_sequence: str | None = None
        """The stop string that was found; nothing more may be pushed."""
        self.complete = False
        """The answer is over though the model might go on: no further call is wanted."""

    @property
    def channel(self) -> Channel:
        """Where the text goes now."""
        return self._channel

    @property
    def tool_calls(self) -> int:
        """Calls found so far."""
        return self._out.calls

    def push(self, text: str) -> Pieces:
        """Take more text and give what is certain."""
        for char in text:
            self._take(char)
            if self.stop_sequence is not None or self.complete:
                break
        return self._out.take()

    @abstractmethod
    def finish(self) -> Pieces:
        """Give what was held back: no marker came of it."""

    @abstractmethod
    def _take(self, char: str) -> None:
        """Take one character."""


class Splitter(AnswerSplitter):
    """Splits answers with think tags and tagged calls; see `AnswerSplitter`."""

    def __init__(
        self,
        *,
        stops: Sequence[str] = (),
        reasoning: bool = False,
        family: Family = DEFAULT,
        tools: Mapping[str, Mapping[str, object] | None] | None = None,
        start: Channel = Channel.CONTENT,
        most_calls: int = MAX_TOOL_CALLS,
        opaque: bool = False,
        new_call_id: Callable[[], str],
    ) -> None:
        """Begin.

        Args:
            stops: Strings that end the answer, matched in content.
            reasoning: Whether think tags mean anything.
            family: How calls are written.
            tools: What may be called, by name; None where calls mean nothing.
            start: `REASONING` when the prompt ends inside an open think tag.
            most_calls: After so many the answer is complete.
            opaque: Content has no markers once it has begun: it follows a grammar of its own.
            new_call_id: Draws an id for a tool call.
        """
        super().__init__(start, new_call_id)
        self._stops = frozenset(stops)
        self._tools = tools or {}
        self._openers = family.openers if tools is not None else {}
        self._bare = family.bare if tools is not None else None
        self._most_calls = min(most_calls, MAX_TOOL_CALLS)
        self._opaque = opaque
        think = (THINK_OPEN, THINK_CLOSE) if reasoning else ()
        self._content = Finder((*stops, *think, *self._openers))
        self._thought = Finder((THINK_CLOSE,))
        self._reader: CallReader | None = None
        self._payload = ""
        """What the reader has taken, with its opening marker, while it may still be rejected."""
        self._begun = False
        """Content that is not white space has been given."""
        self._separators = _BETWEEN_BARE_CALLS if self._bare else None
        self._between_calls = False
        self._after_call = ""
        """White space after a call, which belongs to nothing unless content follows."""

    def finish(self) -> Pieces:
        """Give what was held back: no marker came of it."""
        if self._reader is not None:
            self._read(self._reader, self._reader.finish())
        elif self._channel is Channel.REASONING:
            self._out.reasoning += self._thought.reset()
        self._give(self._content.reset())
        return self._out.take()

    def _take(self, char: str) -> None:
        if self._reader is not None:
            self._feed(self._reader, char)
        elif self._channel is Channel.REASONING:
            text, found = self._thought.feed(char)
            self._out.reasoning += text
            if found:
                self._channel = Channel.CONTENT
        elif self._bare is not None and char == "{" and not self._begun:
            self._enter(self._bare(self._tools), "")
            self._take(char)
        elif self._opaque and self._begun:
            self._give(char)
        else:
            text, found = self._content.feed(char)
            self._give(text)
            if found:
                self._switch(found)

    def _switch(self, marker: str) -> None:
        if marker in self._stops:
            self.stop_sequence = marker
        elif marker == THINK_OPEN:
            self._channel = Channel.REASONING
        elif marker in self._openers:
            self._enter(self._openers[marker](self._tools), marker)

    def _enter(self, reader: CallReader, opener: str) -> None:
        self._reader, self._payload = reader, opener
        self._channel = Channel.TOOL

    def _feed(self, reader: CallReader, char: str) -> None:
        self._payload += char
        self._read(reader, reader.feed(char))

    def _read(self, reader: CallReader, reading: Reading) -> None:
        for piece in reader.pieces:
            self._out.call(piece)
            self._payload = ""
        reader.pieces.clear()
        if reading is Reading.MORE:
            return
        self._reader, self._channel = None, Channel.CONTENT
        if reading is Reading.REJECTED:
            text, self._payload = self._payload, ""
            self._give(text)
            return
        self.complete = self._out.calls >= self._most_calls
        self._between_calls, self._after_call = True, ""
        for char in reader.rest if not self.complete else "":
            self._take(char)

    def _give(self, text: str) -> None:
        if self._between_calls and not text.strip(self._separators):
            self._after_call += text
            return
        self._between_calls = False
        self._out.text += self._after_call + text
        self._after_call = ""
        self._begun = self._begun or bool(text.strip())
