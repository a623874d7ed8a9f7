"""The rows that decode together: each step gives each of them one token.

The forward pass of a step runs while the tokens of the step before are looked at, so a token is
*drawn* one step before it is *said*. A row enters with the last token of its prompt as its input
and shares its first forward pass with the others.
"""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import mlx.core as mx
from mlx_lm.models.cache import TokenBuffer

from darkbloom_provider.engine.mlx.choosing import draw, log_probabilities
from darkbloom_provider.engine.mlx.row import Drawn, Row

# Untyped upstream.
_async_eval: Final[Any] = mx.async_eval
_TokenBuffer: Final[Any] = TokenBuffer


class Said(NamedTuple):
    """A token that a row says."""

    row: Row
    token: int
    logprobs: mx.array | None
    """Shape (vocabulary,); None where nobody asked."""


class _Seat:
    """A row in the batch, with what only its presence needs."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self.known = row.drawn is None
        """Its input is the last token of its history, not a drawn one that is still to be said."""
        self.logprobs = None if row.drawn is None else row.drawn.logprobs
        read = row.history[:-1] if self.known else row.history
        # The input joins the context in the step that feeds it.
        self.context = _TokenBuffer(read) if row.processors else None

    @property
    def input(self) -> int:
        drawn = self.row.drawn
        return self.row.history[-1] if drawn is None else drawn.token

    @property
    def exhausted(self) -> bool:
        """Whether the drawn token is the last one that the row may say."""
        return not self.known and self.row.said + 1 >= self.row.spec.max_tokens


class Decoding:
    """Rows in one batched cache.

    Invariant: `_seats`, `_inputs` and the rows of `_cache` have the same order.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._seats: list[_Seat] = []
        self._inputs: Any = None
        self._cache: list[Any] = []

    def __len__(self) -> int:
        return len(self._seats)

    def join(self, rows: list[Row]) -> None:
        """Take rows in that have nothing unread."""
        if not rows:
            return
        caches = [row.cache or [] for row in rows]
        merged = [layers[0].merge(list(layers)) for layers in zip(*caches, strict=True)]
        seats = [_Seat(row) for row in rows]
        inputs = mx.array([seat.input for seat in seats])
        for row in rows:
            row.cache = row.drawn = None
        if self._seats:
            for layer, more in zip(self._cache, merged, strict=True):
                layer.extend(more)
            self._inputs = mx.concatenate([self._inputs, inputs])
        else:
            self._cache, self._inputs = merged, inputs
        self._seats += seats

    def step(self) -> list[Said]:
        """Say what was drawn, and begin to draw what follows.

        A row that says its last token is gone afterwards. One that ends for another reason is
        dropped by the caller.
        """
        if not self._seats:
            return []
        inputs = self._inputs
        saying = [(seat, seat.known, seat.logprobs) for seat in self._seats]
        self._keep([not seat.exhausted for seat in self._seats])
        if self._seats:
            self._forward()

        mx.eval(inputs)
        said = []
        for (seat, known, logprobs), token in zip(saying, inputs.tolist(), strict=True):
            if not known:
                seat.row.history.append(token)
                said.append(Said(seat.row, token, logprobs))
        return said

    def drop(self, rows: Iterable[Row]) -> None:
        """Let rows go without their KV; those that are not here are ignored."""
        gone = {row.number for row in rows}
        self._keep([seat.row.number not in gone for seat in self._seats])

    def take_out(self, row: Row) -> bool:
        """Let a row go with its KV, so that it can join again at the same token.

        Returns:
            Whether it was here.
        """
        places = [index for index, seat in enumerate(self._seats) if seat.row is row]
        if not places:
            return False
        (index,) = places
        seat = self._seats[index]
        row.cache = [layer.extract(index) for layer in self._cache]
        mx.eval([layer.state for layer in row.cache if not layer.empty()])
        row.covered = len(row.history)
        row.drawn = Drawn(int(self._inputs[index].item()), seat.logprobs)
        self.drop([row])
        return True

    def settle(self) -> None:
        """Begin to evaluate what steps leave lazy, so that no graph grows for ever."""
        _async_eval([layer.state for layer in self._cache if not layer.empty()])

    def _keep(self, stays: list[bool]) -> None:
        if all(stays):
            return
        places = [index for index, stay in enumerate(stays) if stay]
        self._seats = [self._seats[index] for index in places]
        if not places:
            self._inputs, self._cache = None, []
            return
        self._inputs = self._inputs[mx.array(places)]
        for layer in self._cache:
            layer.filter(places)

    def _forward(self) -> None:
        logits = self._model(self._inputs[:, None], cache=self._cache)[:, -1, :]
        contexts: list[mx.array] = []
        # Greedy rows without wishes are chosen in one call.
        if all(_is_plain(seat.row) for seat in self._seats):
            drawn = mx.argmax(logits, axis=-1)
        else:
            rows = [
                self._choose(index, seat, logits, contexts)
                for index, seat in enumerate(self._seats)
            ]
            drawn = mx.concatenate(rows)
        self._inputs = drawn
        for seat in self._seats:
            seat.known = False
        wanted = [seat.logprobs for seat in self._seats if seat.logprobs is not None]
        _async_eval(drawn, wanted, contexts)

    def _choose(
        self, index: int, seat: _Seat, logits: mx.array, contexts: list[mx.array]
    ) -> mx.array:
        row, own = seat.row, logits[index : index + 1]
        if seat.context is not None:
            context = seat.context.update_and_fetch(self._inputs[index : index + 1])
            contexts.append(context)
            for process in row.processors:
                own = process(context, own)
        if row.spec.top_logprobs is not None:
            seat.logprobs = log_probabilities(own.astype(mx.float32))
        if row.spec.sampling.temperature == 0.0:
            return mx.argmax(own, axis=-1)
        position = row.said + (0 if seat.known else 1)
        return draw(own.astype(mx.float32), row.spec.sampling, position)


def _is_plain(row: Row) -> bool:
    spec = row.spec
    return not row.processors and spec.top_logprobs is None and spec.sampling.temperature == 0.0
