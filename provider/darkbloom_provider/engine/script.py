"""The script of the scripted engine: what to answer, how fast, and how to fail.

A script is a JSON object; every field is optional:

| Field | Default | Meaning |
|---|---|---|
| `text` | words | the answer; `null`: `tokens` deterministic words |
| `tokens` | 16 | length of the answer in tokens, where `text` is not set |
| `delta_tokens` | 1 | tokens in one delta |
| `interval_s` | 0 | beat on which deltas come, one step for all rows; 0: as fast as the loop goes |
| `first_delay_s` | 0 | time before the first delta |
| `load_s` | 0 | time that a load takes; of the engine's own script |
| `prompt_tokens` | counted | claimed prompt tokens |
| `inflate_tokens` | 0 | claimed completion tokens beyond the true ones (a lying provider) |
| `reasoning` | "" | text of the reasoning channel, before the answer |
| `tool_calls` | [] | `[{"name": …, "arguments": {…}}]`, after the text |
| `json` | null | a value; the answer is its compact JSON |
| `describe` | false | the answer says what media came: kind, size in pixels, bytes |
| `only` | "" | the engine's own script is for this build alone; others play the default |
| `refuse` | "" | an error reason; `submit` refuses with it |
| `fail_before_content` | false | ends with an error and no delta |
| `fail_after_deltas` | null | ends with an error after so many deltas |
| `stall_after_deltas` | null | after so many deltas nothing comes until it is cancelled |

A token is a word with the space before it, in prompts and in answers alike, so counts are exact and
need no tokenizer; an image or a video is as many tokens as routing takes it for. `max_tokens` and
the output bound cut the answer with `length`; stop strings end it. A user message that begins with
`/script {…}` overrides the engine's script for that request.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final

import msgspec
from darkbloom_edge.delta import Delta, ToolCallPart
from darkbloom_edge.media import decode, estimate_tokens
from darkbloom_edge.messages import media_of, texts_of
from darkbloom_edge.request import ChatRequest
from msgspec import Meta
from msgspec.structs import replace

from darkbloom_provider.engine.errors import ErrorReason, invalid

DIRECTIVE: Final = "/script "
MAX_TOKENS: Final = 1_000_000
_WORDS: Final = (
    "the",
    "quiet",
    "mesh",
    "carries",
    "sealed",
    "words",
    "between",
    "strangers",
    "and",
    "every",
    "promise",
    "can",
    "be",
    "tested",
)
_TOKEN: Final = re.compile(r"\s*\S+|\s+$")

_Count = Annotated[int, Meta(ge=0, le=MAX_TOKENS)]
_Seconds = Annotated[float, Meta(ge=0, le=3600)]


class ScriptedCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tool call to make."""

    name: Annotated[str, Meta(min_length=1, max_length=256)]
    arguments: dict[str, Any] = {}

    def __repr__(self) -> str:
        return "ScriptedCall(<redacted>)"


class Script(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the scripted engine does; the module's table explains each field."""

    text: str | None = None
    tokens: _Count = 16
    delta_tokens: Annotated[int, Meta(ge=1, le=MAX_TOKENS)] = 1
    interval_s: _Seconds = 0.0
    first_delay_s: _Seconds = 0.0
    load_s: _Seconds = 0.0
    prompt_tokens: _Count | None = None
    inflate_tokens: _Count = 0
    reasoning: str = ""
    tool_calls: Annotated[tuple[ScriptedCall, ...], Meta(max_length=128)] = ()
    json: Any = None
    describe: bool = False
    only: str = ""
    refuse: ErrorReason | None = None
    fail_before_content: bool = False
    fail_after_deltas: _Count | None = None
    stall_after_deltas: _Count | None = None

    def __repr__(self) -> str:
        return "Script(<redacted>)"


def parse_script(text: str) -> Script:
    """Read a script; the empty text is the default one.

    Raises:
        EngineError: Not JSON, or a field is unknown or out of range.
    """
    if not text.strip():
        return Script()
    try:
        return msgspec.json.decode(text, type=Script)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        # The cause may quote the text, which may come out of a prompt.
        raise invalid("script is not valid") from None


def own_script(script: Script, build_id: str) -> Script:
    """Give what the engine's own script says about a build."""
    return script if script.only in ("", build_id) else Script()


def script_of(request: ChatRequest, default: Script) -> Script:
    """Give the script of a request: its last user message's directive, or the default.

    Raises:
        EngineError: The directive is not a valid script.
    """
    for message in reversed(request.messages):
        if message.get("role") != "user":
            continue
        content = next(texts_of(message), "")
        if not content.startswith(DIRECTIVE):
            return default
        script = parse_script(content.removeprefix(DIRECTIVE))
        return replace(script, text=described(request)) if script.describe else script
    return default


def described(request: ChatRequest) -> str:
    """Say what media a request has, as they arrived here."""
    return ", ".join(
        f"{part['media_type']} {part.get('width', 0)}x{part.get('height', 0)} "
        f"{len(decode(part['data']))} bytes"
        for part in media_of(request.messages)
    )


def count_tokens(texts: Sequence[str]) -> int:
    """Count the words of texts; at least one."""
    return max(1, sum(len(_TOKEN.findall(text)) for text in texts))


def prompt_tokens_of(request: ChatRequest, script: Script) -> int:
    """Give the prompt tokens that the script claims."""
    if script.prompt_tokens is not None:
        return script.prompt_tokens
    texts = [text for message in request.messages for text in texts_of(message)]
    return count_tokens(texts) + sum(map(estimate_tokens, media_of(request.messages)))


def answer_tokens(script: Script) -> Iterator[tuple[str, bool]]:
    """Give the answer a token at a time: its text and whether it is reasoning."""
    for token in _TOKEN.findall(script.reasoning):
        yield token, True
    if script.json is not None:
        for token in _TOKEN.findall(msgspec.json.encode(script.json).decode()):
            yield token, False
        return
    if script.text is not None:
        for token in _TOKEN.findall(script.text):
            yield token, False
        return
    for index in range(script.tokens):
        word = _WORDS[index % len(_WORDS)]
        yield (word if index == 0 else f" {word}"), False


def call_parts(script: Script) -> tuple[ToolCallPart, ...]:
    """Give the tool calls, each as one part."""
    return tuple(
        ToolCallPart(
            index=index,
            id=f"call_{index:024x}",
            name=call.name,
            arguments=msgspec.json.encode(call.arguments).decode(),
        )
        for index, call in enumerate(script.tool_calls)
    )


def answer_deltas(script: Script, *, prompt_tokens: int, limit: int) -> Iterator[Delta]:
    """Give the answer's deltas, at most `limit` tokens; tool calls count one token each."""
    made = reasoned = 0
    text, reasoning, waiting = "", "", 0

    def delta(calls: tuple[ToolCallPart, ...] = ()) -> Delta:
        return Delta(
            text=text,
            reasoning=reasoning,
            tool_calls=calls,
            prompt_tokens=prompt_tokens,
            completion_tokens=made + script.inflate_tokens,
            reasoning_tokens=reasoned,
        )

    for token, is_reasoning in answer_tokens(script):
        if made >= limit:
            break
        made += 1
        waiting += 1
        if is_reasoning:
            reasoned += 1
            reasoning += token
        else:
            text += token
        if waiting == script.delta_tokens:
            yield delta()
            text, reasoning, waiting = "", "", 0
    if waiting:
        yield delta()
        text, reasoning = "", ""
    for part in call_parts(script):
        if made >= limit:
            break
        made += 1
        yield delta((part,))
