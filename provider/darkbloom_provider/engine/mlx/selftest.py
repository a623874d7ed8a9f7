"""A loaded model shows that it works, before anybody is told that it is here."""

import math
from typing import Final

from darkbloom_provider.engine.batch import RowSpec, StepResult
from darkbloom_provider.engine.errors import load_failed
from darkbloom_provider.engine.mlx.batch import MlxBatch
from darkbloom_provider.engine.sampling import Sampling

PROMPT_TOKENS: Final = 33
ANSWER_TOKENS: Final = 4


def run(batch: MlxBatch) -> None:
    """Let a model answer greedily and check what it says; notes its speed on the way.

    Raises:
        EngineError: It says nothing, or its logits are no numbers.
    """
    batch.add(
        RowSpec(
            tokens=[index % 2 for index in range(min(PROMPT_TOKENS, batch.context // 2))],
            max_tokens=ANSWER_TOKENS,
            sampling=Sampling(seed=0),
            top_logprobs=0,
        )
    )
    steps: list[StepResult] = []
    while batch.has_work():
        steps.append(batch.step())
    events = [event for step in steps for event in step.events]
    if not events:
        raise load_failed("the model says nothing")
    if not all(event.ended or math.isfinite(event.logprob) for event in events):
        raise load_failed("the model's logits are no numbers")
    batch.prefill_tps = _rate([(step.prompt_tokens, step.prompt_seconds) for step in steps])
    # The first token shares its step with what is compiled and allocated once.
    later = [(len(step.events), step.decode_seconds) for step in steps if step.events]
    batch.decode_tps = _rate(later[1:])


def _rate(parts: list[tuple[int, float]]) -> float:
    tokens, seconds = sum(part[0] for part in parts), sum(part[1] for part in parts)
    return tokens / seconds if seconds > 0 else 0.0
