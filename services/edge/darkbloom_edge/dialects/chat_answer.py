"""Pieces that streamed and collected chat answers share, already as JSON bytes."""

from collections.abc import Mapping

from darkbloom_edge.delta import Delta, FinishReason, TokenLogprob, ToolCallPart
from darkbloom_edge.strict_json import json_text
from darkbloom_edge.usage import Usage


def finish_reason_json(
    reason: FinishReason | None,
    *,
    has_tool_calls: bool,
    usage: Usage | None,
    output_bound: int | None,
) -> bytes:
    """Return the finish reason that the caller sees, as a JSON string.

    An answer that has reached its bound ended by length, and one with calls by tool calls, whatever
    the engine says. `cancelled` is no word of this dialect; its reader is gone.
    """
    reached = usage is not None and output_bound is not None
    if reason == "content_filter":
        return b'"content_filter"'
    if reason == "length" or (
        reached and usage is not None and usage.completion_tokens >= (output_bound or 0)
    ):
        return b'"length"'
    if has_tool_calls:
        return b'"tool_calls"'

    return b'"stop"'


def usage_json(usage: Usage) -> bytes:
    """Return OpenAI's usage object."""
    return (
        b'{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d,'
        b'"prompt_tokens_details":{"cached_tokens":%d},'
        b'"completion_tokens_details":{"reasoning_tokens":%d}}'
        % (
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.prompt_tokens + usage.completion_tokens,
            usage.cached_tokens,
            usage.reasoning_tokens,
        )
    )


def extras_json(extras: Mapping[str, bytes] | None) -> bytes:
    """Return `,"name":value` for each extra; the values are JSON already."""
    if not extras:
        return b""

    return b"".join(b",%b:%b" % (json_text(name), value) for name, value in extras.items())


def tool_call_json(call: ToolCallPart, *, streamed: bool) -> bytes:
    """Return one tool call; a streamed part has its index, and id and name only once."""
    function = []
    if call.name or not streamed:
        function.append(b'"name":' + json_text(call.name))
    function.append(b'"arguments":' + json_text(call.arguments))

    members = []
    if streamed:
        members.append(b'"index":%d' % call.index)
    if call.id or call.name or not streamed:
        members.append(b'"id":' + json_text(call.id))
        members.append(b'"type":"function"')
    members.append(b'"function":{%b}' % b",".join(function))

    return b"{%b}" % b",".join(members)


def logprobs_json(delta: Delta) -> bytes:
    """Return OpenAI's logprobs object for the tokens of one delta."""
    entries = b",".join(token_logprob_json(entry) for entry in delta.logprobs or ())

    return b'{"content":[%b],"refusal":null}' % entries


def token_logprob_json(entry: TokenLogprob) -> bytes:
    """Return OpenAI's object for one token."""
    rivals = b",".join(
        b"{%b}" % _logprob_members(rival.token, rival.logprob, rival.token_bytes)
        for rival in entry.top
    )
    members = _logprob_members(entry.token, entry.logprob, entry.token_bytes)

    return b'{%b,"top_logprobs":[%b]}' % (members, rivals)


def _logprob_members(token: str, logprob: float, token_bytes: bytes) -> bytes:
    listed = ",".join(map(str, token_bytes)).encode() if token_bytes else b""
    shown = b"[%b]" % listed if token_bytes else b"null"

    return b'"token":%b,"logprob":%b,"bytes":%b' % (
        json_text(token),
        repr(float(logprob)).encode(),
        shown,
    )
