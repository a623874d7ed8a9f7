"""Streamed messages: Anthropic's events, spliced from bytes."""

from collections.abc import Mapping
from typing import final

from darkbloom_edge.delta import Delta, ToolCallPart
from darkbloom_edge.dialects.chat_answer import extras_json
from darkbloom_edge.dialects.dialect import Setting
from darkbloom_edge.dialects.messages_answer import message_head, stop_json, usage_json
from darkbloom_edge.errors import MalformedError
from darkbloom_edge.strict_json import json_text
from darkbloom_edge.usage import Usage, usage_of

PING = b'event: ping\ndata: {"type":"ping"}\n\n'
"""What Anthropic's clients skip."""

_KINDS = {
    "text": b'{"type":"text","text":""}',
    "thinking": b'{"type":"thinking","thinking":"","signature":""}',
}
_TEXT_END = b"}}\n\n"


@final
class MessageStream:
    """Renders one answer; see `dialect.AnswerStream`.

    Blocks are numbered as they begin, and one ends when another begins. Nothing of them is kept.
    """

    __slots__ = ("_begun", "_blocks", "_calls", "_open", "_setting", "_stop", "_text_head")

    keep_alive = PING

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._begun = False
        self._blocks = 0
        self._open = ""
        """Kind of the block that is open, or empty."""
        self._calls: dict[int, int] = {}
        """Block of each tool call."""
        self._text_head = b""
        self._stop = b""

    def chunk(self, delta: Delta) -> bytes:
        """Render the content of one delta; the first one begins the message.

        Raises:
            MalformedError: text that is not valid Unicode, or tool calls with gaps.
        """
        if delta.text and self._open == "text" and not delta.reasoning and not delta.tool_calls:
            return self._text_head + json_text(delta.text) + _TEXT_END
        if not delta.has_content:
            return b""

        parts = [] if self._begun else [self._begin(delta)]
        if delta.reasoning:
            parts += self._piece("thinking", "thinking_delta", delta.reasoning)
        if delta.text:
            parts += self._piece("text", "text_delta", delta.text)
        for part in delta.tool_calls:
            parts += self._call(part)

        return b"".join(parts)

    def ending(self, delta: Delta, usage: Usage) -> bytes:
        """Render the end of the last block."""
        self._stop = stop_json(delta, usage, self._setting, has_tool_calls=bool(self._calls))
        begin = b"" if self._begun else self._begin(delta)

        return begin + b"".join(self._close())

    def closing(self, usage: Usage, extras: Mapping[str, bytes]) -> bytes:
        """Render why it ended, with usage and extras, and `message_stop`."""
        return (
            b'event: message_delta\ndata: {"type":"message_delta","delta":{%b},"usage":%b%b}\n\n'
            b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
        ) % (self._stop, usage_json(usage), extras_json(extras))

    def broken(self, message: str, kind: str) -> bytes:
        """Render the one event that ends a broken stream; `message_stop` does not follow it."""
        shown = b"overloaded_error" if kind == "timeout" else b"api_error"

        return (b'event: error\ndata: {"type":"error","error":{"type":"%b","message":%b}}\n\n') % (
            shown,
            json_text(message),
        )

    def _begin(self, delta: Delta) -> bytes:
        self._begun = True

        return (
            b'event: message_start\ndata: {"type":"message_start","message":{%b,"content":[],'
            b'"stop_reason":null,"stop_sequence":null,"usage":%b}}\n\n'
        ) % (message_head(self._setting), usage_json(usage_of(delta)))

    def _piece(self, kind: str, name: str, text: str) -> list[bytes]:
        parts = []
        if self._open != kind:
            parts += self._close()
            parts.append(self._start(kind, _KINDS[kind]))
            self._text_head = _delta_head(self._blocks - 1) + (
                b'{"type":"%b","%b":' % (name.encode(), kind.encode())
            )
        parts.append(self._text_head + json_text(text) + _TEXT_END)

        return parts

    def _call(self, part: ToolCallPart) -> list[bytes]:
        parts: list[bytes] = []
        if part.index not in self._calls:
            if part.index != len(self._calls):
                raise MalformedError("tool call indices have gaps", "tool_calls")
            parts += self._close()
            self._calls[part.index] = self._blocks
            opening = b'{"type":"tool_use","id":%b,"name":%b,"input":{}}'
            parts.append(
                self._start("tool_use", opening % (json_text(part.id), json_text(part.name)))
            )
        if part.arguments:
            head = _delta_head(self._calls[part.index])
            parts.append(
                head
                + b'{"type":"input_json_delta","partial_json":'
                + json_text(part.arguments)
                + _TEXT_END
            )

        return parts

    def _start(self, kind: str, block: bytes) -> bytes:
        self._open = kind
        self._blocks += 1

        return (
            b'event: content_block_start\ndata: {"type":"content_block_start","index":%d,'
            b'"content_block":%b}\n\n'
        ) % (self._blocks - 1, block)

    def _close(self) -> list[bytes]:
        if not self._open:
            return []
        self._open = ""

        return [
            b'event: content_block_stop\ndata: {"type":"content_block_stop","index":%d}\n\n'
            % (self._blocks - 1)
        ]


def _delta_head(block: int) -> bytes:
    return (
        b"event: content_block_delta\n"
        b'data: {"type":"content_block_delta","index":%d,"delta":' % block
    )
