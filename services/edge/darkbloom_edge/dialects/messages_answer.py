"""Pieces that streamed and collected messages share, already as JSON bytes."""

from collections.abc import Mapping
from typing import Any

from darkbloom_edge.delta import Delta
from darkbloom_edge.dialects.dialect import Setting
from darkbloom_edge.strict_json import json_text
from darkbloom_edge.usage import Usage


def message_head(setting: Setting) -> bytes:
    """Return the members of a message before its content."""
    return b'"id":%b,"type":"message","role":"assistant","model":%b' % (
        json_text("msg_" + setting.job),
        json_text(setting.model),
    )


def usage_json(usage: Usage) -> bytes:
    """Return Anthropic's usage object; what came from a cache is no part of `input_tokens`."""
    return (
        b'{"input_tokens":%d,"cache_creation_input_tokens":0,"cache_read_input_tokens":%d,'
        b'"output_tokens":%d}'
        % (
            usage.prompt_tokens - usage.cached_tokens,
            usage.cached_tokens,
            usage.completion_tokens,
        )
    )


def stop_json(delta: Delta, usage: Usage, setting: Setting, *, has_tool_calls: bool) -> bytes:
    """Return `stop_reason` and `stop_sequence` as members.

    A stop sequence is named only where the caller supplied it.
    """
    sequence = delta.stop_sequence if delta.stop_sequence in _supplied(setting.echo) else None
    reached = setting.output_bound is not None and usage.completion_tokens >= setting.output_bound
    if delta.finish_reason == "content_filter":
        reason, sequence = b'"refusal"', None
    elif delta.finish_reason == "length" or reached:
        reason, sequence = b'"max_tokens"', None
    elif has_tool_calls:
        reason, sequence = b'"tool_use"', None
    else:
        reason = b'"stop_sequence"' if sequence is not None else b'"end_turn"'
    shown = json_text(sequence) if sequence is not None else b"null"

    return b'"stop_reason":%b,"stop_sequence":%b' % (reason, shown)


def _supplied(echo: Mapping[str, Any]) -> Any:
    return echo.get("stop_sequences", ())
