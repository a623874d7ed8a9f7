"""Responses that are not streamed: collected, then rendered once."""

from collections.abc import Mapping, Sequence
from typing import Self, final

from darkbloom_edge.delta import Delta
from darkbloom_edge.dialects.dialect import Setting
from darkbloom_edge.dialects.responses_items import Items, response_json, status_of
from darkbloom_edge.usage import Usage


@final
class ResponseCollector:
    """Collects one answer; see `dialect.AnswerCollector`; repr shows no content."""

    __slots__ = ("_items", "_last", "_setting")

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._items = Items(setting.job)
        self._last = Delta()

    def __repr__(self) -> str:
        return "ResponseCollector(<redacted>)"

    def feed(self, delta: Delta) -> None:
        """Take the next delta.

        Raises:
            MalformedError: tool calls come with gaps.
        """
        self._items.feed(delta)
        self._last = delta

    def whole(
        self,
        usage: Usage,
        extras: Mapping[str, bytes],
        others: Sequence[Self] = (),  # noqa: ARG002 - of the protocol, there is one choice here
    ) -> bytes:
        """Render the body."""
        status, incomplete = status_of(self._last, usage, self._setting.output_bound)
        output = b",".join(item.ended(status) for item in self._items.or_empty())

        return response_json(
            self._setting,
            status=status.encode(),
            incomplete=incomplete,
            output=output,
            usage=usage,
            extras=extras,
        )
