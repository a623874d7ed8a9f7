"""An engine that plays a script: deterministic answers, chosen pace, chosen failures.

It serves tests and load behind the same interface as a real engine, and only builds of the catalog
namespace `dev/`, so no consumer can mistake its words for a model's.
"""

import asyncio
import dataclasses
from typing import Final

from darkbloom_edge.delta import Delta, FinishReason
from darkbloom_edge.messages import media_of
from darkbloom_edge.usage import Usage
from darkbloom_mesh.clock import Clock

from darkbloom_provider.engine.errors import (
    EngineError,
    ErrorReason,
    FailureCode,
    capacity,
    draining,
    generation_failed,
    invalid,
    load_failed,
    model_unavailable,
)
from darkbloom_provider.engine.interface import (
    MAX_JOB_ID_CHARS,
    PAUSE_SLACK_DELTAS,
    Build,
    Job,
    Outcome,
    OutcomeKind,
    Sink,
    SlotState,
    SlotStatus,
)
from darkbloom_provider.engine.prefix.facts import CacheFacts
from darkbloom_provider.engine.script import (
    Script,
    answer_deltas,
    own_script,
    parse_script,
    prompt_tokens_of,
    script_of,
)
from darkbloom_provider.engine.splitter import Splitter

__all__ = ["NAMESPACE", "ScriptedEngine", "parse_script"]

NAMESPACE: Final = "dev/"
MAX_LIVE: Final = 4096
"""Most live jobs of one engine."""
_BURST: Final = PAUSE_SLACK_DELTAS
"""Deltas of one job between two turns of the loop."""
_SHORT_S: Final = 0.1
"""A pause this short is slept through; a cancel may wait so long for its effect."""
_KV_BYTES_PER_TOKEN: Final = 1
_TOKEN_BUDGET: Final = 1 << 30
_NOMINAL_TPS: Final = 500.0


@dataclasses.dataclass(slots=True)
class _Live:
    job: Job
    script: Script
    sink: Sink
    prompt_tokens: int
    usage: Usage
    due_s: float = 0.0
    """When the last delta was due, on the clock."""
    cancelled: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    running: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    """Cleared while paused."""

    @property
    def limit(self) -> int:
        return min(self.job.request.max_tokens, self.job.output_bound)


class ScriptedEngine:
    """Plays scripts; see `interface.Engine` for its promises and `script` for the language."""

    def __init__(
        self, *, script: Script | None = None, clock: Clock, max_concurrency: int = MAX_LIVE
    ) -> None:
        """Prepare.

        Args:
            script: For requests without a directive.
            clock: For the pace.
            max_concurrency: Live jobs in all; one more is refused.
        """
        self._script = Script() if script is None else script
        self._clock = clock
        self._max_concurrency = min(max_concurrency, MAX_LIVE)
        self._builds: set[str] = set()
        self._seeing: set[str] = set()
        self._live: dict[str, _Live] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._closing = asyncio.Event()
        self._began_s = clock.monotonic()

    async def run(self) -> None:
        """Work until `close`."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            await self._closing.wait()
            for live in self._live.values():
                live.cancelled.set()

    async def load(self, build: Build) -> None:
        """Accept a build of the `dev/` namespace.

        Raises:
            EngineError: Any other build.
        """
        if not build.build_id.startswith(NAMESPACE):
            raise load_failed("the scripted engine serves only builds of the dev/ namespace")
        if self._script.load_s:
            await self._clock.sleep(self._script.load_s)
        self._builds.add(build.build_id)
        if build.vision:
            self._seeing.add(build.build_id)

    async def unload(self, build_id: str) -> None:
        """Forget a build."""
        self._builds.discard(build_id)
        self._seeing.discard(build_id)
        for live in self._live.values():
            if live.job.build_id == build_id:
                live.cancelled.set()

    async def submit(self, job: Job, sink: Sink) -> None:
        """Begin to play.

        Raises:
            EngineError: Closing, unknown build, live id, full, over a bound, or as scripted.
        """
        if self._closing.is_set() or self._tasks is None:
            raise draining()
        if job.build_id not in self._builds:
            raise model_unavailable("build is not loaded")
        if len(job.job_id) > MAX_JOB_ID_CHARS:
            raise invalid("job id is too long")
        if job.job_id in self._live:
            raise capacity("job id is live", ErrorReason.TOKEN_BUDGET_EXHAUSTED, 409)
        if len(self._live) >= self._max_concurrency:
            raise capacity("queue is full", ErrorReason.QUEUE_FULL)

        script = script_of(job.request, own_script(self._script, job.build_id))
        if script.refuse is not None:
            raise capacity("refused by the script", script.refuse)
        if job.build_id not in self._seeing and any(True for _ in media_of(job.request.messages)):
            raise invalid("this build takes text only")
        prompt_tokens = prompt_tokens_of(job.request, script)
        if prompt_tokens > job.prompt_bound:
            raise EngineError(
                "prompt has more tokens than its bound",
                FailureCode.INVALID_REQUEST,
                ErrorReason.BOUND_EXCEEDED,
                400,
            )
        live = _Live(
            job=job,
            script=script,
            sink=sink,
            prompt_tokens=prompt_tokens,
            usage=Usage(prompt_tokens, 0),
        )
        live.running.set()
        self._live[job.job_id] = live
        self._tasks.create_task(self._play(live))

    def cancel(self, job_id: str) -> None:
        """End a job before its next delta."""
        live = self._live.get(job_id)
        if live is not None:
            live.cancelled.set()

    def pause(self, job_id: str) -> None:
        """Hold a job's deltas back."""
        live = self._live.get(job_id)
        if live is not None:
            live.running.clear()

    def resume(self, job_id: str) -> None:
        """Let a paused job go on."""
        live = self._live.get(job_id)
        if live is not None:
            live.running.set()

    def slots(self) -> list[SlotState]:
        """Report every build."""
        return [self._slot(build_id) for build_id in sorted(self._builds)]

    def prefix_cache(self) -> CacheFacts | None:
        """Report that there is none: a script reads nothing."""
        return None

    async def close(self) -> None:
        """End live jobs as cancelled and let `run` return."""
        self._closing.set()

    async def _play(self, live: _Live) -> None:
        try:
            outcome = await self._outcome(live)
        finally:
            del self._live[live.job.job_id]
        live.sink.on_end(outcome)

    async def _outcome(self, live: _Live) -> Outcome:
        script = live.script
        if not await self._wait(live, script.first_delay_s):
            return _cancelled(live)
        if script.fail_before_content:
            return _failed(live)

        live.due_s = self._beat(script.interval_s)
        stops = Splitter(stops=live.job.request.stop or (), new_call_id=str)
        deltas = answer_deltas(script, prompt_tokens=live.prompt_tokens, limit=live.limit)
        for number, delta in enumerate(deltas):
            if number == script.fail_after_deltas:
                return _failed(live)
            if not await self._turn(live, number):
                return _cancelled(live)
            if _send(live, stops, delta):
                return _completed(live, "stop", stops.stop_sequence)
        return _finish(live, stops)

    async def _turn(self, live: _Live, number: int) -> bool:
        """Wait as long as the script, a pause and fairness want; tell whether to go on."""
        if number == live.script.stall_after_deltas:
            await live.cancelled.wait()
        elif number and live.script.interval_s:
            await self._pace(live)
        elif number % _BURST == _BURST - 1:
            await self._clock.sleep(0)
        if not live.running.is_set():
            await self._wait(live, 0)
        return not live.cancelled.is_set()

    def _beat(self, interval_s: float) -> float:
        """Give the latest beat of a pace on the clock: rows of one pace step together.

        That is what a batch of a real engine does, so a lane carries their deltas in one message.
        """
        since_s = self._clock.monotonic() - self._began_s
        return self._began_s + (since_s // interval_s * interval_s if interval_s else since_s)

    async def _pace(self, live: _Live) -> None:
        """Wait for the next delta's turn; what came late does not delay those after it."""
        live.due_s += live.script.interval_s
        seconds = max(0.0, live.due_s - self._clock.monotonic())
        # Hundreds of paced streams are load for others to bear: two tasks a delta are too many.
        if seconds <= _SHORT_S:
            await self._clock.sleep(seconds)
        else:
            await self._wait(live, seconds)

    async def _wait(self, live: _Live, seconds: float) -> bool:
        """Wait for a time and for the pause to end, or until the job is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            cancelled = tasks.create_task(live.cancelled.wait())
            ready = tasks.create_task(self._ready(live, seconds))
            await asyncio.wait((cancelled, ready), return_when=asyncio.FIRST_COMPLETED)
            cancelled.cancel()
            ready.cancel()
        return not live.cancelled.is_set()

    async def _ready(self, live: _Live, seconds: float) -> None:
        if seconds:
            await self._clock.sleep(seconds)
        await live.running.wait()

    def _slot(self, build_id: str) -> SlotState:
        live = [one for one in self._live.values() if one.job.build_id == build_id]
        used = sum(one.prompt_tokens + one.limit for one in live)
        return SlotState(
            model=build_id,
            state=SlotStatus.RUNNING if live else SlotStatus.IDLE,
            num_running=len(live),
            max_concurrency=self._max_concurrency,
            active_tokens=sum(
                one.usage.prompt_tokens + one.usage.completion_tokens for one in live
            ),
            max_tokens_potential=used,
            active_token_budget_used=used,
            active_token_budget_max=_TOKEN_BUDGET,
            kv_bytes_per_token=_KV_BYTES_PER_TOKEN,
            observed_decode_tps=_NOMINAL_TPS,
            observed_prefill_tps=_NOMINAL_TPS,
        )


def _send(live: _Live, stops: Splitter, delta: Delta) -> bool:
    """Send what of a delta comes before a stop string; tell whether there was one."""
    if live.job.request.stop and delta.text:
        delta = _with_text(delta, stops.push(delta.text).text)
    live.usage = Usage(
        live.prompt_tokens, delta.completion_tokens, reasoning_tokens=delta.reasoning_tokens
    )
    if delta.has_content:
        live.sink.on_delta(delta)
    return stops.stop_sequence is not None


def _finish(live: _Live, stops: Splitter) -> Outcome:
    held = stops.finish().text
    if held:
        usage = live.usage
        live.sink.on_delta(
            Delta(
                text=held,
                prompt_tokens=usage.prompt_tokens,
                completion_tokens=usage.completion_tokens,
                reasoning_tokens=usage.reasoning_tokens,
            )
        )
    made = live.usage.completion_tokens - live.script.inflate_tokens
    if made >= live.limit:
        return _completed(live, "length", None)
    return _completed(live, "tool_calls" if live.script.tool_calls else "stop", None)


def _with_text(delta: Delta, text: str) -> Delta:
    return Delta(
        text=text,
        reasoning=delta.reasoning,
        tool_calls=delta.tool_calls,
        prompt_tokens=delta.prompt_tokens,
        completion_tokens=delta.completion_tokens,
        reasoning_tokens=delta.reasoning_tokens,
    )


def _completed(live: _Live, reason: FinishReason, stop: str | None) -> Outcome:
    return Outcome(
        kind=OutcomeKind.COMPLETED, usage=live.usage, finish_reason=reason, stop_sequence=stop
    )


def _cancelled(live: _Live) -> Outcome:
    return Outcome(kind=OutcomeKind.CANCELLED, usage=live.usage, finish_reason="cancelled")


def _failed(live: _Live) -> Outcome:
    return Outcome(
        kind=OutcomeKind.ERROR,
        usage=live.usage,
        finish_reason="cancelled",
        error=generation_failed("failed by the script"),
    )
