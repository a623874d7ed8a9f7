"""Randomness that a seed repeats: one stream per purpose, so that none disturbs another."""

from random import Random  # noqa: TID251 - a simulation must be repeatable


def stream(seed: int, purpose: str) -> Random:
    """Return the randomness of one purpose."""
    return Random(f"{seed}/{purpose}")  # noqa: S311 - a simulation must be repeatable


def around(chance: Random, mean: float, share: float) -> float:
    """Return a number within a share around a mean."""
    return mean * (1 + share * (2 * chance.random() - 1))
