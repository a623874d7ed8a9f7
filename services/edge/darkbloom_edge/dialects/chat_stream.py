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

KEEP_ALIVE = b": keep-alive\n\n"
"""A comment, which every reader of event streams skips."""

_END = b"}]}\n\n"
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
        index: of the choice.
    """

    __slots__ = (
        "_calls",
        "_choice",
        "_head",
        "_include_usage",
        "_opening",
        "_output_bound",
        "_text_head",
    )

    keep_alive = KEEP_ALIVE

    def __init__(
        self,
        id: str,  # noqa: A002 - the name of the field in the answer
        created: int,
        model: str,
        include_usage: bool = False,
        *,
        output_bound: int | None = None,
        index: int = 0,
    ) -> None:
        self._head = (
            b'data: {"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b,"choices":['
            % (json_text(id), created, json_text(model))
        )
        self._choice = b'{"index":%d,"delta":{' % index
        self._text_head = self._head + self._choice + b'"content":'
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

        return content + self.ending(delta, usage) + self._trailer(usage, extras)

    def ending(self, delta: Delta | None, usage: Usage | None) -> bytes:
        """Render the finish event of this choice; content of the delta is not looked at."""
        reason = finish_reason_json(
            delta.finish_reason if delta is not None else None,
            has_tool_calls=self._calls,
            usage=usage,
            output_bound=self._output_bound,
        )
        return b"".join(
            (self._head, self._choice, self._take_opening(), b'},"finish_reason":', reason, _END)
        )

    def closing(self, usage: Usage, extras: Mapping[str, bytes]) -> bytes:
        """Render usage and extras of all choices, and the end of the stream."""
        return self._trailer(usage, extras) + DONE

    def broken(self, message: str, kind: str) -> bytes:
        """Render the one event that ends a broken stream; `DONE` does not follow it."""
        return error_event(message, kind)

    def _trailer(self, usage: Usage | None, extras: Mapping[str, bytes] | None) -> bytes:
        trailing = extras_json(extras)
        if self._include_usage and usage is not None:
            trailing = b',"usage":' + usage_json(usage) + trailing

        return b"".join((self._head, b"]", trailing, b"}\n\n")) if trailing else b""

    def _take_opening(self) -> bytes:
        opening, self._opening = self._opening, b""

        return opening

    def _event(self, members: bytes, logprobs: bytes = b"") -> bytes:
        return b"".join(
            (
                self._head,
                self._choice,
                members,
                b"},",
                logprobs,
                b'"finish_reason":null}]}\n\n',
            )
        )


def error_event(message: str, type: str) -> bytes:  # noqa: A002 - the name of the field
    """Render the one event that ends a broken stream; `DONE` does not follow it."""
    return b'data: {"error":{"message":%b,"type":%b}}\n\n' % (json_text(message), json_text(type))
