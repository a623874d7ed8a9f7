"""From a chat request to a prompt: what is asked for, checked, rendered and tokenised.

Runs off the event loop: rendering and tokenising a long conversation takes its time.
"""

import dataclasses
from collections.abc import Callable
from datetime import date
from typing import Any, Final

from darkbloom_edge.request import ChatRequest

from darkbloom_provider.engine.errors import (
    EngineError,
    ErrorReason,
    FailureCode,
    capacity,
    invalid,
)
from darkbloom_provider.engine.interface import Job
from darkbloom_provider.engine.prefix.cache import Prefix
from darkbloom_provider.engine.sampling import Sampling, sampling_of
from darkbloom_provider.engine.splitter import THINK_CLOSE, THINK_OPEN, Channel, Splitter
from darkbloom_provider.engine.template import TemplateError
from darkbloom_provider.engine.tokenizer import Tokenizer

MAX_STOPS: Final = 16
MAX_STOP_CHARS: Final = 1024
_PROMPT_TAIL_CHARS: Final = 4096


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A request as the engine thread needs it; repr is redacted."""

    tokens: list[int]
    max_tokens: int
    """Most tokens to generate: the least of request, bound and context."""
    sampling: Sampling
    top_logprobs: int | None
    """Rivals to report per token; None where no log probabilities were asked for."""
    stops: tuple[str, ...]
    reasoning: bool
    tools: bool
    tools_required: bool
    start: Channel
    prefix: Prefix | None = None
    """Where the prefix cache keeps its beginning; None where it may not."""

    def __repr__(self) -> str:
        return f"Prompt(tokens={len(self.tokens)}, <redacted>)"

    def splitter(self, new_call_id: Callable[[], str]) -> Splitter:
        """Make the splitter of this request's answer."""
        return Splitter(
            stops=self.stops,
            reasoning=self.reasoning,
            tools=self.tools,
            start=self.start,
            new_call_id=new_call_id,
        )


def prepare(job: Job, tokenizer: Tokenizer, *, context: int, drawn_seed: int) -> Prompt:
    """Check, render and tokenise.

    Args:
        job: The attempt; its bounds hold.
        tokenizer: Of the build.
        context: Most tokens of prompt and completion together.
        drawn_seed: For a request without a seed.

    Raises:
        EngineError: The request cannot be honoured, does not render, or exceeds a bound.
    """
    request = job.request
    sampling = sampling_of(request, vocabulary=tokenizer.vocabulary, drawn_seed=drawn_seed)
    _check_format(request)
    tools = _tools(request, tokenizer)
    text = _render(request, tokenizer, tools)

    try:
        tokens = tokenizer.encode(text)
    except (TypeError, UnicodeError):
        # Lone surrogates; the cause would quote them.
        raise invalid("prompt is not valid unicode") from None
    if not tokens:
        raise invalid("prompt is empty")
    if len(tokens) > job.prompt_bound:
        raise EngineError(
            "prompt has more tokens than its bound",
            FailureCode.INVALID_REQUEST,
            ErrorReason.BOUND_EXCEEDED,
            400,
        )
    if len(tokens) >= context:
        raise capacity("prompt does not fit the context", ErrorReason.REQUEST_EXCEEDS_CONTEXT, 400)

    reasoning = tokenizer.has_token(THINK_OPEN) and tokenizer.has_token(THINK_CLOSE)
    return Prompt(
        tokens=tokens,
        max_tokens=max(1, min(request.max_tokens, job.output_bound, context - len(tokens))),
        sampling=sampling,
        top_logprobs=(request.top_logprobs or 0) if request.logprobs else None,
        stops=_stops(request),
        reasoning=reasoning,
        tools=bool(tools),
        tools_required=bool(tools) and request.tool_choice not in (None, "none", "auto"),
        start=_start(text) if reasoning else Channel.CONTENT,
    )


def _check_format(request: ChatRequest) -> None:
    kind = (request.response_format or {}).get("type", "text")
    if kind != "text":
        # Without constrained decoding any promise about the shape would be a guess.
        raise invalid("this engine does not offer structured output")


def _tools(request: ChatRequest, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    if not request.tools or request.tool_choice == "none":
        return []
    if tokenizer.template is None or not tokenizer.template.mentions_tools:
        raise invalid("the chat template of this build does not know tools")
    if not isinstance(request.tool_choice, dict):
        return request.tools

    # A named choice offers the model that one tool.
    function = request.tool_choice.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    chosen = [
        tool
        for tool in request.tools
        if isinstance(tool.get("function"), dict) and tool["function"].get("name") == name
    ]
    if not chosen:
        raise invalid("tool_choice names no tool of the request")
    return chosen


def _render(request: ChatRequest, tokenizer: Tokenizer, tools: list[dict[str, Any]]) -> str:
    if tokenizer.template is None:
        raise EngineError(
            "build has no chat template",
            FailureCode.TEMPLATE_RENDER,
            ErrorReason.JINJA_TEMPLATE,
            422,
        )
    variables: dict[str, Any] = dict(tokenizer.variables)
    if request.reasoning_effort is not None:
        variables["reasoning_effort"] = request.reasoning_effort
        variables["enable_thinking"] = request.reasoning_effort != "none"
    if request.prompt_date is not None:
        # The template's clock stands still at the request's date, so a retry renders the same.
        variables["strftime_now"] = _calendar(request.prompt_date)
    try:
        return tokenizer.template.render(request.messages, tools=tools, variables=variables)
    except TemplateError as error:
        raise EngineError(
            str(error), FailureCode.TEMPLATE_RENDER, ErrorReason.JINJA_TEMPLATE, 422
        ) from error


def _calendar(prompt_date: str) -> Callable[[str], str]:
    try:
        day = date.fromisoformat(prompt_date)
    except ValueError:
        raise invalid("prompt_date is not a date") from None
    return day.strftime


def _stops(request: ChatRequest) -> tuple[str, ...]:
    stops = tuple(stop for stop in request.stop or () if stop)
    if len(stops) > MAX_STOPS or any(len(stop) > MAX_STOP_CHARS for stop in stops):
        raise invalid("stop has too many or too long entries")
    return stops


def _start(text: str) -> Channel:
    tail = text[-_PROMPT_TAIL_CHARS:]
    return Channel.REASONING if tail.rstrip().endswith(THINK_OPEN) else Channel.CONTENT
