"""The legacy completions dialect of OpenAI: `POST /v1/completions`, each prompt as one message."""

from dataclasses import replace
from typing import Any, final

from darkbloom_edge.dialects.chat_request import MAX_CHOICES, Lowered, lower_fields, parse_body
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
            RequestError: as for chat, or a prompt is no text, or there are too many of them, or it
                asks for what only a raw engine could do: `suffix`, `echo`, `best_of`, `logprobs`.
        """
        values = parse_body(body)
        _refuse(values)
        prompts = _prompts(values.get("prompt"))
        chat = {name: values[name] for name in _TAKEN if name in values}
        first, *others = (
            lower_fields({**chat, "messages": [{"role": "user", "content": prompt}]})
            for prompt in prompts
        )
        if first.n * len(prompts) > MAX_CHOICES:
            raise RequestError(f"prompt and n ask for more than {MAX_CHOICES} answers", "prompt")

        return replace(first, others=tuple(others))

    def stream(self, setting: Setting, choice: int = 0) -> CompletionStream:
        """Begin `text_completion` events."""
        return CompletionStream(setting, choice)

    def collector(self, setting: Setting, choice: int = 0) -> CompletionCollector:
        """Begin a `text_completion`."""
        return CompletionCollector(setting, choice)


COMPLETIONS = Completions()


def _prompts(given: Any) -> list[str]:
    """Return the prompts: one text, or several, each with answers of its own."""
    if given is None:
        raise RequestError("prompt is required", "prompt")
    prompts = given if isinstance(given, list) else [given]
    if not prompts or any(not isinstance(prompt, str) for prompt in prompts):
        raise RequestError("prompt must be a text or an array of texts, not tokens", "prompt")
    if not all(prompts):
        raise RequestError("prompt must be a text that is not empty", "prompt")
    if len(prompts) > MAX_CHOICES:
        raise RequestError(f"prompt has more than {MAX_CHOICES} texts", "prompt")

    return prompts


def _refuse(values: dict[str, Any]) -> None:
    """Refuse what would otherwise be answered without the effect that was asked for."""
    for name in ("suffix", "echo", "logprobs"):
        if values.get(name) not in (None, False, ""):
            raise RequestError(f"{name} is not supported here", name)
    best_of = values.get("best_of")
    if best_of is not None and best_of != (values.get("n") or 1):
        raise RequestError("best_of must be n, all answers are returned", "best_of")
