"""The OpenAI responses dialect: what `POST /v1/responses` takes and gives."""

from typing import final

from darkbloom_edge.dialects.chat_request import Lowered
from darkbloom_edge.dialects.dialect import Setting
from darkbloom_edge.dialects.responses_collect import ResponseCollector
from darkbloom_edge.dialects.responses_request import lower
from darkbloom_edge.dialects.responses_stream import ResponseStream

__all__ = ["RESPONSES", "Responses"]


@final
class Responses:
    """See `dialect.Dialect`; there is only one choice here."""

    def lower(self, body: bytes) -> Lowered:
        """Read a responses body."""
        return lower(body)

    def stream(self, setting: Setting, choice: int = 0) -> ResponseStream:  # noqa: ARG002 - of the protocol
        """Begin the events of a response."""
        return ResponseStream(setting)

    def collector(self, setting: Setting, choice: int = 0) -> ResponseCollector:  # noqa: ARG002 - of the protocol
        """Begin a `response`."""
        return ResponseCollector(setting)


RESPONSES = Responses()
