"""The Anthropic messages dialect: what `POST /v1/messages` takes and gives."""

from typing import final

from darkbloom_edge.dialects.chat_request import Lowered
from darkbloom_edge.dialects.dialect import Setting
from darkbloom_edge.dialects.messages_collect import MessageCollector
from darkbloom_edge.dialects.messages_request import lower
from darkbloom_edge.dialects.messages_stream import MessageStream

__all__ = ["MESSAGES", "Messages"]


@final
class Messages:
    """See `dialect.Dialect`; there is only one choice here."""

    def lower(self, body: bytes) -> Lowered:
        """Read a messages body."""
        return lower(body)

    def stream(self, setting: Setting, choice: int = 0) -> MessageStream:  # noqa: ARG002 - of the protocol
        """Begin Anthropic's events."""
        return MessageStream(setting)

    def collector(self, setting: Setting, choice: int = 0) -> MessageCollector:  # noqa: ARG002 - of the protocol
        """Begin a `message`."""
        return MessageCollector(setting)


MESSAGES = Messages()
