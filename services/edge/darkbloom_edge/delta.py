"""The delta: one dialect-neutral piece of an answer, inside a chunk box (docs/wire.md §4)."""

import math
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from darkbloom_edge.errors import MalformedError

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "cancelled"]
"""Why an answer ended."""

MAX_DELTA_BYTES = 1024 * 1024 - 256
"""Largest encoded delta: with box and frame around it, it still fits one frame."""
MAX_TOOL_CALLS = 128
"""Most tool calls of one answer."""

TokenCount = Annotated[int, Meta(ge=0, le=2**32 - 1)]


class ToolCallPart(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A piece of one tool call: `id` and `name` whole in its first part, arguments as they come."""

    index: Annotated[int, Meta(ge=0, lt=MAX_TOOL_CALLS)]
    """Position of the call in the answer, from 0, without gaps."""
    id: str = ""
    """The call's id; empty in later parts."""
    name: str = ""
    """The function's name; empty in later parts."""
    arguments: str = ""
    """The next piece of the arguments' JSON text."""

    def __repr__(self) -> str:
        return f"ToolCallPart(index={self.index}, <redacted>)"


class TopLogprob(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One candidate at a position."""

    token: str
    logprob: float
    token_bytes: bytes = b""

    def __repr__(self) -> str:
        return "TopLogprob(<redacted>)"


class TokenLogprob(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Log probability of one token of the text, and of its rivals."""

    token: str
    logprob: float
    token_bytes: bytes = b""
    """The token's exact bytes; its text may hold replacement characters."""
    top: tuple[TopLogprob, ...] = ()

    def __repr__(self) -> str:
        return "TokenLogprob(<redacted>)"


class Delta(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One piece of an answer; counts are cumulative; repr is redacted."""

    text: str = ""
    """Visible text."""
    reasoning: str = ""
    """Text of the reasoning channel."""
    tool_calls: tuple[ToolCallPart, ...] = ()
    prompt_tokens: TokenCount = 0
    completion_tokens: TokenCount = 0
    """Tokens of everything generated so far, reasoning included."""
    cached_tokens: TokenCount = 0
    """Prompt tokens that came out of a cache."""
    reasoning_tokens: TokenCount = 0
    finish_reason: FinishReason | None = None
    """Set in the final delta only."""
    logprobs: tuple[TokenLogprob, ...] | None = None
    """One per token of `text`, where asked for."""
    stop_sequence: str | None = None
    """The caller's stop string that ended the answer."""
    edge_nonce: Annotated[bytes, Meta(max_length=32)] = b""
    """In the first delta of an end-to-end answer: `RequestHeader.edge_nonce`."""

    def __repr__(self) -> str:
        return (
            f"Delta(completion_tokens={self.completion_tokens}, "
            f"finish_reason={self.finish_reason!r}, <redacted>)"
        )

    @property
    def has_content(self) -> bool:
        """Whether it holds text, reasoning or a tool call, so that sending it commits."""
        return bool(self.text or self.reasoning or self.tool_calls)


_USUAL_BYTES = 512
"""Room for most deltas, so that few are moved while they are written."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Delta)
_DEFAULTS: tuple[object, ...] = ("", "", (), 0, 0, 0, 0, None, None, None, b"")


def encode(delta: Delta) -> bytearray:
    """Write a delta as a MessagePack array without its trailing defaults.

    The bytes are the caller's, who overwrites them once they are sealed.

    Raises:
        MalformedError: larger than `MAX_DELTA_BYTES`, or text with a lone surrogate.
    """
    fields = [
        delta.text,
        delta.reasoning,
        delta.tool_calls,
        delta.prompt_tokens,
        delta.completion_tokens,
        delta.cached_tokens,
        delta.reasoning_tokens,
        delta.finish_reason,
        delta.logprobs,
        delta.stop_sequence,
        delta.edge_nonce,
    ]
    while fields and fields[-1] == _DEFAULTS[len(fields) - 1]:
        fields.pop()

    data = bytearray(_USUAL_BYTES)
    try:
        _encoder.encode_into(fields, data)
    except (ValueError, OverflowError):
        raise MalformedError("delta holds text that is not valid unicode") from None
    if len(data) > MAX_DELTA_BYTES:
        data[:] = bytes(len(data))
        raise MalformedError("delta is too large")

    return data


def decode(data: bytes) -> Delta:
    """Read the delta of an opened box.

    Raises:
        MalformedError: too large, not a delta, or with impossible counts.
    """
    if len(data) > MAX_DELTA_BYTES:
        raise MalformedError("delta is too large")

    try:
        delta = _decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        # The cause may quote content.
        raise MalformedError("not a delta") from None

    if delta.cached_tokens > delta.prompt_tokens:
        raise MalformedError("more cached than prompt tokens", "cached_tokens")
    if delta.reasoning_tokens > delta.completion_tokens:
        raise MalformedError("more reasoning than completion tokens", "reasoning_tokens")
    if delta.logprobs is not None:
        _check_logprobs(delta.logprobs)

    return delta


def _check_logprobs(logprobs: tuple[TokenLogprob, ...]) -> None:
    for entry in logprobs:
        numbers = [entry.logprob, *(rival.logprob for rival in entry.top)]
        if not all(map(math.isfinite, numbers)):
            raise MalformedError("log probability is not finite", "logprobs")
