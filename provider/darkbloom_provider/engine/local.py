"""The engine for real models: admission on the event loop, one engine thread for each build.

Builds are loaded, stepped and freed on threads of their own, so neither a load nor a step of one
holds up another, and one that hangs is replaced alone. The event loop looks after them: it ends
jobs whose lease is over and restarts slots that have broken.
"""

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

import structlog
from darkbloom_mesh.clock import Clock

from darkbloom_provider.engine.batch import ModelLoader
from darkbloom_provider.engine.budget import KvBudget
from darkbloom_provider.engine.constraint import GrammarConstraint
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
    Sink,
    SlotState,
    SlotStatus,
)
from darkbloom_provider.engine.leases import Lease
from darkbloom_provider.engine.limits import MAX_CONCURRENCY, EngineLimits
from darkbloom_provider.engine.loading import load_facts
from darkbloom_provider.engine.prefix.cache import PrefixCache
from darkbloom_provider.engine.prefix.facts import CacheFacts
from darkbloom_provider.engine.prompt import Prompt, prepare
from darkbloom_provider.engine.row import Row
from darkbloom_provider.engine.slot import Live, Restarts, Slot
from darkbloom_provider.engine.thread import WorkerThread
from darkbloom_provider.engine.worker import Round, Worker

LOAD_S: Final = 900.0
"""Longest load; the thread of a longer one is given up."""
STOP_S: Final = 15.0
"""Longest wait for a thread to free its model; afterwards it is given up."""
WATCH_S: Final = 1.0
"""Seconds between two looks at leases and threads."""
_log = structlog.get_logger()


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
            loader: Loads models, each on a thread of its own.
            limits: What is taken on.
            clock: For measurements and leases.
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
        self._restarts = Restarts(clock.monotonic)
        self._slots: dict[str, Slot] = {}
        self._speaking: dict[Worker, Slot] = {}
        """Slots whose threads are heard, those that are being freed included."""
        self._loading: dict[str, asyncio.Future[None]] = {}
        self._restarting: set[asyncio.Task[None]] = set()
        self._preparing: set[str] = set()
        self._cancelled_early: set[str] = set()
        self._closing = asyncio.Event()
        # Prompts are rendered and tokenised beside the engine threads, one after the other.
        self._preparer = ThreadPoolExecutor(1, thread_name_prefix="darkbloom-prompt")
        # Grammars of strangers have a thread of their own: they delay only each other.
        self._compiler = ThreadPoolExecutor(1, thread_name_prefix="darkbloom-grammar")

    async def run(self) -> None:
        """Work until `close`: look after leases and threads."""
        try:
            async with asyncio.TaskGroup() as tasks:
                watching = tasks.create_task(self._watch(tasks), name="engine.watch")
                await self._closing.wait()
                watching.cancel()
                for restarting in self._restarting:
                    restarting.cancel()
        finally:
            self._closing.set()
            await asyncio.gather(*(self._take_down(slot) for slot in self._slots.values()))
            self._preparer.shutdown(wait=False)
            self._compiler.shutdown(wait=False)
            if self._prefixes is not None:
                await asyncio.to_thread(self._prefixes.close)

    async def load(self, build: Build) -> None:
        """Load weights and tokenizer on a thread of their own and measure the build."""
        known = self._slots.get(build.build_id)
        if known is not None and not known.crashed:
            return
        if build.build_id in self._loading:
            await asyncio.shield(self._loading[build.build_id])
            return

        self._loading[build.build_id] = asyncio.get_running_loop().create_future()
        try:
            await self.unload(build.build_id)
            slot = await self._new_slot(build)
            if self._prefixes is not None:
                enter = self._prefixes.enter
                await asyncio.to_thread(enter, build.build_id, build.weight_hash)
            self._slots[build.build_id] = slot
            self._budget.add_build(
                build.build_id,
                kv_bytes_per_token=slot.facts.kv_bytes_per_token,
                context=slot.facts.context,
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
        slot = self._slots.pop(build_id, None)
        if slot is not None:
            try:
                await self._take_down(slot)
            finally:
                self._budget.remove_build(build_id)

    async def submit(self, job: Job, sink: Sink) -> None:
        """Prepare the prompt, reserve KV and hand the row over."""
        slot = self._admissible(job)
        self._preparing.add(job.job_id)
        try:
            prompt = await asyncio.get_running_loop().run_in_executor(
                self._preparer,
                partial(
                    prepare,
                    job,
                    slot.facts.tokenizer,
                    context=slot.facts.context,
                    drawn_seed=self._draw(63),
                ),
            )
            prompt = await self._planned(job, prompt, slot)
            constraint = await self._constraint(slot, prompt)
            cancelled = job.job_id in self._cancelled_early
        finally:
            self._preparing.discard(job.job_id)
            self._cancelled_early.discard(job.job_id)

        if self._closing.is_set():
            raise draining()
        if self._slots.get(job.build_id) is not slot or slot.crashed:
            raise model_unavailable("build was unloaded")
        row = Row(prompt, slot.facts.tokenizer, self._new_call_id, constraint)
        self._begin(slot, job, prompt, row, sink)
        if cancelled:
            self.cancel(job.job_id)

    def cancel(self, job_id: str) -> None:
        """End a job at the next step."""
        if job_id in self._preparing:
            self._cancelled_early.add(job_id)
        slot = self._slot_of(job_id)
        if slot is not None:
            worker = slot.thread.worker
            worker.post(partial(worker.cancel_row, job_id))

    def pause(self, job_id: str) -> None:
        """Take a job's row out of the batch."""
        slot = self._slot_of(job_id)
        if slot is not None and not slot.live[job_id].lease.paused:
            slot.live[job_id].lease.pause(self._clock.monotonic(), paused=True)
            worker = slot.thread.worker
            worker.post(partial(worker.suspend_row, job_id))

    def resume(self, job_id: str) -> None:
        """Put a paused row back."""
        slot = self._slot_of(job_id)
        if slot is not None and slot.live[job_id].lease.paused:
            slot.woken(self._clock.monotonic())
            slot.live[job_id].lease.pause(self._clock.monotonic(), paused=False)
            worker = slot.thread.worker
            worker.post(partial(worker.resume_row, job_id))

    def slots(self) -> list[SlotState]:
        """Report every loaded or loading build."""
        now = self._clock.monotonic()
        states = []
        for build_id, slot in self._slots.items():
            budget = (self._budget.used_tokens(build_id), self._budget.max_tokens(build_id))
            states.append(slot.state(now, self._concurrency, budget))
        states += [
            SlotState(model=build_id, state=SlotStatus.RELOADING)
            for build_id in self._loading
            if build_id not in self._slots
        ]
        return states

    def prefix_cache(self) -> CacheFacts | None:
        """Report the cache of prompts' beginnings."""
        return None if self._prefixes is None else self._prefixes.facts()

    async def close(self) -> None:
        """End live jobs as cancelled and let `run` return."""
        self._closing.set()

    # Admission.

    def _admissible(self, job: Job) -> Slot:
        if self._closing.is_set():
            raise draining()
        if len(job.job_id) > MAX_JOB_ID_CHARS:
            raise invalid("job id is too long")
        if job.job_id in self._preparing or self._slot_of(job.job_id) is not None:
            raise capacity("job id is live", ErrorReason.TOKEN_BUDGET_EXHAUSTED, 409)
        slot = self._slots.get(job.build_id)
        if slot is None or slot.crashed:
            raise model_unavailable("build is not loaded")
        places = self._concurrency + self._limits.max_waiting
        if len(self._preparing) + len(slot.live) >= places:
            raise capacity("queue is full", ErrorReason.QUEUE_FULL)
        return slot

    async def _planned(self, job: Job, prompt: Prompt, slot: Slot) -> Prompt:
        """Say where the prompt's beginning is kept, and bring it from the disk."""
        if self._prefixes is None:
            return prompt
        prefix = self._prefixes.plan(job.cache_scope, slot.build.weight_hash, prompt.tokens)
        if prefix is None:
            return prompt
        return dataclasses.replace(prompt, prefix=await self._prefixes.stage(prefix))

    async def _constraint(self, slot: Slot, prompt: Prompt) -> GrammarConstraint | None:
        """Compile the grammar of a prompt beside the engine and beside other prompts."""
        if prompt.grammar is None:
            return None
        return await asyncio.get_running_loop().run_in_executor(
            self._compiler, slot.facts.grammars.compile, prompt.grammar
        )

    def _begin(self, slot: Slot, job: Job, prompt: Prompt, row: Row, sink: Sink) -> None:
        self._budget.reserve(job.build_id, job.job_id, len(prompt.tokens) + prompt.max_tokens)
        now = self._clock.monotonic()
        slot.woken(now)
        slot.live[job.job_id] = Live(
            sink=sink,
            prompt_tokens=len(prompt.tokens),
            max_tokens=prompt.max_tokens,
            lease=Lease(now),
        )
        worker = slot.thread.worker
        worker.post(partial(worker.add_row, job.job_id, prompt, row))

    # Loading and freeing.

    async def _new_slot(self, build: Build) -> Slot:
        loop = asyncio.get_running_loop()

        def deliver(finished: Round) -> None:
            # A loop that is closed has no sinks any more.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._receive, worker, finished)

        worker = Worker(deliver, self._loader.close, self._clock)
        thread = WorkerThread(worker, f"darkbloom-engine {build.build_id}")
        try:
            facts = await thread.call(
                partial(load_facts, self._loader, build, worker, self._concurrency, self._clock),
                LOAD_S,
            )
        except TimeoutError:
            worker.abandon()
            raise load_failed("load takes too long") from None
        except BaseException:
            worker.stop()
            raise
        slot = Slot(build, thread, facts, self._clock.monotonic())
        self._speaking[worker] = slot
        if self._closing.is_set():
            await self._take_down(slot)
            raise draining()
        return slot

    def _finish_loading(self, build_id: str, error: EngineError | None) -> None:
        future = self._loading.pop(build_id)
        if error is None:
            future.set_result(None)
            return
        future.set_exception(error)
        # Nobody may be waiting, and that is not a fault.
        future.exception()

    async def _take_down(self, slot: Slot) -> None:
        """End a slot's thread; jobs that it does not end itself end cancelled."""
        if not slot.thread.worker.abandoned and not await slot.thread.stop(STOP_S):
            _log.warning("engine_thread_given_up", build=slot.build.build_id)
        self._speaking.pop(slot.thread.worker, None)
        for job_id, live in list(slot.live.items()):
            self._end(slot, job_id, live.ended(None))

    # What the threads say.

    def _receive(self, worker: Worker, finished: Round) -> None:
        """Pass a round on to the sinks; on the event loop."""
        worker.delivered()
        slot = self._speaking.get(worker)
        if slot is None:
            return
        slot.note(finished, self._clock.monotonic())
        for event in finished.events:
            live = slot.live.get(event.job_id)
            if live is None:
                continue
            live.completion_tokens = event.completion_tokens
            if event.delta is not None:
                live.sink.on_delta(event.delta)
            if event.outcome is not None:
                self._end(slot, event.job_id, event.outcome)

    def _end(self, slot: Slot, job_id: str, outcome: Outcome) -> None:
        live = slot.live.pop(job_id)
        self._budget.release(slot.build.build_id, job_id)
        live.sink.on_end(outcome)

    # Leases and faults.

    async def _watch(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            await self._clock.sleep(WATCH_S)
            for slot in list(self._slots.values()):
                self._look_after(slot, self._clock.monotonic())
                if slot.crashed and self._restarts.allowed(slot.build.build_id):
                    task = tasks.create_task(self._restart(slot.build), name="engine.restart")
                    self._restarting.add(task)
                    task.add_done_callback(self._restarting.discard)

    def _look_after(self, slot: Slot, now: float) -> None:
        if not slot.crashed and slot.hung(now):
            _log.error("engine_thread_hung", build=slot.build.build_id)
            slot.crashed = True
            slot.thread.worker.abandon()
            self._speaking.pop(slot.thread.worker, None)
            for job_id, live in list(slot.live.items()):
                self._end(slot, job_id, live.ended(generation_failed("the engine thread hung")))
        for job_id, live in list(slot.live.items()):
            if live.lease.expired(now):
                _log.warning("lease_expired", build=slot.build.build_id, job=job_id)
                self.cancel(job_id)
                self._end(slot, job_id, live.ended(live.lease.error()))

    async def _restart(self, build: Build) -> None:
        try:
            await self.load(build)
        except EngineError as error:
            _log.error("slot_restart_failed", build=build.build_id, reason=str(error))
        else:
            _log.info("slot_restarted", build=build.build_id)

    def _slot_of(self, job_id: str) -> Slot | None:
        return next((slot for slot in self._slots.values() if job_id in slot.live), None)

    def _new_call_id(self) -> str:
        return f"call_{self._draw(96):024x}"
