"""From logits to a token: what changes them, how one is drawn, and what is reported of it.

A row's choice is made from its own logits, its own history and its own keys, so neighbours and
pauses cannot change it.
"""

import math
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import mlx.core as mx
import numpy as np
from mlx_lm.sample_utils import apply_min_p, apply_top_k, apply_top_p

from darkbloom_provider.engine.batch import Candidate, Constraint, RowSpec
from darkbloom_provider.engine.sampling import Sampling

Processor: TypeAlias = Callable[[mx.array, mx.array], mx.array]
"""Takes a row's tokens, shape (tokens,), and its logits, shape (1, vocabulary); gives logits."""

_KEY_STRIDE: Final = 0x9E3779B97F4A7C15
_KEY_MASK: Final = (1 << 64) - 1


def processors_of(spec: RowSpec) -> list[Processor]:
    """Make what changes the logits of one row, in the order of application."""
    sampling = spec.sampling
    processors: list[Processor] = []
    if sampling.repetition_penalty != 1.0:
        processors.append(_repetition(sampling.repetition_penalty))
    if sampling.frequency_penalty or sampling.presence_penalty:
        processors.append(
            _occurrence(sampling.frequency_penalty, sampling.presence_penalty, len(spec.tokens))
        )
    if sampling.logit_bias:
        processors.append(_bias(sampling))
    if spec.constraint is not None:
        # Last: no bias and no penalty makes a forbidden token possible.
        processors.append(_constrained(spec.constraint, len(spec.tokens)))
    return processors


def draw(logits: mx.array, sampling: Sampling, position: int) -> mx.array:
    """Draw one token of one row.

    Args:
        logits: Shape (1, vocabulary).
        sampling: With a temperature above zero; greedy rows take the largest logit together.
        position: Tokens of the row that were drawn before.

    Returns:
        Shape (1,).
    """
    key = mx.random.key((sampling.seed + position * _KEY_STRIDE) & _KEY_MASK)
    scaled = logits * (1.0 / sampling.temperature)
    scaled = scaled - mx.logsumexp(scaled, axis=-1, keepdims=True)
    if 0 < sampling.top_k < logits.shape[-1]:
        scaled = apply_top_k(scaled, sampling.top_k)
    if sampling.top_p < 1.0:
        scaled = apply_top_p(scaled, sampling.top_p)
    if sampling.min_p > 0.0:
        scaled = apply_min_p(scaled, sampling.min_p)
    return mx.random.categorical(scaled, key=key)


def log_probabilities(logits: mx.array) -> mx.array:
    """Normalise the logits of one row; shape (vocabulary,)."""
    return (logits - mx.logsumexp(logits, axis=-1, keepdims=True)).reshape(-1)


def report(logprobs: Any, token: int, top: int) -> tuple[float, tuple[Candidate, ...]]:
    """Read the log probability of a token and of its likeliest rivals out of a vector.

    Args:
        logprobs: An array of shape (vocabulary,).
        token: Which was chosen.
        top: How many rivals.
    """
    chosen = float(logprobs[token].item())
    count = min(top, logprobs.shape[-1])
    if count == 0:
        return chosen, ()
    best: Any = mx.argpartition(-logprobs, kth=count - 1)[:count]
    pairs = zip(best.tolist(), logprobs[best].tolist(), strict=True)
    # What a grammar forbids has no finite probability and is no rival.
    possible = [pair for pair in pairs if math.isfinite(pair[1])]
    ranked = sorted(possible, key=lambda pair: float(pair[1]), reverse=True)
    return chosen, tuple(Candidate(int(index), float(value)) for index, value in ranked)


def _repetition(penalty: float) -> Processor:
    def process(tokens: mx.array, logits: mx.array) -> mx.array:
        seen = mx.zeros(logits.shape[-1]).at[tokens].add(1.0) > 0
        penalised = mx.where(logits < 0, logits * penalty, logits / penalty)
        return mx.where(seen, penalised, logits)

    return process


def _occurrence(frequency: float, presence: float, prompt_tokens: int) -> Processor:
    def process(tokens: mx.array, logits: mx.array) -> mx.array:
        generated = tokens[prompt_tokens:]
        if generated.size == 0:
            return logits
        counts = mx.zeros(logits.shape[-1]).at[generated].add(1.0)
        return logits - (frequency * counts + presence * (counts > 0)).astype(logits.dtype)

    return process


def _bias(sampling: Sampling) -> Processor:
    indices = mx.array(list(sampling.logit_bias.keys()))
    values = mx.array(list(sampling.logit_bias.values()))

    def process(_tokens: mx.array, logits: mx.array) -> mx.array:
        return logits.at[:, indices].add(values.astype(logits.dtype))

    return process


def _constrained(constraint: Constraint, prompt_tokens: int) -> Processor:
    begin: Any = mx.async_eval

    def process(tokens: mx.array, logits: mx.array) -> mx.array:
        # The forward pass runs while the mask is made.
        begin(logits)
        last: Any = tokens[-1].item()
        mask = constraint.allowed(tokens.size - prompt_tokens, int(last))
        if mask is None:
            return logits
        size = logits.shape[-1]
        bits = np.zeros(size, dtype=np.bool_)
        known = np.unpackbits(np.frombuffer(mask, dtype=np.uint8), bitorder="little")[:size]
        bits[: known.size] = known
        return mx.where(mx.array(bits), logits, -mx.inf)

    return process
