"""Chat answers that are not streamed: collected, then rendered once."""

from collections.abc import Mapping, Sequence
from typing import Self, final

from darkbloom_edge.delta import MAX_TOOL_CALLS, Delta, FinishReason, ToolCallPart
from darkbloom_edge.dialects.chat_answer import (
    extras_json,
    finish_reason_json,
    token_logprob_json,
    tool_call_json,
    usage_json,
)
from darkbloom_edge.errors import MalformedError
from darkbloom_edge.strict_json import json_text
from darkbloom_edge.usage import Usage, usage_of


@final
class ChatCollector:
    """Collects the deltas of one answer and renders one `chat.completion`; repr is redacted.

    Args:
        id: the answer's id, `chatcmpl-…`.
        created: Unix time in seconds.
        model: exactly what the caller sent.
        output_bound: the bound at which the finish reason is `length`.
        index: of the choice.
    """

    __slots__ = (
        "_calls",
        "_created",
        "_finish_reason",
        "_id",
        "_index",
        "_logprobs",
        "_model",
        "_output_bound",
        "_reasoning",
        "_text",
        "usage",
    )

    def __init__(
        self,
        id: str,  # noqa: A002 - the name of the field in the answer
        created: int,
        model: str,
        *,
        output_bound: int | None = None,
        index: int = 0,
    ) -> None:
        self._id = id
        self._created = created
        self._model = model
        self._output_bound = output_bound
        self._index = index
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[_Call] = []
        self._logprobs: list[bytes] | None = None
        self._finish_reason: FinishReason | None = None
        self.usage = Usage(0, 0)
        """Counts of the last delta."""

    def feed(self, delta: Delta) -> None:
        """Take the next delta.

        Raises:
            MalformedError: tool calls come with gaps.
        """
        if delta.text:
            self._text.append(delta.text)
        if delta.reasoning:
            self._reasoning.append(delta.reasoning)
        for part in delta.tool_calls:
            if part.index == len(self._calls) < MAX_TOOL_CALLS:
                self._calls.append(_Call())
            if not 0 <= part.index < len(self._calls):
                raise MalformedError("tool call indices have gaps", "tool_calls")
            self._calls[part.index].feed(part)
        if delta.logprobs is not None:
            self._logprobs = self._logprobs or []
            self._logprobs.extend(map(token_logprob_json, delta.logprobs))
        if delta.finish_reason is not None:
            self._finish_reason = delta.finish_reason
        self.usage = usage_of(delta)

    def body(
        self,
        usage: Usage | None,
        extras: Mapping[str, bytes] | None = None,
        finish_reason: FinishReason | None = None,
    ) -> bytes:
        """Render the whole answer.

        Args:
            usage: the counts to show; none are invented where this is None.
            extras: JSON values by name, such as `receipt`, put at the top level.
            finish_reason: overrides what the last delta said.
        """
        choice = self._choice(usage, finish_reason)

        return self._enclose((choice,), usage, extras)

    def whole(
        self, usage: Usage, extras: Mapping[str, bytes], others: Sequence[Self] = ()
    ) -> bytes:
        """Render an answer of several choices, each with the finish reason of its own counts."""
        collectors: list[Self] = [self, *others]
        choices = [collector._choice(collector.usage) for collector in collectors]  # noqa: SLF001 - of this class

        return self._enclose(choices, usage, extras)

    def _choice(self, usage: Usage | None, finish_reason: FinishReason | None = None) -> bytes:
        members = [
            b'"role":"assistant","content":' + json_text("".join(self._text)) + b',"refusal":null',
        ]
        if self._reasoning:
            members.append(b'"reasoning":' + json_text("".join(self._reasoning)))
        if self._calls:
            calls = (call.whole(index) for index, call in enumerate(self._calls))
            shown = b",".join(tool_call_json(call, streamed=False) for call in calls)
            members.append(b'"tool_calls":[%b]' % shown)
        reason = finish_reason_json(
            finish_reason or self._finish_reason,
            has_tool_calls=bool(self._calls),
            usage=usage,
            output_bound=self._output_bound,
        )
        logprobs = b"null"
        if self._logprobs is not None:
            logprobs = b'{"content":[%b],"refusal":null}' % b",".join(self._logprobs)

        return b'{"index":%d,"message":{%b},"logprobs":%b,"finish_reason":%b}' % (
            self._index,
            b",".join(members),
            logprobs,
            reason,
        )

    def _enclose(
        self,
        choices: Sequence[bytes],
        usage: Usage | None,
        extras: Mapping[str, bytes] | None,
    ) -> bytes:
        return b"".join(
            (
                b'{"id":%b,"object":"chat.completion","created":%d,"model":%b,"choices":['
                % (json_text(self._id), self._created, json_text(self._model)),
                b",".join(choices),
                b"]",
                b',"usage":' + usage_json(usage) if usage is not None else b"",
                extras_json(extras),
                b"}",
            )
        )

    def __repr__(self) -> str:
        return "ChatCollector(<redacted>)"


@final
class _Call:
    """One tool call that is still coming in."""

    __slots__ = ("_arguments", "_id", "_name")

    def __init__(self) -> None:
        self._id = ""
        self._name = ""
        self._arguments: list[str] = []

    def feed(self, part: ToolCallPart) -> None:
        self._id += part.id
        self._name += part.name
        self._arguments.append(part.arguments)

    def whole(self, index: int) -> ToolCallPart:
        return ToolCallPart(index, self._id, self._name, "".join(self._arguments))
