"""Streamed responses: numbered events, spliced from bytes."""

from collections.abc import Mapping
from typing import final

from darkbloom_edge.delta import Delta, ToolCallPart
from darkbloom_edge.dialects.chat_answer import token_logprob_json
from darkbloom_edge.dialects.chat_stream import KEEP_ALIVE
from darkbloom_edge.dialects.dialect import Setting
from darkbloom_edge.dialects.responses_items import (
    Item,
    Items,
    Kind,
    Status,
    response_json,
    status_of,
)
from darkbloom_edge.strict_json import json_text
from darkbloom_edge.usage import Usage


@final
class ResponseStream:
    """Renders one answer; see `dialect.AnswerStream`; repr shows no content.

    Its last events repeat everything, so unlike the other dialects it keeps what it renders. Texts
    end when something else begins; calls, which may be written side by side, when the answer ends.
    """

    __slots__ = ("_begun", "_items", "_last", "_open", "_sequence", "_setting", "_status")

    keep_alive = KEEP_ALIVE

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._items = Items(setting.job)
        self._open: list[Item] = []
        self._begun = False
        self._sequence = -1
        self._last = Delta()
        self._status: Status = "completed"

    def __repr__(self) -> str:
        return "ResponseStream(<redacted>)"

    def chunk(self, delta: Delta) -> bytes:
        """Render the content of one delta; the first one begins the response.

        Raises:
            MalformedError: text that is not valid Unicode, or tool calls with gaps.
        """
        if not delta.has_content:
            return b""

        parts = self._begin()
        if delta.reasoning:
            parts += self._text("reasoning", delta.reasoning)
        if delta.text:
            shown = [token_logprob_json(entry) for entry in delta.logprobs or ()]
            parts += self._text("message", delta.text, shown)
        for part in delta.tool_calls:
            parts += self._call(part)

        return b"".join(parts)

    def ending(self, delta: Delta, usage: Usage) -> bytes:
        """Render the ends of all items that are open."""
        self._last = delta
        self._status, _ = status_of(delta, usage, self._setting.output_bound)
        parts = self._begin()
        if not self._items.all:
            parts += self._text("message", "")
        while self._open:
            parts += self._end(self._open[0])

        return b"".join(parts)

    def closing(self, usage: Usage, extras: Mapping[str, bytes]) -> bytes:
        """Render the one event that repeats everything."""
        status, incomplete = status_of(self._last, usage, self._setting.output_bound)
        output = b",".join(item.ended(status) for item in self._items.all)
        response = response_json(
            self._setting,
            status=status.encode(),
            incomplete=incomplete,
            output=output,
            usage=usage,
            extras=extras,
        )

        return self._event(b"response." + status.encode(), b'"response":' + response)

    def broken(self, message: str, kind: str) -> bytes:
        """Render the one event that ends a broken stream."""
        return self._event(
            b"error", b'"code":%b,"message":%b,"param":null' % (json_text(kind), json_text(message))
        )

    def _begin(self) -> list[bytes]:
        if self._begun:
            return []
        self._begun = True
        response = b'"response":' + response_json(self._setting)

        return [
            self._event(b"response.created", response),
            self._event(b"response.in_progress", response),
        ]

    def _text(self, kind: Kind, text: str, logprobs: list[bytes] | None = None) -> list[bytes]:
        known = len(self._items.all)
        item = self._items.text(kind, text)
        parts = self._start(item) if len(self._items.all) > known else []
        if kind == "reasoning":
            name, place = b"response.reasoning_summary_text.delta", b"summary_index"
            more = b""
        else:
            item.logprobs += logprobs or []
            name, place = b"response.output_text.delta", b"content_index"
            more = b',"logprobs":[%b]' % b",".join(logprobs or ())
        if text:
            body = b'%b,"%b":0,"delta":%b%b' % (_place(item), place, json_text(text), more)
            parts.append(self._event(name, body))

        return parts

    def _call(self, part: ToolCallPart) -> list[bytes]:
        known = len(self._items.all)
        item = self._items.call(part)
        parts = self._start(item) if len(self._items.all) > known else []
        if part.arguments:
            body = b'%b,"delta":%b' % (_place(item), json_text(part.arguments))
            parts.append(self._event(b"response.function_call_arguments.delta", body))

        return parts

    def _start(self, item: Item) -> list[bytes]:
        parts: list[bytes] = []
        for other in [other for other in self._open if other.kind != "function_call"]:
            parts += self._end(other)
        self._open.append(item)
        added = b'"output_index":%d,"item":%b' % (item.index, item.begun())
        parts.append(self._event(b"response.output_item.added", added))
        if item.kind == "reasoning":
            empty = b'{"type":"summary_text","text":""}'
            body = b'%b,"summary_index":0,"part":%b' % (_place(item), empty)
            parts.append(self._event(b"response.reasoning_summary_part.added", body))
        elif item.kind == "message":
            empty = b'{"type":"output_text","text":"","annotations":[],"logprobs":[]}'
            body = b'%b,"content_index":0,"part":%b' % (_place(item), empty)
            parts.append(self._event(b"response.content_part.added", body))

        return parts

    def _end(self, item: Item) -> list[bytes]:
        self._open.remove(item)
        place, text = _place(item), item.text
        parts = []
        if item.kind == "function_call":
            body = b'%b,"name":%b,"arguments":%b' % (place, item.name, text)
            parts.append(self._event(b"response.function_call_arguments.done", body))
        elif item.kind == "reasoning":
            body = b'%b,"summary_index":0,"text":%b' % (place, text)
            parts.append(self._event(b"response.reasoning_summary_text.done", body))
            body = b'%b,"summary_index":0,"part":%b' % (place, item.content())
            parts.append(self._event(b"response.reasoning_summary_part.done", body))
        else:
            logprobs = b",".join(item.logprobs)
            body = b'%b,"content_index":0,"text":%b,"logprobs":[%b]' % (place, text, logprobs)
            parts.append(self._event(b"response.output_text.done", body))
            body = b'%b,"content_index":0,"part":%b' % (place, item.content())
            parts.append(self._event(b"response.content_part.done", body))
        done = b'"output_index":%d,"item":%b' % (item.index, item.ended(self._status))
        parts.append(self._event(b"response.output_item.done", done))

        return parts

    def _event(self, name: bytes, body: bytes) -> bytes:
        self._sequence += 1

        return b'event: %b\ndata: {"type":"%b","sequence_number":%d,%b}\n\n' % (
            name,
            name,
            self._sequence,
            body,
        )


def _place(item: Item) -> bytes:
    return b'"item_id":%b,"output_index":%d' % (item.id, item.index)
