"""One row on the engine thread: from its tokens to deltas and an outcome."""

from collections.abc import Callable, Sequence

from darkbloom_edge.delta import Delta, FinishReason, TokenLogprob, TopLogprob
from darkbloom_edge.usage import Usage

from darkbloom_provider.engine.batch import Constraint, TokenEvent
from darkbloom_provider.engine.errors import EngineError, ErrorReason, FailureCode
from darkbloom_provider.engine.interface import Outcome, OutcomeKind
from darkbloom_provider.engine.prompt import Prompt
from darkbloom_provider.engine.splitter import Channel, Pieces
from darkbloom_provider.engine.tokenizer import TextStream, Tokenizer


class Row:
    """The text and the counts of one answer; repr is redacted."""

    def __init__(
        self,
        prompt: Prompt,
        tokenizer: Tokenizer,
        new_call_id: Callable[[], str],
        constraint: Constraint | None = None,
    ) -> None:
        self._prompt = prompt
        self._tokenizer = tokenizer
        self._stream = TextStream(tokenizer, prompt.markers)
        self._splitter = prompt.splitter(new_call_id)
        self.constraint = constraint
        """What the row may say; the model asks it before every token."""
        self._logprobs: list[TokenLogprob] = []
        self.completion_tokens = 0
        self._reasoning_tokens = 0
        self._cached_tokens = 0

    def __repr__(self) -> str:
        return f"Row(completion_tokens={self.completion_tokens}, <redacted>)"

    def take(self, event: TokenEvent) -> tuple[Delta | None, Outcome | None]:
        """Take the row's next token; give what may be sent and, with the last one, the outcome."""
        self._cached_tokens = event.cached
        if self.constraint is not None and self.constraint.broken:
            return None, self.failed(_noncompliance("the grammar could not follow the answer"))
        if event.ended:
            return self._end("stop")

        self.completion_tokens += 1
        if self._splitter.channel is Channel.REASONING:
            self._reasoning_tokens += 1
        if self._prompt.top_logprobs is not None:
            self._logprobs.append(self._logprob(event))

        pieces = self._splitter.push(self._stream.push(event.token))
        if self._splitter.stop_sequence is not None or self._splitter.complete:
            return self._delta(pieces), self._completed("stop")
        if event.exhausted:
            return self._end("length", pieces)
        return self._delta(pieces), None

    def cancelled(self) -> Outcome:
        """Give the outcome of a row that was cancelled now."""
        return Outcome(kind=OutcomeKind.CANCELLED, usage=self.usage, finish_reason="cancelled")

    def failed(self, error: EngineError) -> Outcome:
        """Give the outcome of a row that broke now."""
        return Outcome(
            kind=OutcomeKind.ERROR, usage=self.usage, finish_reason="cancelled", error=error
        )

    @property
    def usage(self) -> Usage:
        """Exact counts so far."""
        return Usage(
            prompt_tokens=len(self._prompt.tokens),
            completion_tokens=self.completion_tokens,
            cached_tokens=self._cached_tokens,
            reasoning_tokens=self._reasoning_tokens,
        )

    def _end(
        self,
        reason: FinishReason,
        last: Pieces = Pieces(),  # noqa: B008 - an immutable tuple
    ) -> tuple[Delta | None, Outcome]:
        more = self._splitter.push(self._stream.finish())
        if self._splitter.stop_sequence is None:
            held = self._splitter.finish()
        else:
            held, reason = Pieces(), "stop"
        pieces = (last, more, held)
        delta = self._delta(
            Pieces(
                "".join(piece.text for piece in pieces),
                "".join(piece.reasoning for piece in pieces),
                tuple(call for piece in pieces for call in piece.tool_calls),
            )
        )
        return delta, self._completed(reason)

    def _completed(self, reason: FinishReason) -> Outcome:
        calls = self._splitter.tool_calls
        if self._prompt.tools_required and not calls and reason != "length":
            return self.failed(_noncompliance("the model called no tool"))
        return Outcome(
            kind=OutcomeKind.COMPLETED,
            usage=self.usage,
            finish_reason="tool_calls" if calls and reason == "stop" else reason,
            stop_sequence=self._splitter.stop_sequence,
        )

    def _delta(self, pieces: Pieces) -> Delta | None:
        if not any(pieces):
            return None
        # Log probabilities wait for the text that their tokens became part of.
        logprobs: Sequence[TokenLogprob] = self._logprobs if pieces.text else ()
        if logprobs:
            self._logprobs = []
        usage = self.usage
        return Delta(
            text=pieces.text,
            reasoning=pieces.reasoning,
            tool_calls=pieces.tool_calls,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            cached_tokens=usage.cached_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            logprobs=tuple(logprobs) or None,
        )

    def _logprob(self, event: TokenEvent) -> TokenLogprob:
        text = self._tokenizer.token_text(event.token)
        return TokenLogprob(
            token=text,
            logprob=event.logprob,
            token_bytes=self._tokenizer.token_bytes(event.token),
            top=tuple(
                TopLogprob(
                    token=self._tokenizer.token_text(rival.token),
                    logprob=rival.logprob,
                    token_bytes=self._tokenizer.token_bytes(rival.token),
                )
                for rival in event.rivals
            ),
        )


def _noncompliance(message: str) -> EngineError:
    return EngineError(message, FailureCode.GENERATION_FAILURE, ErrorReason.TOOL_NONCOMPLIANCE, 422)
