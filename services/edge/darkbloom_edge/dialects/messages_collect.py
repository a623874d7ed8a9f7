"""Messages that are not streamed: collected, then rendered once."""

from collections.abc import Mapping, Sequence
from typing import Self, final

from darkbloom_edge.delta import Delta, ToolCallPart
from darkbloom_edge.dialects.chat_answer import extras_json
from darkbloom_edge.dialects.dialect import Setting
from darkbloom_edge.dialects.messages_answer import message_head, stop_json, usage_json
from darkbloom_edge.errors import MalformedError
from darkbloom_edge.strict_json import json_text, parse_json_object
from darkbloom_edge.usage import Usage

_MAX_INPUT_BYTES = 16 * 1024 * 1024


@final
class MessageCollector:
    """Collects one answer; see `dialect.AnswerCollector`; repr shows no content."""

    __slots__ = ("_blocks", "_calls", "_last", "_setting")

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._blocks: list[_Block] = []
        self._calls: list[_Block] = []
        self._last = Delta()

    def __repr__(self) -> str:
        return "MessageCollector(<redacted>)"

    def feed(self, delta: Delta) -> None:
        """Take the next delta.

        Raises:
            MalformedError: tool calls come with gaps.
        """
        if delta.reasoning:
            self._block("thinking").parts.append(delta.reasoning)
        if delta.text:
            self._block("text").parts.append(delta.text)
        for part in delta.tool_calls:
            self._call(part).parts.append(part.arguments)
        self._last = delta

    def whole(
        self,
        usage: Usage,
        extras: Mapping[str, bytes],
        others: Sequence[Self] = (),  # noqa: ARG002 - of the protocol, there is one choice here
    ) -> bytes:
        """Render the body.

        Raises:
            MalformedError: the arguments of a tool call are no JSON object.
        """
        stop = stop_json(self._last, usage, self._setting, has_tool_calls=bool(self._calls))
        cut_short = stop.startswith(b'"stop_reason":"max_tokens"')
        content = b",".join(block.json(cut_short=cut_short) for block in self._blocks)

        return b'{%b,"content":[%b],%b,"usage":%b%b}' % (
            message_head(self._setting),
            content,
            stop,
            usage_json(usage),
            extras_json(extras),
        )

    def _block(self, kind: str) -> "_Block":
        if not self._blocks or self._blocks[-1].kind != kind:
            self._blocks.append(_Block(kind))

        return self._blocks[-1]

    def _call(self, part: ToolCallPart) -> "_Block":
        if part.index == len(self._calls):
            block = _Block("tool_use", part.id, part.name)
            self._calls.append(block)
            self._blocks.append(block)
        if part.index >= len(self._calls):
            raise MalformedError("tool call indices have gaps", "tool_calls")

        return self._calls[part.index]


@final
class _Block:
    """One block that is still coming in."""

    __slots__ = ("_id", "_name", "kind", "parts")

    def __init__(self, kind: str, id: str = "", name: str = "") -> None:  # noqa: A002 - of the answer
        self.kind = kind
        self._id = id
        self._name = name
        self.parts: list[str] = []

    def json(self, *, cut_short: bool) -> bytes:
        """Render it; arguments are passed on as they were written, so that digests hold."""
        text = "".join(self.parts)
        if self.kind == "text":
            return b'{"type":"text","text":%b}' % json_text(text)
        if self.kind == "thinking":
            return b'{"type":"thinking","thinking":%b,"signature":""}' % json_text(text)

        return b'{"type":"tool_use","id":%b,"name":%b,"input":%b}' % (
            json_text(self._id),
            json_text(self._name),
            _input(text, cut_short=cut_short),
        )


def _input(arguments: str, *, cut_short: bool) -> bytes:
    data = arguments.strip().encode()
    if not data:
        return b"{}"
    try:
        parse_json_object(data, max_bytes=_MAX_INPUT_BYTES)
    except MalformedError:
        if cut_short:
            # The reason says so, and half an object is none.
            return b"{}"
        raise

    return data
