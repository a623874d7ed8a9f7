"""The engine for real models: admission on the event loop, generation on one engine thread."""

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, TypeVar

from darkbloom_edge.usage import Usage
from darkbloom_mesh.clock import Clock

from darkbloom_provider.engine.answers import answer
from darkbloom_provider.engine.batch import BatchModel, ModelLoader
from darkbloom_provider.engine.budget import KvBudget
from darkbloom_provider.engine.constraint import GrammarCompiler, GrammarConstraint
from darkbloom_provider.engine.errors import (
    EngineError,
    ErrorReason,
    capacity,
    draining,
    generation_failed,
    invalid,
    load_failed,
    model_unavailable,
)
from darkbloom_provider.engine.interface import (
    MAX_JOB_ID_CHARS,
    Build,
    Job,
    Outcome,
    OutcomeKind,
    Sink,
    SlotState,
    SlotStatus,
)
from darkbloom_provider.engine.prefix.cache import PrefixCache
from darkbloom_provider.engine.prefix.facts import CacheFacts
from darkbloom_provider.engine.prompt import Prompt, prepare
from darkbloom_provider.engine.rates import Rate
from darkbloom_provider.engine.row import Row
from darkbloom_provider.engine.tokenizer import Tokenizer, TokenizerError
from darkbloom_provider.engine.worker import Round, Worker

_T = TypeVar("_T")

MAX_CONCURRENCY: Final = 32


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """How much one engine takes on."""

    kv_budget_bytes: int
    """KV memory for all builds together."""
    max_concurrency: int = 4
    """Rows of one build that generate at once; more than `MAX_CONCURRENCY` counts as that."""
    max_waiting: int = 64
    """Rows of one build that wait for that."""


@dataclasses.dataclass(slots=True)
class _Loaded:
    tokenizer: Tokenizer
    grammars: GrammarCompiler
    context: int
    kv_bytes_per_token: int
    load_time_ms: int
    weight_hash: str = ""
    prefix_cache: str = "off"
    crashed: bool = False
    decode: Rate = dataclasses.field(default_factory=Rate)
    prefill: Rate = dataclasses.field(default_factory=Rate)


@dataclasses.dataclass(slots=True)
class _Live:
    build_id: str
    sink: Sink
    prompt_tokens: int
    max_tokens: int
    completion_tokens: int = 0
    paused: bool = False


class LocalEngine:
    """Real models on this machine; see `interface.Engine` for its promises."""

    def __init__(
        self,
        *,
        loader: ModelLoader,
        limits: EngineLimits,
        clock: Clock,
        draw: Callable[[int], int],
        prefixes: PrefixCache | None = None,
    ) -> None:
        """Prepare; nothing runs before `run`.

        Args:
            loader: Loads models on the engine thread.
            limits: What is taken on.
            clock: For measurements.
            draw: Gives a random number of so many bits (`secrets.randbits`).
            prefixes: The prefix cache that the loader's models use; None for none.
        """
        self._loader = loader
        self._limits = limits
        self._concurrency = max(1, min(limits.max_concurrency, MAX_CONCURRENCY))
        self._clock = clock
        self._draw = draw
        self._prefixes = prefixes
        self._budget = KvBudget(limits.kv_budget_bytes)
        self._loaded: dict[str, _Loaded] = {}
        self._loading: dict[str, asyncio.Future[None]] = {}
        self._live: dict[str, _Live] = {}
        self._preparing: set[str] = set()
        self._cancelled_early: set[str] = set()
        self._asked: set[asyncio.Future[Any]] = set()
        self._worker = Worker(self._deliver, loader.close)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing = False
        # Prompts are rendered and tokenised beside the engine thread, one after the other.
        self._preparer = ThreadPoolExecutor(1, thread_name_prefix="darkbloom-prompt")
        # Grammars of strangers have a thread of their own: they delay only each other.
        self._compiler = ThreadPoolExecutor(1, thread_name_prefix="darkbloom-grammar")

    async def run(self) -> None:
        """Work until `close`."""
        self._loop = asyncio.get_running_loop()
        thread = ThreadPoolExecutor(1, thread_name_prefix="darkbloom-engine")
        working = self._loop.run_in_executor(thread, self._worker.run)
        try:
            await asyncio.shield(working)
        finally:
            self._closing = True
            self._worker.stop()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([working])
            thread.shutdown(wait=True)
            self._preparer.shutdown(wait=False)
            self._compiler.shutdown(wait=False)
            if self._prefixes is not None:
                await asyncio.to_thread(self._prefixes.close)
            self._end_rest()

    async def load(self, build: Build) -> None:
        """Load weights and tokenizer on the engine thread and measure the build."""
        known = self._loaded.get(build.build_id)
        if known is not None and not known.crashed:
            return
        if build.build_id in self._loading:
            await asyncio.shield(self._loading[build.build_id])
            return

        self._loading[build.build_id] = asyncio.get_running_loop().create_future()
        try:
            if known is not None:
                await self.unload(build.build_id)
            loaded = await self._on_worker(partial(self._load_now, build))
            if self._prefixes is not None:
                enter = self._prefixes.enter
                await asyncio.to_thread(enter, build.build_id, build.weight_hash)
            self._loaded[build.build_id] = loaded
            self._budget.add_build(
                build.build_id,
                kv_bytes_per_token=loaded.kv_bytes_per_token,
                context=loaded.context,
            )
        except EngineError as error:
            self._finish_loading(build.build_id, error)
            raise
        except BaseException:
            self._finish_loading(build.build_id, load_failed("load was abandoned"))
            raise
        self._finish_loading(build.build_id, None)

    async def unload(self, build_id: str) -> None:
        """Free a build."""
        if self._loaded.pop(build_id, None) is None:
            return
        await self._on_worker(partial(self._worker.drop_model, build_id))
        self._budget.remove_build(build_id)

    async def submit(self, job: Job, sink: Sink) -> None:
        """Prepare the prompt, reserve KV and hand the row over."""
        loaded = self._admissible(job)
        self._preparing.add(job.job_id)
        try:
            prompt = await asyncio.get_running_loop().run_in_executor(
                self._preparer,
                partial(
                    prepare,
                    job,
                    loaded.tokenizer,
                    context=loaded.context,
                    drawn_seed=self._draw(63),
                ),
            )
            prompt = await self._planned(job, prompt, loaded)
            constraint = await self._constraint(loaded, prompt)
            cancelled = job.job_id in self._cancelled_early
        finally:
            self._preparing.discard(job.job_id)
            self._cancelled_early.discard(job.job_id)

        if self._closing:
            raise draining()
        if self._loaded.get(job.build_id) is not loaded:
            raise model_unavailable("build was unloaded")
        row = Row(prompt, loaded.tokenizer, self._new_call_id, constraint)
        self._begin(job, prompt, row, sink)
        if cancelled:
            self.cancel(job.job_id)

    def cancel(self, job_id: str) -> None:
        """End a job at the next step."""
        if job_id in self._preparing:
            self._cancelled_early.add(job_id)
        live = self._live.get(job_id)
        if live is not None:
            self._worker.post(partial(self._worker.cancel_row, live.build_id, job_id))

    def pause(self, job_id: str) -> None:
        """Take a job's row out of the batch."""
        live = self._live.get(job_id)
        if live is not None and not live.paused:
            live.paused = True
            self._worker.post(partial(self._worker.suspend_row, live.build_id, job_id))

    def resume(self, job_id: str) -> None:
        """Put a paused row back."""
        live = self._live.get(job_id)
        if live is not None and live.paused:
            live.paused = False
            self._worker.post(partial(self._worker.resume_row, live.build_id, job_id))

    def slots(self) -> list[SlotState]:
        """Report every loaded or loading build."""
        states = [self._slot(build_id, loaded) for build_id, loaded in self._loaded.items()]
        states += [
            SlotState(model=build_id, state=SlotStatus.RELOADING)
            for build_id in self._loading
            if build_id not in self._loaded
        ]
        return states

    def prefix_cache(self) -> CacheFacts | None:
        """Report the cache of prompts' beginnings."""
        return None if self._prefixes is None else self._prefixes.facts()

    async def close(self) -> None:
        """End live jobs as cancelled and let `run` return."""
        self._closing = True
        self._worker.stop()

    async def _constraint(self, loaded: _Loaded, prompt: Prompt) -> GrammarConstraint | None:
        """Compile the grammar of a prompt beside the engine and beside other prompts."""
        if prompt.grammar is None:
            return None
        return await asyncio.get_running_loop().run_in_executor(
            self._compiler, loaded.grammars.compile, prompt.grammar
        )

    def _load_now(self, build: Build) -> _Loaded:
        """Load; on the engine thread."""
        if build.directory is None:
            raise load_failed("build has no files")
        began = self._clock.monotonic()
        try:
            tokenizer = Tokenizer.read(build.directory)
        except TokenizerError as error:
            raise load_failed(str(error)) from error
        model: BatchModel = self._loader.load(
            build.directory,
            end_tokens=tokenizer.end_tokens,
            max_concurrency=self._concurrency,
        )
        self._worker.add_model(build.build_id, model)
        return _Loaded(
            tokenizer=tokenizer,
            grammars=GrammarCompiler(tokenizer),
            context=model.context,
            kv_bytes_per_token=model.kv_bytes_per_token,
            load_time_ms=int((self._clock.monotonic() - began) * 1000),
            weight_hash=build.weight_hash,
            prefix_cache=model.prefix_cache,
        )

    def _finish_loading(self, build_id: str, error: EngineError | None) -> None:
        future = self._loading.pop(build_id)
        if error is None:
            future.set_result(None)
            return
        future.set_exception(error)
        # Nobody may be waiting, and that is not a fault.
        future.exception()

    def _admissible(self, job: Job) -> _Loaded:
        if self._closing:
            raise draining()
        if len(job.job_id) > MAX_JOB_ID_CHARS:
            raise invalid("job id is too long")
        if job.job_id in self._live or job.job_id in self._preparing:
            raise capacity("job id is live", ErrorReason.TOKEN_BUDGET_EXHAUSTED, 409)
        loaded = self._loaded.get(job.build_id)
        if loaded is None or loaded.crashed:
            raise model_unavailable("build is not loaded")
        places = self._concurrency + self._limits.max_waiting
        if len(self._preparing) + self._count(job.build_id) >= places:
            raise capacity("queue is full", ErrorReason.QUEUE_FULL)
        return loaded

    async def _planned(self, job: Job, prompt: Prompt, loaded: _Loaded) -> Prompt:
        """Say where the prompt's beginning is kept, and bring it from the disk."""
        if self._prefixes is None:
            return prompt
        prefix = self._prefixes.plan(job.cache_scope, loaded.weight_hash, prompt.tokens)
        if prefix is None:
            return prompt
        return dataclasses.replace(prompt, prefix=await self._prefixes.stage(prefix))

    def _begin(self, job: Job, prompt: Prompt, row: Row, sink: Sink) -> None:
        self._budget.reserve(job.build_id, job.job_id, len(prompt.tokens) + prompt.max_tokens)
        self._live[job.job_id] = _Live(
            build_id=job.build_id,
            sink=sink,
            prompt_tokens=len(prompt.tokens),
            max_tokens=prompt.max_tokens,
        )
        self._worker.post(partial(self._worker.add_row, job.build_id, job.job_id, prompt, row))

    def _deliver(self, finished: Round) -> None:
        """Hand a round to the event loop; on the engine thread."""
        if self._loop is None:
            raise RuntimeError("the engine thread runs without a loop")
        # A loop that is closed has no sinks any more.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._receive, finished)

    def _receive(self, finished: Round) -> None:
        """Pass a round on to the sinks; on the event loop."""
        self._worker.delivered()
        for report in finished.reports:
            loaded = self._loaded.get(report.build_id)
            if loaded is None:
                continue
            loaded.crashed = loaded.crashed or report.crashed
            if report.result is not None:
                steps = 1 if report.result.events else 0
                loaded.decode.add(steps, report.result.decode_seconds)
                loaded.prefill.add(report.result.prompt_tokens, report.result.prompt_seconds)
        for event in finished.events:
            live = self._live.get(event.job_id)
            if live is None:
                continue
            live.completion_tokens = event.completion_tokens
            if event.delta is not None:
                live.sink.on_delta(event.delta)
            if event.outcome is not None:
                self._end(event.job_id, event.outcome)

    def _end(self, job_id: str, outcome: Outcome) -> None:
        live = self._live.pop(job_id)
        self._budget.release(live.build_id, job_id)
        live.sink.on_end(outcome)

    def _end_rest(self) -> None:
        """End jobs that the engine thread did not, because it broke."""
        error = generation_failed("the engine stopped")
        for job_id, live in list(self._live.items()):
            usage = Usage(live.prompt_tokens, live.completion_tokens)
            self._end(
                job_id,
                Outcome(
                    kind=OutcomeKind.ERROR, usage=usage, finish_reason="cancelled", error=error
                ),
            )
        for future in self._asked:
            if not future.done():
                future.set_exception(draining())

    async def _on_worker(self, call: Callable[[], _T]) -> _T:
        if self._closing:
            raise draining()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_T] = loop.create_future()
        self._asked.add(future)
        self._worker.post(partial(answer, loop, future, call))
        try:
            return await future
        finally:
            self._asked.discard(future)

    def _slot(self, build_id: str, loaded: _Loaded) -> SlotState:
        live = [job for job in self._live.values() if job.build_id == build_id]
        running = min(len(live), self._concurrency)
        status = SlotStatus.RUNNING if live else SlotStatus.IDLE
        return SlotState(
            model=build_id,
            state=SlotStatus.CRASHED if loaded.crashed else status,
            num_running=running,
            num_waiting=len(live) - running,
            max_concurrency=self._concurrency,
            active_tokens=sum(job.prompt_tokens + job.completion_tokens for job in live),
            max_tokens_potential=sum(job.prompt_tokens + job.max_tokens for job in live),
            active_token_budget_used=self._budget.used_tokens(build_id),
            active_token_budget_max=self._budget.max_tokens(build_id),
            kv_bytes_per_token=loaded.kv_bytes_per_token,
            prefix_cache=loaded.prefix_cache,
            observed_decode_tps=loaded.decode.per_second,
            observed_prefill_tps=loaded.prefill.per_second,
            model_load_time_ms=loaded.load_time_ms,
        )

    def _count(self, build_id: str) -> int:
        return sum(live.build_id == build_id for live in self._live.values())

    def _new_call_id(self) -> str:
        return f"call_{self._draw(96):024x}"
