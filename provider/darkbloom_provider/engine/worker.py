"""The engine thread of one build: the only thread that touches its model.

Commands come in through one queue and run between steps; what a round of steps gave goes out in one
call to the event loop, whatever the number of rows. A thread cannot be ended from outside, so one
that hangs is abandoned: what it says afterwards is dropped, and a new thread takes its place.
"""

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, TypeAlias

from darkbloom_edge.delta import Delta
from darkbloom_mesh.clock import Clock

from darkbloom_provider.engine.batch import BatchModel, RowSpec, StepResult, TokenEvent
from darkbloom_provider.engine.errors import EngineError, generation_failed
from darkbloom_provider.engine.interface import PAUSE_SLACK_DELTAS, Outcome
from darkbloom_provider.engine.prompt import Prompt
from darkbloom_provider.engine.row import Row

MAX_UNDELIVERED_ROUNDS: Final = PAUSE_SLACK_DELTAS - 2
"""Rounds that may wait for the event loop before the engine waits for it.

One more may be in a step and one between steps, so this keeps the promise of `pause`.
"""
_DELIVERY_CHECK_S: Final = 0.1


class Event(NamedTuple):
    """Something that a job's sink must hear."""

    job_id: str
    delta: Delta | None
    outcome: Outcome | None
    completion_tokens: int


class Round(NamedTuple):
    """Everything that one step and the commands before it gave."""

    events: list[Event]
    progressed: list[str]
    """Jobs of which prompt was read or a token drawn."""
    result: StepResult | None
    broken: bool
    """The model broke; its rows have ended."""


Command: TypeAlias = Callable[[], None]


class _Running(NamedTuple):
    job_id: str
    row: Row


class Worker:
    """The state of one engine thread.

    `post`, `stop`, `abandon` and `busy_since` may be used from any thread; everything else only on
    the engine thread.

    Args:
        deliver: Hands a round to the event loop; `delivered` must be called once it is there.
        release: Frees what belongs to the thread, as its last act.
        clock: For `busy_since`.
    """

    def __init__(
        self, deliver: Callable[[Round], None], release: Callable[[], None], clock: Clock
    ) -> None:
        self.busy_since: float | None = None
        """When the step or command that runs now began, monotonic; None between them."""
        self._deliver = deliver
        self._release = release
        self._clock = clock
        # Bounded by use: a live job has a handful of commands, and jobs are admitted.
        self._inbox: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._undelivered = threading.Semaphore(MAX_UNDELIVERED_ROUNDS)
        self._stopping = threading.Event()
        self._abandoned = threading.Event()
        self._model: BatchModel | None = None
        self._broken = False
        self._rows: dict[int, _Running] = {}
        self._numbers: dict[str, int] = {}
        self._events: list[Event] = []
        self._progressed: list[str] = []

    def post(self, command: Command) -> None:
        """Let the engine thread run something between two steps."""
        self._inbox.put(command)

    def delivered(self) -> None:
        """Tell that one round has reached the event loop."""
        self._undelivered.release()

    def stop(self) -> None:
        """Let `run` return soon."""
        self._stopping.set()
        self.post(lambda: None)

    @property
    def abandoned(self) -> bool:
        """Whether nobody listens to the thread any more."""
        return self._abandoned.is_set()

    def abandon(self) -> None:
        """Drop whatever the thread still says, and let it go if it ever comes back."""
        self._abandoned.set()
        self.stop()

    def run(self) -> None:
        """Work until `stop`; then cancel what lives and free the model."""
        try:
            while not self._stopping.is_set():
                self._run_commands()
                self._flush(self._step())
        finally:
            self._drop_model()
            # The last round must not wait for a loop that may be closing.
            if self._events and not self.abandoned:
                self._deliver(Round(self._events, [], None, self._broken))
            self._release()

    def host(self, model: BatchModel) -> None:
        """Begin to step a model."""
        self._model = model
        # The load that ends here may have been long, and only now is looked after.
        self.busy_since = self._clock.monotonic()

    def add_row(self, job_id: str, prompt: Prompt, row: Row) -> None:
        """Queue a row; a failure becomes its outcome."""
        running = _Running(job_id, row)
        if self._model is None:
            self._end(running, row.cancelled())
            return
        try:
            number = self._model.add(
                RowSpec(
                    tokens=prompt.tokens,
                    max_tokens=prompt.max_tokens,
                    sampling=prompt.sampling,
                    top_logprobs=prompt.top_logprobs,
                    prefix=prompt.prefix,
                    constraint=row.constraint,
                )
            )
        except EngineError as error:
            self._end(running, row.failed(error))
            return
        except Exception:
            self._end(running, row.failed(generation_failed("the model took no row")))
            raise
        self._rows[number] = running
        self._numbers[job_id] = number

    def cancel_row(self, job_id: str) -> None:
        """Drop a row before the next step; unknown ids are ignored."""
        if self._model is not None and job_id in self._numbers:
            self._model.remove(self._numbers[job_id])
            running = self._forget(self._numbers[job_id])
            self._end(running, running.row.cancelled())

    def suspend_row(self, job_id: str) -> None:
        """Pause a row; unknown ids are ignored."""
        if self._model is not None and job_id in self._numbers:
            self._model.suspend(self._numbers[job_id])

    def resume_row(self, job_id: str) -> None:
        """Let a paused row go on; unknown ids are ignored."""
        if self._model is not None and job_id in self._numbers:
            self._model.resume(self._numbers[job_id])

    def _run_commands(self) -> None:
        if self._model is None or not self._model.has_work():
            self._do(self._inbox.get())
        while True:
            try:
                command = self._inbox.get_nowait()
            except queue.Empty:
                return
            self._do(command)

    def _do(self, command: Command) -> None:
        self.busy_since = self._clock.monotonic()
        with self._guarded():
            command()
        self.busy_since = None

    def _step(self) -> StepResult | None:
        result = None
        with self._guarded() as model:
            if model is not None and model.has_work():
                self.busy_since = self._clock.monotonic()
                result = model.step()
                self._progressed += [
                    self._rows[row].job_id for row in result.read_rows if row in self._rows
                ]
                for event in result.events:
                    self._take(model, event)
        self.busy_since = None
        return result

    def _take(self, model: BatchModel, event: TokenEvent) -> None:
        running = self._rows[event.row]
        self._progressed.append(running.job_id)
        delta, outcome = running.row.take(event)
        if outcome is not None:
            if not (event.ended or event.exhausted):
                # A stop string ended it; the model does not know yet.
                model.remove(event.row)
            self._forget(event.row)
        if delta is not None or outcome is not None:
            self._events.append(
                Event(running.job_id, delta, outcome, running.row.completion_tokens)
            )

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[BatchModel | None]:
        """Turn any failure of the model into the end of its rows, never of the thread."""
        try:
            yield self._model
        except Exception:  # noqa: BLE001 - a model may break in any way; its rows must still end
            self._model = None
            self._broken = True
            for running in self._rows.values():
                error = generation_failed("the model broke during a step")
                self._end(running, running.row.failed(error))
            self._rows.clear()
            self._numbers.clear()

    def _drop_model(self) -> None:
        error = None if self._stopping.is_set() else generation_failed("the engine thread broke")
        for running in self._rows.values():
            row = running.row
            self._end(running, row.cancelled() if error is None else row.failed(error))
        self._rows.clear()
        model, self._model = self._model, None
        if model is not None:
            model.close()

    def _forget(self, number: int) -> _Running:
        running = self._rows.pop(number)
        del self._numbers[running.job_id]
        return running

    def _end(self, running: _Running, outcome: Outcome) -> None:
        self._events.append(Event(running.job_id, None, outcome, running.row.completion_tokens))

    def _flush(self, result: StepResult | None) -> None:
        if not self._events and result is None and not self._broken:
            return
        while not self._undelivered.acquire(timeout=_DELIVERY_CHECK_S):
            if self._stopping.is_set():
                return
        if self.abandoned:
            return
        finished = Round(self._events, self._progressed, result, self._broken)
        self._events, self._progressed = [], []
        self._deliver(finished)
