"""The OpenAI chat completions dialect: what `POST /v1/chat/completions` takes and gives."""

from typing import final

from darkbloom_edge.dialects.chat_collect import ChatCollector
from darkbloom_edge.dialects.chat_request import MAX_BODY_BYTES, Lowered, lower, prompt_bound
from darkbloom_edge.dialects.chat_stream import DONE, ChatStream, error_event
from darkbloom_edge.dialects.dialect import Setting
from darkbloom_edge.usage import Usage, usage_of

__all__ = [
    "CHAT",
    "DONE",
    "MAX_BODY_BYTES",
    "Chat",
    "ChatCollector",
    "ChatStream",
    "Lowered",
    "Usage",
    "error_event",
    "lower",
    "prompt_bound",
    "usage_of",
]


@final
class Chat:
    """See `dialect.Dialect`."""

    def lower(self, body: bytes) -> Lowered:
        """Read a chat completion body."""
        return lower(body)

    def stream(self, setting: Setting, choice: int = 0) -> ChatStream:
        """Begin `chat.completion.chunk` events."""
        return ChatStream(
            "chatcmpl-" + setting.job,
            setting.created,
            setting.model,
            setting.include_usage,
            output_bound=setting.output_bound,
            index=choice,
        )

    def collector(self, setting: Setting, choice: int = 0) -> ChatCollector:
        """Begin a `chat.completion`."""
        return ChatCollector(
            "chatcmpl-" + setting.job,
            setting.created,
            setting.model,
            output_bound=setting.output_bound,
            index=choice,
        )


CHAT = Chat()
