"""Which way of calling tools a model speaks, by its `model_type`, and how its calls are forced."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from darkbloom_provider.engine.grammar import Frame
from darkbloom_provider.engine.tools.gemma_calls import gemma_calls
from darkbloom_provider.engine.tools.held import HeldCall, HeldPayload, Parse
from darkbloom_provider.engine.tools.json_calls import HeaderCall, JsonPayload
from darkbloom_provider.engine.tools.json_value import WHITESPACE
from darkbloom_provider.engine.tools.pythonic import pythonic_calls
from darkbloom_provider.engine.tools.reading import CallPiece, CallReader, Reading, Schemas
from darkbloom_provider.engine.tools.xml_calls import FUNCTION_CLOSE, glm_call, qwen_call

TOOL_OPEN: Final = "<tool_call>"
TOOL_CLOSE: Final = "</tool_call>"

MakeReader = Callable[[Schemas], CallReader]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One way of writing calls."""

    name: str
    openers: Mapping[str, MakeReader] = dataclasses.field(default_factory=dict)
    """Each marker that begins a call, and who reads what follows it."""
    bare: MakeReader | None = None
    """Reads an object with which the answer begins, where calls need no marker."""
    frame: Frame | None = None
    """How a forced call is written; None where calls are no JSON: the default is forced then."""
    channels: bool = False
    """The whole answer is in harmony's channels."""
    short_ids: bool = False
    """Its templates take only ids of nine letters and digits."""
    markers: frozenset[str] = frozenset()
    """Special tokens, beside the openers, whose text must be seen."""


class _ByFirst:
    """Reads an object if the payload begins like one; lets another reader read anything else."""

    def __init__(self, otherwise: CallReader) -> None:
        self.pieces: list[CallPiece] = []
        self.rest = ""
        self._inner: CallReader | None = None
        self._otherwise = otherwise

    def feed(self, char: str) -> Reading:
        if self._inner is None:
            if char in WHITESPACE:
                return Reading.MORE
            self._inner = JsonPayload(TOOL_CLOSE) if char == "{" else self._otherwise
        return self._told(self._inner, self._inner.feed(char))

    def finish(self) -> Reading:
        if self._inner is None:
            return Reading.REJECTED
        return self._told(self._inner, self._inner.finish())

    def _told(self, inner: CallReader, reading: Reading) -> Reading:
        self.pieces += inner.pieces
        inner.pieces.clear()
        self.rest = inner.rest
        return reading


def _json(_schemas: Schemas) -> CallReader:
    return JsonPayload(TOOL_CLOSE)


def _qwen(schemas: Schemas) -> CallReader:
    parse: Parse = partial(qwen_call, schemas=schemas)
    return _ByFirst(HeldPayload(TOOL_CLOSE, parse, inner=FUNCTION_CLOSE))


def _glm(schemas: Schemas) -> CallReader:
    parse: Parse = partial(glm_call, schemas=schemas)
    return _ByFirst(HeldPayload(TOOL_CLOSE, parse))


def _bare_object(schemas: Schemas) -> CallReader:
    return JsonPayload("", known=frozenset(schemas))


def _held(close: str, parse: Callable[[str], list[HeldCall]]) -> MakeReader:
    def make(_schemas: Schemas) -> CallReader:
        return HeldPayload(close, parse)

    return make


DEFAULT: Final = Family(
    name="default",
    openers={TOOL_OPEN: _json},
    frame=Frame(
        before=(TOOL_OPEN, '\n{"name": "'),
        between=('", "arguments": ',),
        after=("}\n", TOOL_CLOSE),
    ),
    markers=frozenset({TOOL_CLOSE}),
)
QWEN_XML: Final = Family(name="qwen", openers={TOOL_OPEN: _qwen}, markers=frozenset({TOOL_CLOSE}))
GLM: Final = Family(name="glm4", openers={TOOL_OPEN: _glm}, markers=frozenset({TOOL_CLOSE}))
NEMOTRON: Final = Family(
    name="nemotron",
    openers={
        "<TOOLCALL>": lambda _schemas: JsonPayload("</TOOLCALL>", many=True),
        TOOL_OPEN: _qwen,
    },
    markers=frozenset({"</TOOLCALL>", TOOL_CLOSE}),
)
LLAMA3: Final = Family(
    name="llama3",
    openers={"<|python_tag|>": _bare_object},
    bare=_bare_object,
    frame=Frame(before=('{"name": "',), between=('", "parameters": ',), after=("}",)),
)
MISTRAL: Final = Family(
    name="mistral",
    openers={"[TOOL_CALLS]": lambda _schemas: HeaderCall()},
    frame=Frame(
        before=("[TOOL_CALLS]", '[{"name": "'), between=('", "arguments": ',), after=("}]",)
    ),
    short_ids=True,
    markers=frozenset({"[ARGS]", "[CALL_ID]"}),
)
MISTRAL_HEADERS: Final = dataclasses.replace(
    MISTRAL, frame=Frame(before=("[TOOL_CALLS]",), between=("[ARGS]",), after=())
)
GEMMA: Final = Family(
    name="gemma",
    openers={
        "<start_function_call>": _held(
            "<end_function_call>", partial(gemma_calls, quote="<escape>")
        ),
        "<|tool_call>": _held("<tool_call|>", partial(gemma_calls, quote='<|"|>')),
    },
    markers=frozenset({"<end_function_call>", "<escape>", "<tool_call|>", '<|"|>'}),
)
LFM2: Final = Family(
    name="lfm2",
    openers={"<|tool_call_start|>": _held("<|tool_call_end|>", pythonic_calls)},
    markers=frozenset({"<|tool_call_end|>"}),
)
HARMONY: Final = Family(
    name="harmony",
    frame=Frame(
        before=("<|channel|>", "commentary to=functions."),
        between=(" ", "<|constrain|>", "json", "<|message|>"),
        after=(),
    ),
    channels=True,
    markers=frozenset(
        {"<|start|>", "<|channel|>", "<|constrain|>", "<|message|>", "<|end|>", "<|call|>"}
    ),
)

_BY_PREFIX: Final = (
    ("gpt_oss", HARMONY),
    ("gemma", GEMMA),
    ("functiongemma", GEMMA),
    ("qwen3_5", QWEN_XML),
    ("qwen3_next", QWEN_XML),
    ("nemotron", NEMOTRON),
    ("lfm2", LFM2),
    ("glm4", GLM),
    ("mistral3", MISTRAL),
    ("mistral", MISTRAL),
    ("ministral", MISTRAL),
)
_LLAMA3_SIGN: Final = "<|python_tag|>"
"""A llama with this token is of the third generation; others speak as they were tuned."""


def family_of(model_type: str, has_marker: Callable[[str], bool]) -> Family:
    """Choose the family of a model.

    Args:
        model_type: From `config.json`.
        has_marker: Whether the vocabulary has this marker as a token of its own.
    """
    if model_type == "llama" and has_marker(_LLAMA3_SIGN):
        return LLAMA3
    for prefix, family in _BY_PREFIX:
        if not model_type.startswith(prefix):
            continue
        if family is MISTRAL and has_marker("[ARGS]"):
            return MISTRAL_HEADERS
        return family
    return DEFAULT
