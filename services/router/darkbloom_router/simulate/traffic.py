"""Who asks, when, and for how much."""

from collections.abc import Callable
from itertools import accumulate
from math import exp

from darkbloom_router.simulate.chance import stream
from darkbloom_router.simulate.hardware import Product
from darkbloom_router.simulate.ledger import Asked
from darkbloom_router.simulate.scenario import Scenario
from darkbloom_router.timers import Timers

PROMPTS = ((0.6, 5.3, 0.8), (0.3, 7.0, 0.7), (0.1, 8.6, 0.5))
"""Share, and mean and spread of the logarithm: chats, documents, whole files."""
OUTPUTS = (5.2, 0.8)
BOUNDS = (256, 512, 1024, 2048, 4096)
MAX_PROMPT = 24_000
PHASE_S = 30.0


def mean_output() -> float:
    """Return the mean answer length, by a sum over its distribution."""
    steps = 20_000
    total = 0.0
    chance = stream(0, "mean output")
    for _ in range(steps):
        total += draw_output(chance.gauss)
    return total / steps


def draw_output(gauss: Callable[[float, float], float]) -> int:
    """Return the length of one answer."""
    mean, spread = OUTPUTS
    return max(1, min(int(exp(gauss(mean, spread))), BOUNDS[-1]))


class Traffic:
    """A Poisson stream with bursts; models by popularity.

    Args:
        scenario: The run.
        products: What is sold.
        capacity_tps: Output tokens per second that the fleet can make.
        timers: Virtual time.
        ask: Sends a request for an account.
    """

    def __init__(
        self,
        scenario: Scenario,
        products: list[Product],
        capacity_tps: float,
        timers: Timers,
        ask: Callable[[Asked, str], None],
    ) -> None:
        self._scenario = scenario
        self._chance = stream(scenario.seed, "traffic")
        self._names = [product.build.build for product in products]
        self._ends = list(accumulate(product.popularity for product in products))
        self._timers = timers
        self._ask = ask
        self._count = 0
        self._burst = False
        calm = (1 - scenario.burst_share * scenario.burst) / (1 - scenario.burst_share)
        mean = scenario.load * capacity_tps / mean_output()
        self._rates = (mean * calm, mean * scenario.burst)
        self.mean_per_s = mean

    def start(self) -> None:
        """Let requests come."""
        self._phase()
        self._next()

    def _turn(self, now: float) -> int:
        """Return by how many ranks demand has moved on: a little more with every request.

        What the build of one rank was asked for, the next one is asked for a shift later.
        """
        if self._scenario.shift_minutes <= 0:
            return 0
        moved = now / (60 * self._scenario.shift_minutes)
        return int(moved) + (self._chance.random() < moved % 1)

    def _phase(self) -> None:
        """Enter the next calm or burst."""
        self._burst = self._chance.random() < self._scenario.burst_share
        self._timers.after(self._chance.expovariate(1 / PHASE_S), self._phase)

    def _next(self) -> None:
        self._timers.after(self._chance.expovariate(self._rates[self._burst]), self._arrive)

    def _arrive(self) -> None:
        now, chance = self._timers.now(), self._chance
        if now >= self._scenario.duration_s:
            return
        self._next()
        self._count += 1
        [rank] = chance.choices(range(len(self._names)), cum_weights=self._ends)
        name = self._names[(rank + self._turn(now)) % len(self._names)]
        output = draw_output(chance.gauss)
        bound = chance.choice([most for most in BOUNDS if most >= output])
        prompt = self._prompt()
        asked = Asked(
            request_id=f"req_{self._count}",
            build=name,
            prompt=prompt,
            output=output,
            bound=bound,
            at=now,
            deadline=now + self._scenario.deadline_s,
        )
        self._ask(asked, f"acct_{chance.randrange(self._scenario.accounts)}")

    def _prompt(self) -> int:
        chance = self._chance
        kinds = [share for share, _, _ in PROMPTS]
        [(_, mean, spread)] = chance.choices(PROMPTS, weights=kinds)
        return max(8, min(int(exp(chance.gauss(mean, spread))), MAX_PROMPT))
