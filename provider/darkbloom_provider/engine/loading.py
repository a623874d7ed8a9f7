"""One load, on the thread of the build that it is for."""

from darkbloom_mesh.clock import Clock

from darkbloom_provider.engine.batch import ModelLoader
from darkbloom_provider.engine.constraint import GrammarCompiler
from darkbloom_provider.engine.errors import load_failed
from darkbloom_provider.engine.interface import Build
from darkbloom_provider.engine.slot import Facts
from darkbloom_provider.engine.tokenizer import Tokenizer, TokenizerError
from darkbloom_provider.engine.worker import Worker


def load_facts(
    loader: ModelLoader, build: Build, worker: Worker, max_concurrency: int, clock: Clock
) -> Facts:
    """Load a build's tokenizer and weights into a worker, and say what was found out.

    Args:
        loader: Loads the weights.
        build: What to load.
        worker: Whose thread this is; it hosts the model from here on.
        max_concurrency: Rows that generate at once.
        clock: Measures the load.

    Raises:
        EngineError: A file is missing, malformed or not supported.
    """
    if build.directory is None:
        raise load_failed("build has no files")
    began = clock.monotonic()
    try:
        tokenizer = Tokenizer.read(build.directory)
    except TokenizerError as error:
        raise load_failed(str(error)) from error
    model = loader.load(
        build.directory, end_tokens=tokenizer.end_tokens, max_concurrency=max_concurrency
    )
    worker.host(model)
    return Facts(
        tokenizer=tokenizer,
        grammars=GrammarCompiler(tokenizer),
        context=model.context,
        kv_bytes_per_token=model.kv_bytes_per_token,
        prefix_cache=model.prefix_cache,
        decode_tps=model.decode_tps,
        prefill_tps=model.prefill_tps,
        load_time_ms=int((clock.monotonic() - began) * 1000),
    )
