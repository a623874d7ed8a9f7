"""The canonical request: the one language inside the box (docs/wire.md §4)."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from darkbloom_edge.documents import Date
from darkbloom_edge.errors import MalformedError
from darkbloom_edge.media import bound_tokens
from darkbloom_edge.messages import check_messages, media_of, texts_of
from darkbloom_edge.strict_json import canonical_json, parse_json_object

MAX_REQUEST_BYTES = 24 * 1024 * 1024
"""Largest canonical request that is read."""

PROMPT_BASE_TOKENS = 128
"""What a chat template may add once: default system text, date, markers."""
PROMPT_MESSAGE_TOKENS = 16
"""What a chat template may add per message: role, start and end markers."""
PROMPT_TOOLS_TOKENS = 512
"""What a chat template may add when there are tools: its instructions how to call them."""

_FLOATS = (
    "temperature",
    "top_p",
    "min_p",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
)

PositiveInt = Annotated[int, Meta(ge=1, le=2**53 - 1)]


class ChatRequest(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """One chat request as the engine gets it; absent fields are left out, repr is redacted."""

    model: Annotated[str, Meta(min_length=1, max_length=256)]
    """The build id."""
    messages: list[dict[str, Any]]
    """Turns with `role` and `content`, text or parts; shape as `messages.check_messages` says."""
    max_tokens: PositiveInt
    """The output bound in tokens."""
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    stop: list[str] | None = None
    """Strings that end the answer and are not part of it."""
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    logit_bias: dict[str, float] | None = None
    """Token id in decimal to bias."""
    tools: list[dict[str, Any]] | None = None
    """Function tools in OpenAI's shape."""
    tool_choice: str | dict[str, Any] | None = None
    """`none`, `auto`, `required`, or `{"type":"function","function":{"name":…}}`."""
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    """`json_object` or `json_schema` in OpenAI's shape."""
    reasoning_effort: str | None = None
    """`none`, `minimal`, `low`, `medium`, `high`, `xhigh` or `max`."""
    prompt_date: Date | None = None
    """UTC date for the template, set once so that a retry renders the same prompt."""

    def __repr__(self) -> str:
        return f"ChatRequest(model={self.model!r}, <redacted>)"


def canonical_bytes(request: ChatRequest) -> bytes:
    """Write the canonical bytes: sorted keys, compact, UTF-8, absent fields left out.

    Raises:
        MalformedError: the request holds text or numbers that JSON cannot carry.
    """
    fields: dict[str, Any] = msgspec.to_builtins(request)
    # An `int` is a legal Python `float`, but 1 and 1.0 are different bytes.
    for name in _FLOATS:
        if name in fields:
            fields[name] = _finite(fields[name], name)
    if "logit_bias" in fields:
        bias = fields["logit_bias"]
        fields["logit_bias"] = {key: _finite(value, "logit_bias") for key, value in bias.items()}

    return canonical_json(fields)


def parse_canonical(data: bytes | bytearray, max_bytes: int = MAX_REQUEST_BYTES) -> ChatRequest:
    """Read a canonical request out of an opened box.

    Raises:
        MalformedError: not JSON, unknown or wrong fields, or not in canonical form.
    """
    fields = parse_json_object(data, max_bytes=max_bytes)
    try:
        request = msgspec.convert(fields, ChatRequest)
    except (msgspec.ValidationError, RecursionError):
        # The cause may quote a value.
        raise MalformedError("not a chat request") from None

    check_messages(request.messages)
    # Two spellings of one request would have two digests.
    if canonical_bytes(request) != data:
        raise MalformedError("chat request is not in canonical form")

    return request


def prompt_bound_of(
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None,
    response_format: Mapping[str, Any] | None,
) -> int:
    """Bound the prompt's tokens from above, for tokenizers that work on bytes.

    Such a tokenizer never makes more tokens than there are UTF-8 bytes. To the bytes of the text
    comes what a chat template adds: `PROMPT_BASE_TOKENS` once, `PROMPT_MESSAGE_TOKENS` per message,
    for each image and video what `media.bound_tokens` says, and for tools their instructions plus
    twice their JSON, because templates print it spaced out.
    """
    bound = PROMPT_BASE_TOKENS
    for message in messages:
        bound += PROMPT_MESSAGE_TOKENS + _text_bytes(message)
    bound += sum(map(bound_tokens, media_of(messages)))
    if tools:
        bound += PROMPT_TOOLS_TOKENS + 2 * len(canonical_json(tools))
    if response_format:
        bound += 2 * len(canonical_json(response_format))

    return bound


def _text_bytes(message: Mapping[str, Any]) -> int:
    rest = {key: value for key, value in message.items() if key not in ("content", "role")}
    size = sum(len(text.encode()) for text in texts_of(message))

    return size + len(canonical_json(rest)) if rest else size


def _finite(value: float, field: str) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise MalformedError("number is not finite", field)

    return number
