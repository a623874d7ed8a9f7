"""The collector of cycles as the router sets it, and what its pauses cost here."""

import gc
from time import perf_counter
from types import TracebackType
from typing import Self

_THRESHOLDS = (50_000, 20, 20)
"""As `darkbloom_mesh.serve` sets them for every room."""


class Collector:
    """Within its context the collector runs as in production, and each pause is counted."""

    def __init__(self) -> None:
        self.pauses = 0
        self.most_s = 0.0
        """The longest pause."""
        self._since = 0.0
        self._before = gc.get_threshold()

    def __enter__(self) -> Self:
        """Set it, once everything that lives long has been made."""
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_THRESHOLDS)
        gc.callbacks.append(self._heard)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Set it back."""
        gc.callbacks.remove(self._heard)
        gc.set_threshold(*self._before)
        gc.unfreeze()

    def _heard(self, phase: str, _info: dict[str, int]) -> None:
        if phase == "start":
            self._since = perf_counter()
            return
        self.pauses += 1
        self.most_s = max(self.most_s, perf_counter() - self._since)
