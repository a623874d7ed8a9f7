"""The rows of one model: which waits, which is read next, which decodes.

Each step first gives every decoding row its next token and then reads prompts, one chunk of tokens
in all. A newcomer is therefore begun in the step after its arrival, a running row never waits for
more than one chunk, and short prompts overtake long ones between chunks.
"""

from collections import deque
from typing import Any, Final

import mlx.core as mx
from darkbloom_mesh.clock import Clock
from mlx_lm.models.cache import make_prompt_cache

from darkbloom_provider.engine.batch import RowSpec, StepResult, TokenEvent
from darkbloom_provider.engine.mlx.choosing import report
from darkbloom_provider.engine.mlx.decoding import Decoding, Said
from darkbloom_provider.engine.mlx.prefill import next_to_read, read_chunk
from darkbloom_provider.engine.mlx.prefix import Prefixes
from darkbloom_provider.engine.mlx.row import Row
from darkbloom_provider.engine.prefix.cache import PrefixCache

TIDY_EVERY: Final = 256
"""Steps between two times that memory which mlx keeps for reuse is given back."""


class MlxBatch:
    """One model and its rows.

    Invariant: a row is in exactly one of `_waiting`, `_reading`, `_ready`, the decoding rows and
    `_suspended`; the middle three together are at most `max_concurrency`.
    """

    def __init__(
        self,
        model: Any,
        *,
        context: int,
        kv_bytes_per_token: int,
        end_tokens: frozenset[int],
        max_concurrency: int,
        chunk_tokens: int,
        clock: Clock,
        prefixes: PrefixCache | None = None,
    ) -> None:
        self.context = context
        self.kv_bytes_per_token = kv_bytes_per_token
        self.decode_tps = self.prefill_tps = 0.0
        self._model = model
        self._end_tokens = end_tokens
        self._places = max_concurrency
        self._chunk_tokens = chunk_tokens
        self._prefixes = None if prefixes is None else Prefixes(prefixes, model, chunk_tokens)
        self.prefix_cache = "off" if self._prefixes is None else self._prefixes.state
        self._clock = clock
        self._rows: dict[int, Row] = {}
        self._waiting: deque[Row] = deque()
        self._reading: dict[int, Row] = {}
        self._ready: list[Row] = []
        self._decoding = Decoding(model)
        self._suspended: set[int] = set()
        self._next_row = 0
        self._chunks = 0
        self._steps = 0

    def add(self, spec: RowSpec) -> int:
        """Queue a row."""
        row = Row.of(self._next_row, spec)
        self._next_row += 1
        self._rows[row.number] = row
        self._waiting.append(row)
        return row.number

    def step(self) -> StepResult:
        """Give each decoding row its token and read one chunk of prompts."""
        began = self._clock.monotonic()
        self._decoding.join(self._ready)
        self._ready = []
        events = [self._event(said) for said in self._decoding.step()]
        self._decoding.drop([self._rows.pop(event.row) for event in events if _over(event)])
        decoded = self._clock.monotonic()
        read = self._read()
        self._tidy()
        return StepResult(
            events=events,
            prompt_tokens=sum(read.values()),
            prompt_seconds=self._clock.monotonic() - decoded,
            decode_seconds=decoded - began,
            read_rows=tuple(read),
        )

    def remove(self, row: int) -> None:
        """Drop a row; one that is gone already is ignored."""
        gone = self._rows.pop(row, None)
        if gone is not None and not self._leave_queues(gone):
            self._decoding.drop([gone])

    def suspend(self, row: int) -> None:
        """Take a row out with its KV."""
        suspended = self._rows[row]
        if row in self._suspended:
            return
        if not self._leave_queues(suspended):
            self._decoding.take_out(suspended)
        self._suspended.add(row)

    def resume(self, row: int) -> None:
        """Queue a suspended row again, before those that have not begun."""
        if row in self._suspended:
            self._suspended.discard(row)
            self._waiting.appendleft(self._rows[row])

    def has_work(self) -> bool:
        """Tell whether any row is not suspended."""
        return len(self._rows) > len(self._suspended)

    def close(self) -> None:
        """Free the model."""
        self._rows.clear()
        self._waiting.clear()
        self._reading.clear()
        self._ready.clear()
        self._suspended.clear()
        self._decoding = Decoding(None)
        self._model = None
        mx.clear_cache()

    def _read(self) -> dict[int, int]:
        """Read up to one chunk of prompts; give the tokens read by row."""
        self._admit()
        tokens: dict[int, int] = {}
        while self._reading and sum(tokens.values()) < self._chunk_tokens:
            row = next_to_read(self._reading.values(), self._chunks)
            read = read_chunk(self._model, row, self._chunk_tokens)
            tokens[row.number] = tokens.get(row.number, 0) + read
            self._chunks += 1
            if not row.unread:
                del self._reading[row.number]
                self._ready.append(row)
                if self._prefixes is not None:
                    self._prefixes.end(row)
        return tokens

    def _admit(self) -> None:
        taken = len(self._decoding) + len(self._reading) + len(self._ready)
        while self._waiting and taken < self._places:
            row = self._waiting.popleft()
            taken += 1
            known = self._prefixes is not None and row.cache is None and self._prefixes.begin(row)
            if row.cache is None and not known:
                row.cache, row.covered = make_prompt_cache(self._model), 0
            if row.unread:
                self._reading[row.number] = row
            else:
                self._ready.append(row)

    def _leave_queues(self, row: Row) -> bool:
        """Take a row out of where rows wait; False when it is decoding."""
        number = row.number
        if number in self._suspended:
            self._suspended.discard(number)
        elif number in self._reading:
            del self._reading[number]
        elif row in self._ready:
            self._ready.remove(row)
        elif row in self._waiting:
            self._waiting.remove(row)
        else:
            return False
        return True

    def _event(self, said: Said) -> TokenEvent:
        row, token = said.row, said.token
        ended = token in self._end_tokens
        exhausted = row.said >= row.spec.max_tokens
        event = TokenEvent(row.number, token, ended, exhausted, cached=row.cached)
        if said.logprobs is None or row.spec.top_logprobs is None or ended:
            return event
        logprob, rivals = report(said.logprobs, token, row.spec.top_logprobs)
        return event._replace(logprob=logprob, rivals=rivals)

    def _tidy(self) -> None:
        self._steps += 1
        if not self.has_work():
            mx.clear_cache()
        elif self._steps % TIDY_EVERY == 0:
            self._decoding.settle()
            mx.clear_cache()


def _over(event: TokenEvent) -> bool:
    return event.ended or event.exhausted
