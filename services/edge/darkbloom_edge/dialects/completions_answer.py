"""Legacy completions, streamed and whole."""

from collections.abc import Mapping, Sequence
from typing import Self, final

from darkbloom_edge.delta import Delta, FinishReason
from darkbloom_edge.dialects.chat_answer import extras_json, finish_reason_json, usage_json
from darkbloom_edge.dialects.chat_stream import DONE, KEEP_ALIVE, error_event
from darkbloom_edge.dialects.dialect import Setting
from darkbloom_edge.strict_json import json_text
from darkbloom_edge.usage import Usage, usage_of

_PLAIN_END = b',"logprobs":null,"finish_reason":null}]}\n\n'


@final
class CompletionStream:
    """Renders one choice; see `dialect.AnswerStream`."""

    __slots__ = ("_head", "_include_usage", "_output_bound", "_text_head")

    keep_alive = KEEP_ALIVE

    def __init__(self, setting: Setting, index: int = 0) -> None:
        self._head = b"data: " + _head(setting)
        self._text_head = self._head + b'{"index":%d,"text":' % index
        self._include_usage = setting.include_usage
        self._output_bound = setting.output_bound

    def chunk(self, delta: Delta) -> bytes:
        """Render text; reasoning, which this dialect does not know, beside it."""
        if not delta.text and not delta.reasoning:
            return b""
        shown = json_text(delta.text)
        if delta.reasoning:
            shown += b',"reasoning":' + json_text(delta.reasoning)

        return self._text_head + shown + _PLAIN_END

    def ending(self, delta: Delta, usage: Usage) -> bytes:
        """Render the finish event of this choice."""
        reason = finish_reason_json(
            delta.finish_reason,
            has_tool_calls=False,
            usage=usage,
            output_bound=self._output_bound,
        )

        return self._text_head + b'"","logprobs":null,"finish_reason":%b}]}\n\n' % reason

    def closing(self, usage: Usage, extras: Mapping[str, bytes]) -> bytes:
        """Render usage, where it was asked for, and extras of all choices, and the end."""
        trailing = extras_json(extras)
        if self._include_usage:
            trailing = b',"usage":' + usage_json(usage) + trailing

        return b"".join((self._head, b"]", trailing, b"}\n\n", DONE)) if trailing else DONE

    def broken(self, message: str, kind: str) -> bytes:
        """Render the one event that ends a broken stream; `DONE` does not follow it."""
        return error_event(message, kind)


@final
class CompletionCollector:
    """Collects one choice; see `dialect.AnswerCollector`; repr shows no content."""

    __slots__ = ("_finish_reason", "_index", "_reasoning", "_setting", "_text", "_usage")

    def __init__(self, setting: Setting, index: int = 0) -> None:
        self._setting = setting
        self._index = index
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._finish_reason: FinishReason | None = None
        self._usage = Usage(0, 0)

    def __repr__(self) -> str:
        return "CompletionCollector(<redacted>)"

    def feed(self, delta: Delta) -> None:
        """Take the next delta."""
        self._text.append(delta.text)
        self._reasoning.append(delta.reasoning)
        self._finish_reason = delta.finish_reason or self._finish_reason
        self._usage = usage_of(delta)

    def whole(
        self, usage: Usage, extras: Mapping[str, bytes], others: Sequence[Self] = ()
    ) -> bytes:
        """Render the body."""
        collectors: list[Self] = [self, *others]
        choices = b",".join(collector._choice() for collector in collectors)  # noqa: SLF001 - of this class

        return b"".join(
            (
                _head(self._setting),
                choices,
                b'],"usage":',
                usage_json(usage),
                extras_json(extras),
                b"}",
            )
        )

    def _choice(self) -> bytes:
        reason = finish_reason_json(
            self._finish_reason,
            has_tool_calls=False,
            usage=self._usage,
            output_bound=self._setting.output_bound,
        )
        reasoning = "".join(self._reasoning)
        shown = b',"reasoning":' + json_text(reasoning) if reasoning else b""

        return b'{"index":%d,"text":%b%b,"logprobs":null,"finish_reason":%b}' % (
            self._index,
            json_text("".join(self._text)),
            shown,
            reason,
        )


def _head(setting: Setting) -> bytes:
    return b'{"id":%b,"object":"text_completion","created":%d,"model":%b,"choices":[' % (
        json_text("cmpl-" + setting.job),
        setting.created,
        json_text(setting.model),
    )
