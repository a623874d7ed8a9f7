"""What the agent knows of an engine: builds are loaded, jobs are submitted, sinks hear of them.

Promises of every engine:

- `submit` returns once the job is admitted, or raises `EngineError` and nothing else happens.
- After it returned the sink gets any number of `on_delta`, in order, and exactly one `on_end`.
  Both are called on the event loop and must not block.
- Deltas carry content and cumulative counts. None is empty and none has a finish reason: that
  belongs to the outcome, from which the agent makes the final delta.
- `cancel` ends a job at the next step; unknown ids are ignored, for a cancel may cross an end.
- `pause` stops a job's tokens after at most `PAUSE_SLACK_DELTAS` more deltas; other jobs go on.
"""

import dataclasses
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Protocol

from darkbloom_edge.delta import Delta, FinishReason
from darkbloom_edge.request import ChatRequest
from darkbloom_edge.usage import Usage

from darkbloom_provider.engine.errors import EngineError
from darkbloom_provider.engine.prefix.facts import CacheFacts

PAUSE_SLACK_DELTAS: Final = 8
"""Most deltas of a job that may still arrive after `pause`."""
MAX_JOB_ID_CHARS: Final = 256


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """A verified build on this machine."""

    build_id: str
    directory: Path | None = None
    """Where its files are; None for builds without any (`dev/…`)."""
    weight_hash: str = ""
    """Aggregate of its manifest, 64 hex characters."""
    runtime_parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """From the catalog; the scripted engine finds its script here."""
    vision: bool = False
    """Whether the engine takes images and videos for it."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One attempt to answer one request."""

    job_id: str
    """Unique among live jobs, at most 256 characters."""
    build_id: str
    request: ChatRequest
    prompt_bound: int
    """Most prompt tokens that may be charged; more is refused."""
    output_bound: int
    """Most tokens that may be generated; generation stops there."""
    cache_scope: bytes = dataclasses.field(default=b"", repr=False)
    """Who may share what is kept of the prompt, opaque; empty: nothing is kept or looked up."""


class OutcomeKind(StrEnum):
    """How a job ended."""

    COMPLETED = "completed"
    CANCELLED = "cancelled"
    ERROR = "error"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The end of a job."""

    kind: OutcomeKind
    usage: Usage
    """Exact counts from the tokenizer; the token that ends a turn is not counted."""
    finish_reason: FinishReason
    stop_sequence: str | None = None
    error: EngineError | None = None
    """Set for `error` only."""

    @property
    def last_delta(self) -> Delta:
        """What the end adds to the answer: exact counts, and why it ended; no content."""
        return Delta(
            prompt_tokens=self.usage.prompt_tokens,
            completion_tokens=self.usage.completion_tokens,
            cached_tokens=self.usage.cached_tokens,
            reasoning_tokens=self.usage.reasoning_tokens,
            finish_reason=self.finish_reason,
            stop_sequence=self.stop_sequence,
        )


class Sink(Protocol):
    """Where the events of one job go; called on the event loop."""

    def on_delta(self, delta: Delta) -> None:
        """Take the next piece."""
        ...

    def on_end(self, outcome: Outcome) -> None:
        """Take the end; nothing follows."""
        ...


class SlotStatus(StrEnum):
    """What a slot does, in the words of the heartbeat."""

    RUNNING = "running"
    IDLE = "idle"
    RELOADING = "reloading"
    CRASHED = "crashed"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SlotState:
    """Measured state of one slot, for heartbeats."""

    model: str
    state: SlotStatus
    num_running: int = 0
    num_waiting: int = 0
    max_concurrency: int = 0
    active_tokens: int = 0
    """Prompt and completion tokens of live jobs so far."""
    max_tokens_potential: int = 0
    """Prompt and greatest completion of live jobs."""
    active_token_budget_used: int = 0
    """Tokens whose KV is reserved."""
    active_token_budget_max: int = 0
    """Tokens whose KV fits."""
    kv_bytes_per_token: int = 0
    observed_decode_tps: float = 0.0
    """Moving average of one row's tokens per second."""
    observed_prefill_tps: float = 0.0
    """Moving average of prompt tokens per second."""
    model_load_time_ms: int = 0
    prefix_cache: str = ""
    """`ready`; `off`; `unsupported` where its layers forget, so that nothing can be kept."""
    wedge_suspected: bool = False
    """There is work and nothing has got on for ten seconds."""


class Engine(Protocol):
    """Turns requests into tokens."""

    async def run(self) -> None:
        """Work until `close`; the agent awaits this in its task group.

        Raises:
            Exception: The engine itself broke; every live job has got its end before.
        """
        ...

    async def load(self, build: Build) -> None:
        """Make a build ready; a no-op when it is.

        Raises:
            EngineError: It cannot be loaded here.
        """
        ...

    async def unload(self, build_id: str) -> None:
        """Free a build; its live jobs end cancelled. Unknown ids are ignored."""
        ...

    async def submit(self, job: Job, sink: Sink) -> None:
        """Admit a job.

        Raises:
            EngineError: The job is refused.
        """
        ...

    def cancel(self, job_id: str) -> None:
        """End a job at the next step."""
        ...

    def pause(self, job_id: str) -> None:
        """Stop the tokens of a job whose consumer is slow."""
        ...

    def resume(self, job_id: str) -> None:
        """Let a paused job go on."""
        ...

    def slots(self) -> list[SlotState]:
        """Report every loaded or loading build."""
        ...

    def prefix_cache(self) -> CacheFacts | None:
        """Report the cache of prompts' beginnings; None where there is none."""
        ...

    async def close(self) -> None:
        """End live jobs as cancelled and let `run` return."""
        ...
