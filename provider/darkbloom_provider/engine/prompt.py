"""From a chat request to a prompt: what is asked for, checked, rendered and tokenised.

Runs off the event loop: rendering and tokenising a long conversation takes its time.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from datetime import date
from typing import Any, Final

from darkbloom_edge.chat_template.template import ChatTemplate, TemplateError
from darkbloom_edge.delta import MAX_TOOL_CALLS
from darkbloom_edge.messages import media_of
from darkbloom_edge.request import ChatRequest

from darkbloom_provider.engine.conversation import (
    format_instruction,
    with_instruction,
    with_objects,
    with_short_ids,
    with_tools_in_words,
)
from darkbloom_provider.engine.errors import (
    EngineError,
    ErrorReason,
    FailureCode,
    capacity,
    invalid,
)
from darkbloom_provider.engine.harmony import HarmonySplitter
from darkbloom_provider.engine.interface import Job
from darkbloom_provider.engine.prefix.cache import Prefix
from darkbloom_provider.engine.sampling import Sampling, sampling_of
from darkbloom_provider.engine.splitter import (
    THINK_CLOSE,
    THINK_OPEN,
    AnswerSplitter,
    Channel,
    Splitter,
)
from darkbloom_provider.engine.tokenizer import Tokenizer
from darkbloom_provider.engine.tools.reading import schemas_of
from darkbloom_provider.engine.wanted import Wanted, grammar_of, opener_tokens, wanted_of

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
    """Whether the model thinks in tags."""
    start: Channel
    wanted: Wanted
    grammar: str | None
    """What holds the answer, to be compiled; None for a free one."""
    prefix: Prefix | None = None
    """Where the prefix cache keeps its beginning; None where it may not."""

    def __repr__(self) -> str:
        return f"Prompt(tokens={len(self.tokens)}, <redacted>)"

    @property
    def tools_required(self) -> bool:
        """Whether an answer without a call is none."""
        return self.wanted.forced

    @property
    def markers(self) -> frozenset[str]:
        """Special tokens whose text the splitter must see."""
        family = self.wanted.family
        return family.markers | family.openers.keys() | {THINK_OPEN, THINK_CLOSE}

    def splitter(self, new_call_id: Callable[[], str]) -> AnswerSplitter:
        """Make the splitter of this request's answer."""
        wanted = self.wanted
        # A grammar says where its answer ends; a stop string could only cut it short.
        stops = () if wanted.constrained else self.stops
        tools = schemas_of(wanted.tools) if wanted.tools else None
        most = MAX_TOOL_CALLS if wanted.parallel else 1
        if wanted.family.channels:
            return HarmonySplitter(
                stops=stops,
                tools=tools,
                most_calls=most,
                opaque=wanted.schema is not None,
                new_call_id=new_call_id,
            )
        return Splitter(
            stops=stops,
            reasoning=self.reasoning,
            family=wanted.family,
            tools=tools,
            start=self.start,
            most_calls=most,
            opaque=wanted.schema is not None,
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
    _refuse_media(request)
    sampling = sampling_of(request, vocabulary=tokenizer.vocabulary, drawn_seed=drawn_seed)
    wanted = wanted_of(request, tokenizer)
    if request.tools and not wanted.tools:
        sampling = _without(sampling, opener_tokens(wanted.family, tokenizer))
    text = _render(request, tokenizer, wanted)

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
    start = _start(text) if reasoning else Channel.CONTENT
    opened = start is Channel.REASONING
    return Prompt(
        tokens=tokens,
        max_tokens=max(1, min(request.max_tokens, job.output_bound, context - len(tokens))),
        sampling=sampling,
        top_logprobs=(request.top_logprobs or 0) if request.logprobs else None,
        stops=_stops(request),
        reasoning=reasoning,
        start=start,
        wanted=wanted,
        grammar=grammar_of(wanted, tokenizer, reasoning=reasoning, opened=opened),
    )


def _without(sampling: Sampling, tokens: Sequence[int]) -> Sampling:
    """Make tokens impossible."""
    banned = dict.fromkeys(tokens, -math.inf)
    return dataclasses.replace(sampling, logit_bias={**sampling.logit_bias, **banned})


def _render(request: ChatRequest, tokenizer: Tokenizer, wanted: Wanted) -> str:
    template = tokenizer.template
    if template is None:
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
        return _rendered(request, template, wanted, variables)
    except TemplateError as error:
        raise EngineError(
            str(error), FailureCode.TEMPLATE_RENDER, ErrorReason.JINJA_TEMPLATE, 422
        ) from error


def _refuse_media(request: ChatRequest) -> None:
    """Refuse what this engine cannot look at; it runs the text part of every model."""
    if any(True for _ in media_of(request.messages)):
        raise invalid("this engine takes text only")


def _rendered(
    request: ChatRequest, template: ChatTemplate, wanted: Wanted, variables: dict[str, Any]
) -> str:
    if template.mentions_tools:
        messages, tools = with_objects(request.messages), wanted.tools
        if wanted.family.short_ids:
            messages = with_short_ids(messages)
    else:
        messages, tools = with_tools_in_words(request.messages, wanted.tools), ()
    instruction = "" if wanted.forced else format_instruction(request.response_format)
    told = with_instruction(messages, instruction)
    try:
        return template.render(told, tools=tools, variables=variables)
    except TemplateError:
        if not instruction:
            raise
        # Some templates know no system message.
        told = with_instruction(messages, instruction, role="user")
        return template.render(told, tools=tools, variables=variables)


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
