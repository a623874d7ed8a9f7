"""What a request wants of the shape of its answer: free text, JSON, or calls."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

from darkbloom_edge.errors import MalformedError
from darkbloom_edge.request import ChatRequest
from darkbloom_edge.schema import check_schema

from darkbloom_provider.engine.errors import invalid, unsupported_schema
from darkbloom_provider.engine.grammar import (
    MAX_PARALLEL_CALLS,
    Calls,
    Function,
    Thinking,
    answer_grammar,
)
from darkbloom_provider.engine.splitter import THINK_CLOSE, THINK_OPEN
from darkbloom_provider.engine.tokenizer import Tokenizer
from darkbloom_provider.engine.tools.families import DEFAULT, Family, family_of
from darkbloom_provider.engine.tools.reading import schemas_of

_ANY_OBJECT: Final[Mapping[str, Any]] = {"type": "object"}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The shape of an answer; repr is redacted."""

    family: Family
    """How calls are written, and read."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """What the model is offered; empty where calls mean nothing."""
    forced: bool = False
    """At least one call, and nothing else."""
    schema: Mapping[str, Any] | None = None
    """What the answer must be instead of free text."""
    parallel: bool = True

    def __repr__(self) -> str:
        return f"Wanted({self.family.name}, <redacted>)"

    @property
    def constrained(self) -> bool:
        """Whether a grammar holds the answer."""
        return self.forced or self.schema is not None


def wanted_of(request: ChatRequest, tokenizer: Tokenizer) -> Wanted:
    """Read tools, tool choice and response format.

    Raises:
        EngineError: A choice names no tool, a format is unknown, or a schema cannot be enforced.
    """
    knows_tools = tokenizer.template is not None and tokenizer.template.mentions_tools
    known = family_of(tokenizer.model_type, lambda name: tokenizer.marker(name) is not None)
    family = known if knows_tools or known.channels else DEFAULT
    tools = _offered(request)
    forced = bool(tools) and request.tool_choice not in (None, "none", "auto")
    schema = _schema(request.response_format)
    if forced:
        # The calls are the whole answer; the format would be that of a text that never comes.
        schema = None
    if tools and (forced or schema is not None):
        for tool in tools:
            _check(_parameters(tool))
        # A call without a marker could not be told from a value.
        if family.frame is None or (family.bare and schema is not None):
            family = DEFAULT
    parallel = request.parallel_tool_calls is not False
    return Wanted(family=family, tools=tools, forced=forced, schema=schema, parallel=parallel)


def grammar_of(
    wanted: Wanted, tokenizer: Tokenizer, *, reasoning: bool, opened: bool
) -> str | None:
    """Write the grammar of a constrained answer; None for a free one.

    Args:
        wanted: Of the request.
        tokenizer: Knows which markers are single tokens.
        reasoning: Whether the model thinks in tags.
        opened: Whether the prompt ends inside an open think tag.
    """
    if not wanted.constrained:
        return None
    thinking, lead = _before(wanted.family, reasoning=reasoning, opened=opened)
    return answer_grammar(
        schema=wanted.schema,
        calls=_calls(wanted),
        marker=tokenizer.marker,
        thinking=thinking,
        lead=lead,
    )


def _calls(wanted: Wanted) -> Calls | None:
    if not wanted.tools or wanted.family.frame is None:
        return None
    schemas = schemas_of(wanted.tools)
    functions = [Function(name, parameters) for name, parameters in schemas.items()]
    # Only the frame of the default can stand several times in one answer.
    several = wanted.parallel and len(functions) > 1 and wanted.family is DEFAULT
    return Calls(functions, wanted.family.frame, MAX_PARALLEL_CALLS if several else 1)


def _before(
    family: Family, *, reasoning: bool, opened: bool
) -> tuple[Thinking | None, tuple[str, ...]]:
    if family.channels:
        thinking = Thinking(
            before=("<|channel|>", "analysis", "<|message|>"),
            close="<|end|>",
            after=("<|start|>", "assistant"),
            opened=False,
        )
        return thinking, ("<|channel|>", "final", "<|message|>")
    if not reasoning:
        return None, ()
    return Thinking(before=(THINK_OPEN,), close=THINK_CLOSE, after=(), opened=opened), ()


def _offered(request: ChatRequest) -> tuple[Mapping[str, Any], ...]:
    if not request.tools or request.tool_choice == "none":
        return ()
    if not isinstance(request.tool_choice, dict):
        return tuple(request.tools)

    # A named choice offers the model that one tool.
    function = request.tool_choice.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    chosen = tuple(
        tool
        for tool in request.tools
        if isinstance(tool.get("function"), dict) and tool["function"].get("name") == name
    )
    if not chosen:
        raise invalid("tool_choice names no tool of the request")
    return chosen


def _schema(response_format: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    kind = (response_format or {}).get("type", "text")
    if response_format is None or kind == "text":
        return None
    if kind == "json_object":
        return _ANY_OBJECT
    described = response_format.get("json_schema")
    schema = described.get("schema") if isinstance(described, Mapping) else None
    if kind != "json_schema" or not isinstance(schema, Mapping):
        raise invalid("response_format is neither text, json_object nor json_schema")
    _check(schema)
    return schema


def _parameters(tool: Mapping[str, Any]) -> Mapping[str, Any] | None:
    function = tool.get("function")
    parameters = function.get("parameters") if isinstance(function, Mapping) else None
    return parameters if isinstance(parameters, Mapping) else None


def _check(schema: Mapping[str, Any] | None) -> None:
    try:
        check_schema(schema or {})
    except MalformedError as error:
        raise unsupported_schema(error.what) from None


def opener_tokens(family: Family, tokenizer: Tokenizer) -> Sequence[int]:
    """Give the single tokens with which a call begins, to forbid them where calls mean nothing."""
    markers = (tokenizer.marker(opener) for opener in family.openers)
    return [token for token in markers if token is not None]
