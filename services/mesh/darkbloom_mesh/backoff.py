"""How long to wait before trying again."""

from collections.abc import Callable


class Backoff:
    """Full jitter: waits are uniform below a bound that doubles from `first_s` to `cap_s`.

    Args:
        uniform: Returns a number in [0, 1), for example `secrets.SystemRandom().random`.
        first_s: Bound of the first wait, in seconds.
        cap_s: Largest bound, in seconds.
    """

    def __init__(
        self, uniform: Callable[[], float], *, first_s: float = 1.0, cap_s: float = 30.0
    ) -> None:
        self._uniform = uniform
        self._first_s = first_s
        self._cap_s = cap_s
        self._bound_s = first_s

    def next_s(self) -> float:
        """Return the next wait, in seconds."""
        wait = self._uniform() * self._bound_s
        self._bound_s = min(self._cap_s, self._bound_s * 2)
        return wait

    def reset(self) -> None:
        """Start over: the last try worked."""
        self._bound_s = self._first_s
