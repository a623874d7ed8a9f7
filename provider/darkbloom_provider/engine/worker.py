"""The engine thread: the only thread that touches a model.

Commands come in through one queue and run between steps; what a round of steps gave goes out in one
call to the event loop, whatever the number of rows.
"""

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, TypeAlias

from darkbloom_edge.delta import Delta

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


class SlotReport(NamedTuple):
    """What a slot did in a round."""

    build_id: str
    crashed: bool
    result: StepResult | None


class Round(NamedTuple):
    """Everything that one round of steps gave."""

    events: list[Event]
    reports: list[SlotReport]


Command: TypeAlias = Callable[[], None]


class _Running(NamedTuple):
    job_id: str
    row: Row


class _Slot:
    def __init__(self, model: BatchModel) -> None:
        self.model = model
        self.rows: dict[int, _Running] = {}
        self.numbers: dict[str, int] = {}


class Worker:
    """The state of the engine thread.

    `post` and `stop` may be called from any thread; everything else only on the engine thread.
    """

    def __init__(self, deliver: Callable[[Round], None], release: Callable[[], None]) -> None:
        """Prepare.

        Args:
            deliver: Hands a round to the event loop; `delivered` must be called once it is there.
            release: Frees what belongs to the thread, as its last act.
        """
        self._deliver = deliver
        self._release = release
        # Bounded by use: a live job has a handful of commands, and jobs are admitted.
        self._inbox: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._undelivered = threading.Semaphore(MAX_UNDELIVERED_ROUNDS)
        self._stopping = threading.Event()
        self._slots: dict[str, _Slot] = {}
        self._events: list[Event] = []
        self._reports: list[SlotReport] = []

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

    def run(self) -> None:
        """Work until `stop`; then cancel what lives and free all models."""
        try:
            while not self._stopping.is_set():
                self._run_commands()
                for build_id, slot in list(self._slots.items()):
                    self._step(build_id, slot)
                self._flush()
        finally:
            for build_id in list(self._slots):
                self.drop_model(build_id)
            # The last round must not wait for a loop that may be closing.
            if self._events:
                self._deliver(Round(self._events, self._reports))
            self._release()

    def add_model(self, build_id: str, model: BatchModel) -> None:
        """Begin to step a model."""
        self._slots[build_id] = _Slot(model)

    def drop_model(self, build_id: str) -> None:
        """Cancel the rows of a model and free it."""
        slot = self._slots.pop(build_id, None)
        if slot is None:
            return
        for running in slot.rows.values():
            self._end(running, running.row.cancelled())
        slot.model.close()

    def add_row(self, build_id: str, job_id: str, prompt: Prompt, row: Row) -> None:
        """Queue a row; a failure becomes its outcome."""
        running = _Running(job_id, row)
        slot = self._slots.get(build_id)
        if slot is None:
            self._end(running, row.cancelled())
            return
        try:
            number = slot.model.add(
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
        slot.rows[number] = running
        slot.numbers[job_id] = number

    def cancel_row(self, build_id: str, job_id: str) -> None:
        """Drop a row before the next step; unknown ids are ignored."""
        slot = self._slots.get(build_id)
        number = None if slot is None else slot.numbers.get(job_id)
        if slot is None or number is None:
            return
        with self._guarded(build_id, slot):
            slot.model.remove(number)
            running = self._forget(slot, number)
            self._end(running, running.row.cancelled())

    def suspend_row(self, build_id: str, job_id: str) -> None:
        """Pause a row; unknown ids are ignored."""
        slot = self._slots.get(build_id)
        if slot is not None and job_id in slot.numbers:
            with self._guarded(build_id, slot):
                slot.model.suspend(slot.numbers[job_id])

    def resume_row(self, build_id: str, job_id: str) -> None:
        """Let a paused row go on; unknown ids are ignored."""
        slot = self._slots.get(build_id)
        if slot is not None and job_id in slot.numbers:
            with self._guarded(build_id, slot):
                slot.model.resume(slot.numbers[job_id])

    def _run_commands(self) -> None:
        idle = not any(slot.model.has_work() for slot in self._slots.values())
        if idle:
            self._inbox.get()()
        while True:
            try:
                command = self._inbox.get_nowait()
            except queue.Empty:
                return
            command()

    def _step(self, build_id: str, slot: _Slot) -> None:
        if not slot.model.has_work():
            return
        with self._guarded(build_id, slot):
            result = slot.model.step()
            for event in result.events:
                self._take(slot, event)
            self._reports.append(SlotReport(build_id, crashed=False, result=result))

    def _take(self, slot: _Slot, event: TokenEvent) -> None:
        running = slot.rows[event.row]
        delta, outcome = running.row.take(event)
        if outcome is not None:
            if not (event.ended or event.exhausted):
                # A stop string ended it; the model does not know yet.
                slot.model.remove(event.row)
            self._forget(slot, event.row)
        if delta is not None or outcome is not None:
            self._events.append(
                Event(running.job_id, delta, outcome, running.row.completion_tokens)
            )

    @contextlib.contextmanager
    def _guarded(self, build_id: str, slot: _Slot) -> Iterator[None]:
        """Turn any failure of a model into the end of its rows, never of the thread."""
        try:
            yield
        except Exception:  # noqa: BLE001 - a model may break in any way; its rows must still end
            del self._slots[build_id]
            for running in slot.rows.values():
                error = generation_failed("the model broke during a step")
                self._end(running, running.row.failed(error))
            self._reports.append(SlotReport(build_id, crashed=True, result=None))

    def _forget(self, slot: _Slot, number: int) -> _Running:
        running = slot.rows.pop(number)
        del slot.numbers[running.job_id]
        return running

    def _end(self, running: _Running, outcome: Outcome) -> None:
        self._events.append(Event(running.job_id, None, outcome, running.row.completion_tokens))

    def _flush(self) -> None:
        if not self._events and not self._reports:
            return
        while not self._undelivered.acquire(timeout=_DELIVERY_CHECK_S):
            if self._stopping.is_set():
                return
        finished = Round(self._events, self._reports)
        self._events, self._reports = [], []
        self._deliver(finished)
