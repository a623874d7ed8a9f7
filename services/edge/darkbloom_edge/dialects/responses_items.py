"""Output items of a response while they come in, and the response around them."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, final

import orjson

from darkbloom_edge.delta import Delta, ToolCallPart
from darkbloom_edge.dialects.chat_answer import extras_json, token_logprob_json
from darkbloom_edge.dialects.dialect import Setting
from darkbloom_edge.errors import MalformedError
from darkbloom_edge.strict_json import json_text
from darkbloom_edge.usage import Usage

Kind = Literal["reasoning", "message", "function_call"]
Status = Literal["completed", "incomplete"]

_PREFIX: Mapping[Kind, str] = {"reasoning": "rs_", "message": "msg_", "function_call": "fc_"}
_REPEATED: Mapping[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "reasoning": {"effort": None, "summary": None},
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
}
"""What a response repeats of its request, and what it says where that was silent."""
_RENAMED: Mapping[str, str] = {"metadata": "metadata_details"}


@final
class Item:
    """One output item; `parts` is its text or its arguments; repr shows no content."""

    __slots__ = ("call", "id", "index", "kind", "logprobs", "name", "parts")

    def __init__(self, kind: Kind, index: int, job: str, part: ToolCallPart | None = None) -> None:
        self.kind: Kind = kind
        self.index = index
        self.id = json_text(f"{_PREFIX[kind]}{job}_{index}")
        self.parts: list[str] = []
        self.logprobs: list[bytes] = []
        self.call = json_text(part.id or f"call_{job}_{index}") if part is not None else b""
        self.name = json_text(part.name) if part is not None else b""

    def __repr__(self) -> str:
        return f"Item({self.kind!r}, <redacted>)"

    @property
    def text(self) -> bytes:
        """Everything so far as a JSON string."""
        return json_text("".join(self.parts))

    def content(self) -> bytes:
        """Render the one part of a message or of a reasoning's summary."""
        if self.kind == "reasoning":
            return b'{"type":"summary_text","text":%b}' % self.text
        return b'{"type":"output_text","text":%b,"annotations":[],"logprobs":[%b]}' % (
            self.text,
            b",".join(self.logprobs),
        )

    def begun(self) -> bytes:
        """Render it as it begins."""
        return self._json(b"in_progress", b"", b'""')

    def ended(self, status: Status) -> bytes:
        """Render it as it ended."""
        content = b"" if self.kind == "function_call" else self.content()
        return self._json(status.encode(), content, self.text)

    def _json(self, status: bytes, content: bytes, arguments: bytes) -> bytes:
        head = b'{"id":%b,"type":"%b","status":"%b",' % (self.id, self.kind.encode(), status)
        if self.kind == "reasoning":
            return head + b'"summary":[%b]}' % content
        if self.kind == "message":
            return head + b'"role":"assistant","content":[%b]}' % content

        return head + b'"call_id":%b,"name":%b,"arguments":%b}' % (self.call, self.name, arguments)


@final
class Items:
    """The output of one response, in the order in which its items began."""

    __slots__ = ("_calls", "_job", "all")

    def __init__(self, job: str) -> None:
        self._job = job
        self._calls: list[Item] = []
        self.all: list[Item] = []

    def text(self, kind: Kind, text: str) -> Item:
        """Add text to the item of that kind, a new one unless it is the last; returns it."""
        if not self.all or self.all[-1].kind != kind:
            self.all.append(Item(kind, len(self.all), self._job))
        item = self.all[-1]
        item.parts.append(text)

        return item

    def call(self, part: ToolCallPart) -> Item:
        """Add a piece of a function call.

        Raises:
            MalformedError: indices have gaps.
        """
        if part.index == len(self._calls):
            item = Item("function_call", len(self.all), self._job, part)
            self._calls.append(item)
            self.all.append(item)
        if part.index >= len(self._calls):
            raise MalformedError("tool call indices have gaps", "tool_calls")
        item = self._calls[part.index]
        item.parts.append(part.arguments)

        return item

    def feed(self, delta: Delta) -> None:
        """Take a whole delta; errors as `call`."""
        if delta.reasoning:
            self.text("reasoning", delta.reasoning)
        if delta.text:
            item = self.text("message", delta.text)
            item.logprobs += map(token_logprob_json, delta.logprobs or ())
        for part in delta.tool_calls:
            self.call(part)

    def or_empty(self) -> Sequence[Item]:
        """Return all items; an answer that says nothing still has one empty message."""
        if not self.all:
            self.text("message", "")
        return self.all


def status_of(delta: Delta, usage: Usage, output_bound: int | None) -> tuple[Status, bytes]:
    """Return how a response ended, and its `incomplete_details`."""
    if delta.finish_reason == "content_filter":
        return "incomplete", b'{"reason":"content_filter"}'
    reached = output_bound is not None and usage.completion_tokens >= output_bound
    if delta.finish_reason == "length" or reached:
        return "incomplete", b'{"reason":"max_output_tokens"}'

    return "completed", b"null"


def response_json(
    setting: Setting,
    *,
    status: bytes = b"in_progress",
    incomplete: bytes = b"null",
    output: bytes = b"",
    usage: Usage | None = None,
    extras: Mapping[str, bytes] | None = None,
) -> bytes:
    """Render the response object; nullable members are there as null."""
    repeated = {name: setting.echo.get(name, value) for name, value in _REPEATED.items()}

    return b"".join(
        (
            b'{"id":%b,"object":"response","created_at":%d,"status":"%b","background":false,'
            % (json_text("resp_" + setting.job), setting.created, status),
            b'"error":null,"incomplete_details":%b,"model":%b,"output":[%b],'
            % (incomplete, json_text(setting.model), output),
            b'"previous_response_id":null,"store":false,"truncation":"disabled","usage":%b,'
            % (usage_json(usage) if usage is not None else b"null"),
            orjson.dumps(repeated)[1:-1],
            extras_json(_renamed(extras)),
            b"}",
        )
    )


def _renamed(extras: Mapping[str, bytes] | None) -> Mapping[str, bytes]:
    """Return the extras with ours beside the caller's own `metadata`, which is repeated."""
    return {_RENAMED.get(name, name): value for name, value in (extras or {}).items()}


def usage_json(usage: Usage) -> bytes:
    """Return the usage object of responses."""
    return (
        b'{"input_tokens":%d,"input_tokens_details":{"cached_tokens":%d,"cache_write_tokens":0},'
        b'"output_tokens":%d,'
        b'"output_tokens_details":{"reasoning_tokens":%d},"total_tokens":%d}'
        % (
            usage.prompt_tokens,
            usage.cached_tokens,
            usage.completion_tokens,
            usage.reasoning_tokens,
            usage.prompt_tokens + usage.completion_tokens,
        )
    )
