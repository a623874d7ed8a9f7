"""The port between the engine thread and a model: tokens in, tokens out, rows join and leave."""

import dataclasses
from enum import Enum, auto
from pathlib import Path
from typing import NamedTuple, Protocol

from darkbloom_provider.engine.prefix.cache import Prefix
from darkbloom_provider.engine.sampling import Sampling


class Candidate(NamedTuple):
    """A token and its log probability."""

    token: int
    logprob: float


class TokenEvent(NamedTuple):
    """One generated token of one row."""

    row: int
    token: int
    ended: bool
    """The token ends a turn and is not part of the answer; the row is gone."""
    exhausted: bool
    """The row has reached its token limit; it is gone."""
    logprob: float = 0.0
    rivals: tuple[Candidate, ...] = ()
    cached: int = 0
    """Tokens of the row's prompt that were not read again."""


class StepResult(NamedTuple):
    """What one step did."""

    events: list[TokenEvent]
    prompt_tokens: int
    """Prompt tokens processed."""
    prompt_seconds: float
    decode_seconds: float
    read_rows: tuple[int, ...] = ()
    """Rows of whose prompt a chunk was read."""


class Constraint(Protocol):
    """What one row may say next: a matcher of its own, used on the engine thread only."""

    @property
    def broken(self) -> bool:
        """Whether it can follow its row no longer; the row's answer must not be given out."""
        ...

    def allowed(self, generated: int, last: int) -> bytes | None:
        """Follow the row up to its last token and give the tokens that may come next.

        Args:
            generated: Tokens that the row has drawn so far, the newest included. It grows by one
                from call to call; the same number again asks the same question again.
            last: The newest of them; without meaning when there is none.

        Returns:
            One bit per token, from the least significant bit of the first byte on; tokens beyond
            its end are forbidden. None where it is broken, and after a token that ends a turn:
            what is drawn then is never said.
        """
        ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RowSpec:
    """A row to be generated; repr is redacted."""

    tokens: list[int]
    max_tokens: int
    sampling: Sampling
    top_logprobs: int | None
    constraint: Constraint | None = None
    """Masks what the grammar of the request forbids, before sampling."""
    prefix: Prefix | None = None
    """Where the prompt's beginning may be kept; None: it is always read."""

    def __repr__(self) -> str:
        return f"RowSpec(tokens={len(self.tokens)}, <redacted>)"


class BatchModel(Protocol):
    """A loaded model that generates many rows at once.

    Every call happens on the engine thread. A row's tokens do not depend on the other rows.
    """

    kv_bytes_per_token: int
    """Measured."""
    context: int
    """Most tokens of a row, prompt included."""
    prefix_cache: str
    """As `interface.SlotState` says it."""
    decode_tps: float
    """Tokens per second of a lone row, measured after the load; 0 when it was not."""
    prefill_tps: float
    """Prompt tokens per second, measured after the load; 0 when it was not."""

    def add(self, spec: RowSpec) -> int:
        """Queue a row and give its number."""
        ...

    def step(self) -> StepResult:
        """Give each running row a token and let at most one prompt chunk be processed."""
        ...

    def remove(self, row: int) -> None:
        """Drop a row and its KV."""
        ...

    def suspend(self, row: int) -> None:
        """Take a row out of the batch and keep its KV."""
        ...

    def resume(self, row: int) -> None:
        """Put a suspended row back in the queue; it goes on with the same tokens."""
        ...

    def has_work(self) -> bool:
        """Tell whether a step would do anything."""
        ...

    def close(self) -> None:
        """Free the model."""
        ...


class SelfTest(Enum):
    """What a failed first answer after a load means."""

    OFF = auto()
    """There is none."""
    WARN = auto()
    """The log says so."""
    REFUSE = auto()
    """The model does not count as loaded."""


class ModelLoader(Protocol):
    """The library that loads models; every call happens on the engine thread."""

    def load(
        self, directory: Path, *, end_tokens: frozenset[int], max_concurrency: int
    ) -> BatchModel:
        """Load a build's weights.

        Raises:
            EngineError: The files cannot be loaded.
        """
        ...

    def close(self) -> None:
        """Free what belongs to the thread, as its last act."""
        ...
