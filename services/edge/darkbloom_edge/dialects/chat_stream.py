"""Streamed chat answers: server-sent events, spliced from bytes."""

from collections.abc import Mapping
from typing import final

from darkbloom_edge.delta import Delta
from darkbloom_edge.dialects.chat_answer import (
    extras_json,
    finish_reason_json,
    logprobs_json,
    tool_call_json,
    usage_json,
)
from darkbloom_edge.strict_json import json_text
from darkbloom_edge.usage import Usage

DONE = b"data: [DONE]\n\n"
"""The end of every stream that ended well, written exactly once, by the gateway."""

_PLAIN_END = b'},"finish_reason":null}]}\n\n'


@final
class ChatStream:
    """Renders one answer as `chat.completion.chunk` events; nothing is parsed or kept.

    Args:
        id: the answer's id, `chatcmpl-…`.
        created: Unix time in seconds.
        model: exactly what the caller sent.
        include_usage: whether the caller asked for the usage event.
        output_bound: the bound at which the finish reason is `length`.
    """

    __slots__ = ("_calls", "_head", "_include_usage", "_opening", "_output_bound", "_text_head")

    def __init__(
        self,
        id: str,  # noqa: A002 - the name of the field in the answer
        created: int,
        model: str,
        include_usage: bool = False,
        *,
        output_bound: int | None = None,
    ) -> None:
        self._head = (
            b'data: {"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b,"choices":['
            % (json_text(id), created, json_text(model))
        )
        self._text_head = self._head + b'{"index":0,"delta":{"content":'
        self._include_usage = include_usage
        self._output_bound = output_bound
        self._opening = b'"role":"assistant"'
        self._calls = False

    def first(self, delta: Delta) -> bytes:
        """Render the first event: it carries the role, also where the delta has no content."""
        return self.chunk(delta) or self._event(self._take_opening() + b',"content":""')

    def chunk(self, delta: Delta) -> bytes:
        """Render the content of one delta as one event.

        The first event carries the role. A delta without content gives no bytes; its finish reason
        and counts are for `finish`.

        Raises:
            MalformedError: text that is not valid Unicode.
        """
        if (
            delta.text
            and not self._opening
            and not delta.reasoning
            and not delta.tool_calls
            and delta.logprobs is None
        ):
            return self._text_head + json_text(delta.text) + _PLAIN_END
        if not delta.has_content:
            return b""

        members = [self._take_opening()] if self._opening else []
        if delta.reasoning:
            members.append(b'"reasoning":' + json_text(delta.reasoning))
        if delta.text:
            members.append(b'"content":' + json_text(delta.text))
        if delta.tool_calls:
            self._calls = True
            calls = b",".join(tool_call_json(call, streamed=True) for call in delta.tool_calls)
            members.append(b'"tool_calls":[%b]' % calls)
        logprobs = b'"logprobs":%b,' % logprobs_json(delta) if delta.logprobs is not None else b""

        return self._event(b",".join(members), logprobs)

    def finish(
        self, delta: Delta | None, usage: Usage | None, extras: Mapping[str, bytes] | None = None
    ) -> bytes:
        """Render the end: content of the final delta, finish event, usage event, extras.

        Args:
            delta: the final delta, for its content and finish reason.
            usage: the counts to show; none are invented where this is None.
            extras: JSON values by name, such as `receipt`. They ride on the usage event, or else on
                one event of their own.

        Returns:
            Whole events, everything but `DONE`.
        """
        content = self.chunk(delta) if delta is not None else b""
        reason = finish_reason_json(
            delta.finish_reason if delta is not None else None,
            has_tool_calls=self._calls,
            usage=usage,
            output_bound=self._output_bound,
        )
        opening = self._take_opening()
        parts = [
            content,
            self._head,
            b'{"index":0,"delta":{%b},"finish_reason":%b}]}\n\n' % (opening, reason),
        ]

        trailing = extras_json(extras)
        if self._include_usage and usage is not None:
            trailing = b',"usage":' + usage_json(usage) + trailing
        if trailing:
            parts += [self._head, b"]", trailing, b"}\n\n"]

        return b"".join(parts)

    def _take_opening(self) -> bytes:
        opening, self._opening = self._opening, b""

        return opening

    def _event(self, members: bytes, logprobs: bytes = b"") -> bytes:
        return b"".join(
            (
                self._head,
                b'{"index":0,"delta":{',
                members,
                b"},",
                logprobs,
                b'"finish_reason":null}]}\n\n',
            )
        )


def error_event(message: str, type: str) -> bytes:  # noqa: A002 - the name of the field
    """Render the one event that ends a broken stream; `DONE` does not follow it."""
    return b'data: {"error":{"message":%b,"type":%b}}\n\n' % (json_text(message), json_text(type))
