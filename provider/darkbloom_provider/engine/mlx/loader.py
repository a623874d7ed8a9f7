"""Weights from a folder into memory, and what this adapter refuses to load.

- On a CPU the weights' floats are widened to float32 and their matrices laid out for it, which is
  many times faster there and exact.
- `trust_remote_code` is never set: a build that brings code does not load.
- An architecture whose cache cannot be shared by rows is refused when it is loaded, not later.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import mlx.core as mx
import structlog
from darkbloom_mesh.clock import Clock, SystemClock
from mlx.nn.layers.embedding import Embedding
from mlx.nn.layers.linear import Linear
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import load_model

from darkbloom_provider.engine.batch import BatchModel, SelfTest
from darkbloom_provider.engine.errors import EngineError, load_failed
from darkbloom_provider.engine.mlx import selftest
from darkbloom_provider.engine.mlx.batch import MlxBatch
from darkbloom_provider.engine.mlx.streams import Streams
from darkbloom_provider.engine.prefix.cache import PrefixCache

PREFILL_CHUNK_TOKENS: Final = 512
CPU_PREFILL_CHUNK_TOKENS: Final = 64
"""A CPU gains nothing from longer chunks, and takes seconds even for these. Equal to the blocks of
the prefix cache's memory, so that every block is a place to begin at."""
DEFAULT_CONTEXT_TOKENS: Final = 4096
_log = structlog.get_logger()


class MlxLoader:
    """mlx as a `batch.ModelLoader`.

    Args:
        clock: For measurements.
        prefixes: The prefix cache; None reads every prompt whole.
        self_test: What a failed first answer means.
    """

    def __init__(
        self,
        clock: Clock | None = None,
        prefixes: PrefixCache | None = None,
        *,
        self_test: SelfTest = SelfTest.REFUSE,
    ) -> None:
        self._clock = clock or SystemClock()
        self._prefixes = prefixes
        self._self_test = self_test
        self._streams = Streams()

    def load(
        self, directory: Path, *, end_tokens: frozenset[int], max_concurrency: int
    ) -> BatchModel:
        """Load a build's weights.

        Raises:
            EngineError: Files are missing, malformed or of an unsupported architecture.
        """
        self._streams.take()
        try:
            model, config = load_model(directory, trust_remote_code=False)
            if _on_cpu():
                _suit_cpu(model)
            kv_bytes = _measure_kv_bytes(model)
            _wire_memory()
        except Exception as error:
            raise load_failed(f"weights cannot be loaded, {type(error).__name__}") from error
        batch = MlxBatch(
            model,
            context=_context(config),
            kv_bytes_per_token=kv_bytes,
            end_tokens=end_tokens,
            max_concurrency=max_concurrency,
            chunk_tokens=CPU_PREFILL_CHUNK_TOKENS if _on_cpu() else PREFILL_CHUNK_TOKENS,
            clock=self._clock,
            prefixes=self._prefixes,
        )
        self._try(batch)
        return batch

    def _try(self, batch: MlxBatch) -> None:
        if self._self_test is SelfTest.OFF:
            return
        try:
            selftest.run(batch)
        except Exception as error:
            reason = str(error) if isinstance(error, EngineError) else type(error).__name__
            if self._self_test is SelfTest.REFUSE:
                raise load_failed(f"self-test failed, {reason}") from error
            _log.warning("self_test_failed", reason=reason)

    def close(self) -> None:
        """Leave this thread's streams to another.

        Work left to the end of the thread races with the end of the process, which then aborts.
        """
        self._streams.leave()


def _on_cpu() -> bool:
    return bool(mx.default_device().type == mx.DeviceType.cpu)


def _wire_memory() -> None:
    """Let Metal keep as much resident as it recommends."""
    if not _on_cpu():
        mx.set_wired_limit(int(mx.device_info()["max_recommended_working_set_size"]))


def _suit_cpu(model: Any) -> None:
    """Widen floats, and lay matrices out so that products read both sides in order.

    A layer multiplies by the transpose of its weight. Where the weight is itself the transpose of
    a contiguous array, that product is twice as fast without Metal; values and shapes stay.
    """
    model.set_dtype(mx.float32)
    for layer in model.modules():
        if type(layer) in (Linear, Embedding):
            layer.weight = mx.contiguous(layer.weight.T).T
    mx.eval(model.parameters())


def _context(config: dict[str, Any]) -> int:
    for part in (config, config.get("text_config")):
        length = part.get("max_position_embeddings") if isinstance(part, dict) else None
        if isinstance(length, int) and length > 0:
            return length
    return DEFAULT_CONTEXT_TOKENS


def _measure_kv_bytes(model: Any) -> int:
    """Read one token and see what the cache grew by, per token.

    Raises:
        Exception: The cache of a layer cannot be shared by rows.
    """
    cache = make_prompt_cache(model)
    mx.eval(model(mx.array([[0]]), cache=cache))
    mx.eval([layer.merge([layer, layer]).state for layer in cache])
    # Caches grow in blocks; layers of constant size cost nothing per token.
    growth: int = sum(layer.nbytes // layer.keys.shape[2] for layer in _growing(cache))
    return max(1, growth)


def _growing(layers: Iterable[Any]) -> Iterator[Any]:
    for layer in layers:
        parts = getattr(layer, "caches", None)
        if parts is not None:
            yield from _growing(parts)
        elif getattr(layer, "keys", None) is not None and layer.nbytes:
            yield layer
