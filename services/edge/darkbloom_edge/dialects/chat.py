"""The OpenAI chat completions dialect: what `POST /v1/chat/completions` takes and gives."""

from darkbloom_edge.dialects.chat_collect import ChatCollector
from darkbloom_edge.dialects.chat_request import MAX_BODY_BYTES, Lowered, lower, prompt_bound
from darkbloom_edge.dialects.chat_stream import DONE, ChatStream, error_event
from darkbloom_edge.usage import Usage, usage_of

__all__ = [
    "DONE",
    "MAX_BODY_BYTES",
    "ChatCollector",
    "ChatStream",
    "Lowered",
    "Usage",
    "error_event",
    "lower",
    "prompt_bound",
    "usage_of",
]
