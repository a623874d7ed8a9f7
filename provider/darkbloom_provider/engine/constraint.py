"""The adapter to llguidance, and the only module that imports it: grammars to token masks.

Compiling is bounded by the library's own fuel, measured in work and not in seconds, so the same
grammar is accepted or refused on every machine. Its messages may quote a schema and never leave
this module.
"""

import hashlib
from collections import OrderedDict
from typing import Final

import llguidance

from darkbloom_provider.engine.errors import EngineError, invalid, unsupported_schema
from darkbloom_provider.engine.tokenizer import Tokenizer

MAX_GRAMMARS: Final = 32
"""Compiled grammars that are kept, of one tokenizer."""
MAX_GRAMMAR_CHARS: Final = 1 << 20
_SILENT: Final = 0


class GrammarConstraint:
    """A matcher that follows one row; see `batch.Constraint`."""

    def __init__(self, matcher: llguidance.LLMatcher, end_tokens: frozenset[int]) -> None:
        self._matcher = matcher
        self._end_tokens = end_tokens
        self._taken = 0
        self._broken = False

    @property
    def broken(self) -> bool:
        """Whether the matcher lost the row: over its limits, or fed what it had forbidden."""
        return self._broken

    def allowed(self, generated: int, last: int) -> bytes | None:
        """Take the newest token and give the mask of the next."""
        if self._broken or (generated and last in self._end_tokens):
            return None
        if generated == self._taken + 1 and self._matcher.consume_token(last):
            self._taken = generated
        if generated != self._taken:
            self._broken = True
            return None
        mask = self._matcher.compute_bitmask()
        self._broken = self._matcher.is_error()
        return None if self._broken else mask


class GrammarCompiler:
    """Compiles grammars for one tokenizer and keeps the last ones; for one thread at a time."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._end_tokens = tokenizer.end_tokens
        self._vocabulary: llguidance.LLTokenizer | None = None
        self._tokenizer = tokenizer
        self._kept: OrderedDict[bytes, llguidance.LLMatcher] = OrderedDict()
        self._limits = _limits()

    def compile(self, grammar: str) -> GrammarConstraint:
        """Give a matcher at the start of a grammar.

        Raises:
            EngineError: The grammar cannot be compiled, or not within the limits.
        """
        if not self._end_tokens:
            raise invalid("build names no token that ends an answer")
        if len(grammar) > MAX_GRAMMAR_CHARS:
            raise _refused()
        # Under a digest: what was asked is kept in no other form than the compiled one.
        key = hashlib.sha256(grammar.encode()).digest()
        matcher = self._kept.get(key)
        if matcher is None:
            matcher = self._compile(grammar)
            self._kept[key] = matcher
            if len(self._kept) > MAX_GRAMMARS:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return GrammarConstraint(matcher.deep_copy(), self._end_tokens)

    def _compile(self, grammar: str) -> llguidance.LLMatcher:
        if self._vocabulary is None:
            self._vocabulary = _vocabulary_of(self._tokenizer)
        matcher = llguidance.LLMatcher(
            self._vocabulary, grammar, log_level=_SILENT, limits=self._limits
        )
        if matcher.is_error():
            raise _refused()
        return matcher


def _limits() -> llguidance.LLParserLimits:
    """Bound the work and the memory of one grammar; a state takes one or two kilobytes."""
    return llguidance.LLParserLimits(
        initial_lexer_fuel=1_000_000,
        step_lexer_fuel=200_000,
        step_max_items=50_000,
        max_items_in_row=2_000,
        max_lexer_states=50_000,
        max_grammar_size=100_000,
        verbose_errors=False,
    )


class _Vocabulary:
    """A tokenizer in the shape that llguidance reads."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.tokens = [tokenizer.token_bytes(token) for token in range(tokenizer.vocabulary)]
        self.special_token_ids = sorted(tokenizer.control_tokens | tokenizer.end_tokens)
        self.eos_token_id = min(tokenizer.end_tokens)
        self.bos_token_id = None

    def __call__(self, text: str) -> list[int]:
        return self._tokenizer.encode(text)


def _vocabulary_of(tokenizer: Tokenizer) -> llguidance.LLTokenizer:
    return llguidance.LLTokenizer(
        llguidance.TokenizerWrapper(_Vocabulary(tokenizer)),
        eos_token=sorted(tokenizer.end_tokens),
        slices=llguidance.LLTokenizer.json_slices(),
    )


def _refused() -> EngineError:
    return unsupported_schema("schema cannot be compiled to a grammar")
