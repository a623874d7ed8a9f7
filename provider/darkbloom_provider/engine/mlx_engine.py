"""The adapter to mlx and mlx-lm, and the only module that imports them.

Written against mlx-lm 0.32.2 exactly: `BatchGenerator` changes between minor versions, and rows
must never see each other, so any other pin has to pass the solo-equals-batched tests first. All
calls happen on the engine thread, because streams of mlx belong to the thread that uses them.

- Prompts are processed one at a time in small chunks, between decode steps, so a long prompt slows
  the running rows and does not stop them, and a cancel never waits for long.
- Each row samples with its own keys, derived from its seed and the position: neighbours and
  pauses do not change its tokens.
- On a CPU the weights' floats are widened to float32, which is many times faster there and exact.
- `trust_remote_code` is never set: a build that brings code does not load.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import mlx.core as mx
from mlx_lm.generate import BatchGenerator
from mlx_lm.models.cache import can_trim_prompt_cache, make_prompt_cache, trim_prompt_cache
from mlx_lm.sample_utils import apply_min_p, apply_top_k, apply_top_p, greedy_sampler
from mlx_lm.utils import load_model

from darkbloom_provider.engine.batch import BatchModel, Candidate, RowSpec, StepResult, TokenEvent
from darkbloom_provider.engine.errors import load_failed
from darkbloom_provider.engine.sampling import Sampling

PREFILL_CHUNK_TOKENS: Final = 512
CPU_PREFILL_CHUNK_TOKENS: Final = 32
"""A CPU gains nothing from longer chunks, and takes seconds even for these."""
DEFAULT_CONTEXT_TOKENS: Final = 4096
_NO_RIVALS: Final[tuple[Candidate, ...]] = ()
_KEY_STRIDE: Final = 0x9E3779B97F4A7C15
_KEY_MASK: Final = (1 << 64) - 1


class MlxLoader:
    """mlx as a `batch.ModelLoader`."""

    def load(
        self, directory: Path, *, end_tokens: frozenset[int], max_concurrency: int
    ) -> BatchModel:
        """Load a build's weights.

        Raises:
            EngineError: Files are missing, malformed or of an unsupported architecture.
        """
        try:
            model, config = load_model(directory, trust_remote_code=False)
            if _on_cpu():
                model.set_dtype(mx.float32)
                mx.eval(model.parameters())
            kv_bytes = _measure_kv_bytes(model)
        except Exception as error:
            raise load_failed(f"weights cannot be loaded, {type(error).__name__}") from error
        return MlxBatch(
            model,
            context=_context(config),
            kv_bytes_per_token=kv_bytes,
            end_tokens=end_tokens,
            max_concurrency=max_concurrency,
        )

    def close(self) -> None:
        """End the streams of this thread.

        Left to the end of the thread, they race with the end of the process, which then aborts.
        """
        mx.synchronize()
        mx.clear_streams()


@dataclasses.dataclass(slots=True)
class _Row:
    spec: RowSpec
    uid: int
    """Number inside the generator; -1 while suspended."""
    emitted: list[int] = dataclasses.field(default_factory=list)
    cache: list[Any] | None = None
    """KV of a suspended row."""
    cached: int = 0
    """Tokens that `cache` covers."""


class MlxBatch:
    """One model and its rows.

    Invariant: `_by_uid` holds exactly the rows that the generator knows.
    """

    def __init__(
        self,
        model: Any,
        *,
        context: int,
        kv_bytes_per_token: int,
        end_tokens: frozenset[int],
        max_concurrency: int,
    ) -> None:
        self.context = context
        self.kv_bytes_per_token = kv_bytes_per_token
        self._end_tokens = end_tokens
        # Untyped upstream.
        self._generator: Any = BatchGenerator(
            model,
            stop_tokens=[[token] for token in sorted(end_tokens)],
            completion_batch_size=max_concurrency,
            prefill_batch_size=1,
            prefill_step_size=CPU_PREFILL_CHUNK_TOKENS if _on_cpu() else PREFILL_CHUNK_TOKENS,
        )
        self._rows: dict[int, _Row] = {}
        self._by_uid: dict[int, int] = {}
        self._next_row = 0

    def add(self, spec: RowSpec) -> int:
        """Queue a row."""
        number = self._next_row
        self._next_row += 1
        row = _Row(spec=spec, uid=-1)
        self._insert(number, row)
        self._rows[number] = row
        return number

    def step(self) -> StepResult:
        """Run one step of the generator."""
        with self._generator.stats() as stats:
            _, responses = self._generator.next()
        return StepResult(
            events=[self._event(response) for response in responses],
            prompt_tokens=stats.prompt_tokens,
            prompt_seconds=stats.prompt_time,
            decode_seconds=stats.decode_time,
        )

    def remove(self, row: int) -> None:
        """Drop a row; one that is gone already is ignored."""
        gone = self._rows.pop(row, None)
        if gone is not None and self._by_uid.pop(gone.uid, None) is not None:
            self._generator.remove([gone.uid])

    def suspend(self, row: int) -> None:
        """Take a row out with its KV."""
        suspended = self._rows[row]
        if suspended.uid < 0:
            return
        with mx.stream(self._generator.stream):
            caches = self._generator.remove([suspended.uid], return_prompt_caches=True)
            cache, tokens = caches[suspended.uid]
            mx.eval([layer.state for layer in cache if not layer.empty()])
        del self._by_uid[suspended.uid]
        suspended.uid = -1
        suspended.cache, suspended.cached = cache, len(tokens)

    def resume(self, row: int) -> None:
        """Queue a suspended row again."""
        suspended = self._rows[row]
        if suspended.uid < 0:
            self._insert(row, suspended)

    def has_work(self) -> bool:
        """Tell whether the generator has rows."""
        return bool(self._by_uid)

    def close(self) -> None:
        """Free the model."""
        self._rows.clear()
        self._by_uid.clear()
        self._generator.close()
        del self._generator
        mx.clear_cache()

    def _insert(self, number: int, row: _Row) -> None:
        history = row.spec.tokens + row.emitted
        cache, covered = row.cache, row.cached
        row.cache, row.cached = None, 0
        # The last token is fed again, because its successor is sampled from its logits.
        surplus = covered - (len(history) - 1)
        if cache is not None and surplus > 0:
            if can_trim_prompt_cache(cache):
                trim_prompt_cache(cache, surplus)
                covered -= surplus
            else:
                cache, covered = None, 0

        sampling = row.spec.sampling
        (row.uid,) = self._generator.insert(
            [history[covered:]],
            [row.spec.max_tokens - len(row.emitted)],
            caches=None if cache is None else [cache],
            all_tokens=[history[:covered]],
            samplers=[_sampler(sampling, drawn=len(row.emitted))],
            logits_processors=[_processors(sampling, prompt_tokens=len(row.spec.tokens))],
        )
        self._by_uid[row.uid] = number

    def _event(self, response: Any) -> TokenEvent:
        number = self._by_uid[response.uid]
        row = self._rows[number]
        token = int(response.token)
        row.emitted.append(token)
        ended = token in self._end_tokens
        exhausted = response.finish_reason == "length"
        if ended or exhausted:
            del self._by_uid[response.uid], self._rows[number]

        logprob, rivals = 0.0, _NO_RIVALS
        if row.spec.top_logprobs is not None and not ended:
            logprob, rivals = _logprobs(response.logprobs, token, row.spec.top_logprobs)
        return TokenEvent(number, token, ended, exhausted, logprob, rivals)


def _on_cpu() -> bool:
    return bool(mx.default_device().type == mx.DeviceType.cpu)


def _context(config: dict[str, Any]) -> int:
    for part in (config, config.get("text_config")):
        length = part.get("max_position_embeddings") if isinstance(part, dict) else None
        if isinstance(length, int) and length > 0:
            return length
    return DEFAULT_CONTEXT_TOKENS


def _measure_kv_bytes(model: Any) -> int:
    """Generate one position and see what the cache grew by, per token."""
    cache = make_prompt_cache(model)
    mx.eval(model(mx.array([[0]]), cache=cache))
    total = 0
    for layer in cache:
        keys = getattr(layer, "keys", None)
        # Caches grow in blocks; layers of constant size cost nothing per token.
        if keys is not None and layer.nbytes:
            total += layer.nbytes // keys.shape[2]
    return max(1, total)


def _sampler(sampling: Sampling, *, drawn: int) -> Callable[[mx.array], mx.array]:
    """Make the sampler of one row.

    Args:
        sampling: What was asked for.
        drawn: Tokens of the row that were drawn before.
    """
    if sampling.temperature == 0.0:
        # One shared function, so that greedy rows are sampled in one call.
        greedy: Callable[[mx.array], mx.array] = greedy_sampler
        return greedy

    position = drawn

    def sample(logprobs: mx.array) -> mx.array:
        nonlocal position
        key = mx.random.key((sampling.seed + position * _KEY_STRIDE) & _KEY_MASK)
        position += 1
        scaled = logprobs * (1.0 / sampling.temperature)
        scaled = scaled - mx.logsumexp(scaled, axis=-1, keepdims=True)
        if 0 < sampling.top_k < logprobs.shape[-1]:
            scaled = apply_top_k(scaled, sampling.top_k)
        if sampling.top_p < 1.0:
            scaled = apply_top_p(scaled, sampling.top_p)
        if sampling.min_p > 0.0:
            scaled = apply_min_p(scaled, sampling.min_p)
        return mx.random.categorical(scaled, key=key)

    return sample


def _processors(
    sampling: Sampling, *, prompt_tokens: int
) -> list[Callable[[mx.array, mx.array], mx.array]]:
    processors: list[Callable[[mx.array, mx.array], mx.array]] = []
    if sampling.repetition_penalty != 1.0:
        processors.append(_repetition(sampling.repetition_penalty))
    if sampling.frequency_penalty or sampling.presence_penalty:
        processors.append(
            _occurrence(sampling.frequency_penalty, sampling.presence_penalty, prompt_tokens)
        )
    if sampling.logit_bias:
        processors.append(_bias(sampling))
    return processors


def _repetition(penalty: float) -> Callable[[mx.array, mx.array], mx.array]:
    def process(tokens: mx.array, logits: mx.array) -> mx.array:
        seen = mx.zeros(logits.shape[-1]).at[tokens].add(1.0) > 0
        penalised = mx.where(logits < 0, logits * penalty, logits / penalty)
        return mx.where(seen, penalised, logits)

    return process


def _occurrence(
    frequency: float, presence: float, prompt_tokens: int
) -> Callable[[mx.array, mx.array], mx.array]:
    def process(tokens: mx.array, logits: mx.array) -> mx.array:
        generated = tokens[prompt_tokens:]
        if generated.size == 0:
            return logits
        counts = mx.zeros(logits.shape[-1]).at[generated].add(1.0)
        return logits - (frequency * counts + presence * (counts > 0)).astype(logits.dtype)

    return process


def _bias(sampling: Sampling) -> Callable[[mx.array, mx.array], mx.array]:
    indices = mx.array(list(sampling.logit_bias.keys()))
    values = mx.array(list(sampling.logit_bias.values()))

    def process(_tokens: mx.array, logits: mx.array) -> mx.array:
        return logits.at[:, indices].add(values.astype(logits.dtype))

    return process


def _logprobs(logprobs: Any, token: int, top: int) -> tuple[float, tuple[Candidate, ...]]:
    """Read the log probability of a token and of its likeliest rivals out of a vector."""
    chosen = float(logprobs[token].item())
    count = min(top, logprobs.shape[-1])
    if count == 0:
        return chosen, _NO_RIVALS
    best: Any = mx.argpartition(-logprobs, kth=count - 1)[:count]
    pairs = zip(best.tolist(), logprobs[best].tolist(), strict=True)
    ranked = sorted(pairs, key=lambda pair: float(pair[1]), reverse=True)
    return chosen, tuple(Candidate(int(index), float(value)) for index, value in ranked)
