"""Split answers that are written in harmony's channels, as gpt-oss does.

    <|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final<|message|>…

Analysis is reasoning, a message to `functions.name` is a call whose text is its arguments, and
everything else is content. See `splitter.AnswerSplitter` for the promises.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from enum import Enum, auto
from typing import Final

from darkbloom_edge.delta import MAX_TOOL_CALLS

from darkbloom_provider.engine.markers import Finder
from darkbloom_provider.engine.splitter import AnswerSplitter, Channel, Pieces
from darkbloom_provider.engine.tools.reading import CallPiece

START: Final = "<|start|>"
CHANNEL: Final = "<|channel|>"
CONSTRAIN: Final = "<|constrain|>"
MESSAGE: Final = "<|message|>"
_ENDS: Final = ("<|end|>", "<|call|>", "<|return|>")
_MARKERS: Final = (START, CHANNEL, CONSTRAIN, MESSAGE, *_ENDS)
_RECIPIENT: Final = re.compile(r"\bto=functions\.([A-Za-z0-9_.-]+)")
_MAX_HEADER_CHARS: Final = 1024


class _Part(Enum):
    ROLE = auto()
    """Before a channel is named."""
    HEADER = auto()
    BODY = auto()


class HarmonySplitter(AnswerSplitter):
    """Splits answers with channels; see `splitter.AnswerSplitter`."""

    def __init__(
        self,
        *,
        stops: Sequence[str] = (),
        tools: Mapping[str, Mapping[str, object] | None] | None = None,
        most_calls: int = MAX_TOOL_CALLS,
        opaque: bool = False,
        new_call_id: Callable[[], str],
    ) -> None:
        """Begin where the prompt has said who speaks.

        Args:
            stops: Strings that end the answer, matched in content.
            tools: What may be called, by name; None where calls mean nothing.
            most_calls: After so many the answer is complete.
            opaque: Content has no markers once it has begun: it follows a grammar of its own.
            new_call_id: Draws an id for a tool call.
        """
        super().__init__(Channel.REASONING, new_call_id)
        self._stops = frozenset(stops)
        self._tools = tools
        self._most_calls = min(most_calls, MAX_TOOL_CALLS)
        self._opaque = opaque
        self._marks = Finder(_MARKERS)
        self._content = Finder((*_MARKERS, *stops))
        self._part = _Part.ROLE
        self._header = ""
        self._first = True
        """Nothing has named a channel yet: an answer without channels is content."""

    def finish(self) -> Pieces:
        """Give what was held back."""
        if self._part is _Part.BODY:
            self._give(self._finder.reset())
        return self._out.take()

    @property
    def _finder(self) -> Finder:
        in_content = self._part is _Part.BODY and self._channel is Channel.CONTENT
        return self._content if in_content else self._marks

    def _take(self, char: str) -> None:
        if self._opaque and self._part is _Part.BODY and self._channel is Channel.CONTENT:
            self._give(char)
            return
        text, found = self._finder.feed(char)
        if self._part is _Part.BODY:
            self._give(text)
        else:
            self._header = (self._header + text)[-_MAX_HEADER_CHARS:]
            self._perhaps_no_channels()
        if found in self._stops:
            self.stop_sequence = found
        elif found:
            self._switch(found)

    def _perhaps_no_channels(self) -> None:
        said = self._header.strip()
        if self._first and self._part is _Part.ROLE and not "to=".startswith(said[:3]):
            self._part, self._channel = _Part.BODY, Channel.CONTENT
            self._give(self._header)

    def _switch(self, marker: str) -> None:
        if marker in (START, *_ENDS):
            self._end_body()
            self._part, self._header = _Part.ROLE, ""
            self._channel = Channel.REASONING
        elif marker == CHANNEL:
            self._end_body()
            self._header = f"{self._header} " if self._part is _Part.ROLE else ""
            self._part = _Part.HEADER
        elif marker == MESSAGE:
            self._begin_body()
        self._first = False

    def _begin_body(self) -> None:
        self._part = _Part.BODY
        recipient = _RECIPIENT.search(self._header)
        if recipient is not None and self._tools is not None:
            self._channel = Channel.TOOL
            self._out.call(CallPiece(recipient.group(1)))
        elif "analysis" in self._header.split():
            self._channel = Channel.REASONING
        else:
            self._channel = Channel.CONTENT
        self._header = ""

    def _end_body(self) -> None:
        if self._part is _Part.BODY and self._channel is Channel.TOOL:
            self.complete = self._out.calls >= self._most_calls

    def _give(self, text: str) -> None:
        if self._channel is Channel.TOOL:
            self._out.call(CallPiece(arguments=text))
        elif self._channel is Channel.REASONING:
            self._out.reasoning += text
        else:
            self._out.text += text
