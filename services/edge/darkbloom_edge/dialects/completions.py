"""The legacy completions dialect of OpenAI: `POST /v1/completions`, one prompt as one message."""

from typing import Any, final

from darkbloom_edge.dialects.chat_request import Lowered, lower_fields, parse_body
from darkbloom_edge.dialects.completions_answer import CompletionCollector, CompletionStream
from darkbloom_edge.dialects.dialect import Setting
from darkbloom_edge.errors import RequestError

__all__ = ["COMPLETIONS", "Completions"]

_TAKEN = (
    "model",
    "stream",
    "stream_options",
    "max_tokens",
    "n",
    "stop",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
    "seed",
    "logit_bias",
    "response_format",
    "reasoning_effort",
    "metadata_details",
)


@final
class Completions:
    """See `dialect.Dialect`."""

    def lower(self, body: bytes) -> Lowered:
        """Read a completion body.

        Raises:
            RequestError: as for chat, or the prompt is not one text, or it asks for what only a
                raw engine could do: `suffix`, `echo`, `best_of`, `logprobs`.
        """
        values = parse_body(body)
        _refuse(values)
        message = {"role": "user", "content": _prompt(values.get("prompt"))}
        chat = {name: values[name] for name in _TAKEN if name in values}

        return lower_fields({**chat, "messages": [message]})

    def stream(self, setting: Setting, choice: int = 0) -> CompletionStream:
        """Begin `text_completion` events."""
        return CompletionStream(setting, choice)

    def collector(self, setting: Setting, choice: int = 0) -> CompletionCollector:
        """Begin a `text_completion`."""
        return CompletionCollector(setting, choice)


COMPLETIONS = Completions()


def _prompt(prompt: Any) -> str:
    """Return the one prompt; an array of one is that one."""
    if isinstance(prompt, list):
        if len(prompt) > 1 and all(isinstance(item, str) for item in prompt):
            raise RequestError("prompt must be one text, send one request for each", "prompt")
        prompt = prompt[0] if prompt and isinstance(prompt[0], str) else None
        if prompt is None:
            raise RequestError("prompt must be a text, not tokens", "prompt")
    if prompt is None:
        raise RequestError("prompt is required", "prompt")
    if not isinstance(prompt, str) or not prompt:
        raise RequestError("prompt must be a text that is not empty", "prompt")

    return prompt


def _refuse(values: dict[str, Any]) -> None:
    """Refuse what would otherwise be answered without the effect that was asked for."""
    for name in ("suffix", "echo", "logprobs"):
        if values.get(name) not in (None, False, ""):
            raise RequestError(f"{name} is not supported here", name)
    best_of = values.get("best_of")
    if best_of is not None and best_of != (values.get("n") or 1):
        raise RequestError("best_of must be n, all answers are returned", "best_of")
