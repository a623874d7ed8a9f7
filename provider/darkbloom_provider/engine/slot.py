"""One build in memory: its thread, what was measured of it, and the jobs that it answers."""

import dataclasses
from collections.abc import Callable
from typing import Final

from darkbloom_edge.usage import Usage

from darkbloom_provider.engine.constraint import GrammarCompiler
from darkbloom_provider.engine.errors import EngineError
from darkbloom_provider.engine.interface import (
    Build,
    Outcome,
    OutcomeKind,
    Sink,
    SlotState,
    SlotStatus,
)
from darkbloom_provider.engine.leases import STEP_S, WEDGE_S, Lease
from darkbloom_provider.engine.rates import Rate
from darkbloom_provider.engine.thread import WorkerThread
from darkbloom_provider.engine.tokenizer import Tokenizer
from darkbloom_provider.engine.worker import Round

MAX_RESTARTS: Final = 3
RESTART_WINDOW_S: Final = 600.0
"""A slot that breaks more often within this stays crashed until somebody asks for it."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a load has found out."""

    tokenizer: Tokenizer
    grammars: GrammarCompiler
    context: int
    kv_bytes_per_token: int
    prefix_cache: str
    decode_tps: float
    prefill_tps: float
    load_time_ms: int


@dataclasses.dataclass(slots=True, kw_only=True)
class Live:
    """A job between its admission and its end."""

    sink: Sink
    prompt_tokens: int
    max_tokens: int
    lease: Lease
    completion_tokens: int = 0

    def ended(self, error: EngineError | None) -> Outcome:
        """Give the outcome of a job that the engine thread does not end: an error or a cancel."""
        return Outcome(
            kind=OutcomeKind.CANCELLED if error is None else OutcomeKind.ERROR,
            usage=Usage(self.prompt_tokens, self.completion_tokens),
            finish_reason="cancelled",
            error=error,
        )


class Slot:
    """A loaded build.

    Args:
        build: What is loaded.
        thread: Where; nobody else calls into the model.
        facts: Of the load.
        now: Seconds of the monotonic clock.
    """

    def __init__(self, build: Build, thread: WorkerThread, facts: Facts, now: float) -> None:
        self.build = build
        self.thread = thread
        self.facts = facts
        self.live: dict[str, Live] = {}
        self.crashed = False
        self.decode, self.prefill = Rate(facts.decode_tps), Rate(facts.prefill_tps)
        self._progress = now
        self._late_since: float | None = None

    def note(self, finished: Round, now: float) -> None:
        """Take note of a round: rates and progress."""
        self._progress = now
        self.crashed = self.crashed or finished.broken
        if finished.result is not None:
            steps = 1 if finished.result.events else 0
            self.decode.add(steps, finished.result.decode_seconds)
            self.prefill.add(finished.result.prompt_tokens, finished.result.prompt_seconds)
        for job_id in finished.progressed:
            live = self.live.get(job_id)
            if live is not None and not live.lease.paused:
                live.lease.renew(now)

    def woken(self, now: float) -> None:
        """Note that the slot has work that it may not have had before."""
        if not self._has_work():
            self._progress = now

    def hung(self, now: float) -> bool:
        """Look whether the thread is inside one step or command for too long, or is gone.

        It has to be seen twice: a machine that stood still as a whole has hung nowhere.
        """
        if self.thread.ended.is_set():
            return True
        since = self.thread.worker.busy_since
        late = since is not None and now - since > STEP_S
        seen, self._late_since = self._late_since, since if late else None
        return late and seen == since

    def state(self, now: float, concurrency: int, budget: tuple[int, int]) -> SlotState:
        """Give what heartbeats say of it.

        Args:
            now: Seconds of the monotonic clock.
            concurrency: Rows that generate at once.
            budget: Tokens whose KV is reserved, and that fit.
        """
        jobs, facts = self.live.values(), self.facts
        running = min(len(self.live), concurrency)
        status = SlotStatus.RUNNING if self.live else SlotStatus.IDLE
        return SlotState(
            model=self.build.build_id,
            state=SlotStatus.CRASHED if self.crashed else status,
            num_running=running,
            num_waiting=len(self.live) - running,
            max_concurrency=concurrency,
            active_tokens=sum(job.prompt_tokens + job.completion_tokens for job in jobs),
            max_tokens_potential=sum(job.prompt_tokens + job.max_tokens for job in jobs),
            active_token_budget_used=budget[0],
            active_token_budget_max=budget[1],
            kv_bytes_per_token=facts.kv_bytes_per_token,
            prefix_cache=facts.prefix_cache,
            observed_decode_tps=self.decode.per_second,
            observed_prefill_tps=self.prefill.per_second,
            model_load_time_ms=facts.load_time_ms,
            wedge_suspected=self._has_work() and now - self._progress > WEDGE_S,
        )

    def _has_work(self) -> bool:
        return any(not live.lease.paused for live in self.live.values())


class Restarts:
    """How often each build was restarted of late."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._times: dict[str, list[float]] = {}

    def allowed(self, build_id: str) -> bool:
        """Count one more restart, or refuse it."""
        now = self._monotonic()
        times = [at for at in self._times.get(build_id, ()) if now - at < RESTART_WINDOW_S]
        if len(times) >= MAX_RESTARTS:
            return False
        self._times[build_id] = [*times, now]
        return True
