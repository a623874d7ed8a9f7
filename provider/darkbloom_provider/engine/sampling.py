"""The sampling parameters of a request, checked once and with defaults filled in.

| Parameter | Default | Range | Meaning here |
|---|---|---|---|
| temperature | 0 | 0 to 10 | 0 is greedy |
| top_p | 1 | 0 < p <= 1 | after temperature |
| top_k | 0 | 0 = off | |
| min_p | 0 | 0 to 1 | relative to the likeliest token |
| frequency_penalty, presence_penalty | 0 | -2 to 2 | over generated tokens |
| repetition_penalty | 1 | 0 < p <= 10 | over prompt and generated tokens |
| logit_bias | none | -100 to 100, at most 1,024 | keys that name no token are dropped |
| seed | drawn | any integer | same seed, prompt and parameters: same tokens |
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Final

from darkbloom_edge.request import ChatRequest

from darkbloom_provider.engine.errors import invalid

MAX_TEMPERATURE: Final = 10.0
MAX_PENALTY: Final = 2.0
MAX_REPETITION_PENALTY: Final = 10.0
MAX_BIAS: Final = 100.0
MAX_BIASES: Final = 1024
SEED_MASK: Final = (1 << 63) - 1
_MAX_TOKEN_DIGITS: Final = 9


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the next token is chosen."""

    seed: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = dataclasses.field(default_factory=dict)


def sampling_of(request: ChatRequest, *, vocabulary: int, drawn_seed: int) -> Sampling:
    """Read and check the sampling parameters.

    Args:
        request: What was asked.
        vocabulary: Number of tokens; biases outside are dropped.
        drawn_seed: Used when the request has none.

    Raises:
        EngineError: A value out of range; the message names the field only.
    """
    return Sampling(
        seed=(drawn_seed if request.seed is None else request.seed) & SEED_MASK,
        temperature=_within("temperature", request.temperature, 0.0, 0.0, MAX_TEMPERATURE),
        top_p=_above_zero("top_p", request.top_p, 1.0),
        top_k=_top_k(request.top_k, vocabulary),
        min_p=_within("min_p", request.min_p, 0.0, 0.0, 1.0),
        frequency_penalty=_within(
            "frequency_penalty", request.frequency_penalty, 0.0, -MAX_PENALTY, MAX_PENALTY
        ),
        presence_penalty=_within(
            "presence_penalty", request.presence_penalty, 0.0, -MAX_PENALTY, MAX_PENALTY
        ),
        repetition_penalty=_above_zero(
            "repetition_penalty", request.repetition_penalty, MAX_REPETITION_PENALTY, default=1.0
        ),
        logit_bias=_biases(request.logit_bias or {}, vocabulary),
    )


def _within(name: str, value: float | None, default: float, low: float, high: float) -> float:
    if value is None:
        return default
    if not low <= value <= high:
        raise invalid(f"{name} is out of range")
    return float(value)


def _above_zero(name: str, value: float | None, high: float, default: float = 1.0) -> float:
    if value is None:
        return default
    if not 0.0 < value <= high:
        raise invalid(f"{name} is out of range")
    return float(value)


def _top_k(value: int | None, vocabulary: int) -> int:
    # -1 is how several clients say off.
    if value is None or value in {0, -1}:
        return 0
    if value < 0:
        raise invalid("top_k is out of range")
    return value if value < vocabulary else 0


def _biases(biases: Mapping[str, float], vocabulary: int) -> dict[int, float]:
    if len(biases) > MAX_BIASES:
        raise invalid("logit_bias has too many entries")
    checked = {}
    for key, bias in biases.items():
        if not math.isfinite(bias) or abs(bias) > MAX_BIAS:
            raise invalid("logit_bias is out of range")
        if key.isascii() and key.isdigit() and len(key) <= _MAX_TOKEN_DIGITS:
            token = int(key)
            if token < vocabulary:
                checked[token] = bias
    return checked
