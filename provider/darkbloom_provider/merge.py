"""Two neighbouring deltas as one: text joined, counts those of the later."""

from typing import TypeVar

from darkbloom_edge.delta import Delta, ToolCallPart

Entry = TypeVar("Entry")


def merge(earlier: Delta, later: Delta) -> Delta:
    """Return one delta that says what both said, in order."""
    return Delta(
        text=earlier.text + later.text,
        reasoning=earlier.reasoning + later.reasoning,
        tool_calls=_merge_calls(earlier.tool_calls, later.tool_calls),
        prompt_tokens=later.prompt_tokens,
        completion_tokens=later.completion_tokens,
        cached_tokens=later.cached_tokens,
        reasoning_tokens=later.reasoning_tokens,
        finish_reason=later.finish_reason,
        logprobs=_merge_optional(earlier.logprobs, later.logprobs),
        stop_sequence=later.stop_sequence,
    )


def _merge_calls(
    earlier: tuple[ToolCallPart, ...], later: tuple[ToolCallPart, ...]
) -> tuple[ToolCallPart, ...]:
    if not earlier or not later or earlier[-1].index != later[0].index:
        return earlier + later
    last, first = earlier[-1], later[0]
    joined = ToolCallPart(
        index=last.index,
        id=last.id or first.id,
        name=last.name + first.name,
        arguments=last.arguments + first.arguments,
    )
    return (*earlier[:-1], joined, *later[1:])


def _merge_optional(
    earlier: tuple[Entry, ...] | None, later: tuple[Entry, ...] | None
) -> tuple[Entry, ...] | None:
    if earlier is None or later is None:
        return later if earlier is None else earlier
    return earlier + later
