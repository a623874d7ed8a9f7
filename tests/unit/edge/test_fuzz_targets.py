"""A few seconds of what `make fuzz` does for minutes: changed seeds of every decoder."""

import random  # noqa: TID251 - seeded below: the same changes in every run

import pytest

from tests.fuzz.mutation import mutations
from tests.fuzz.target import Target
from tests.fuzz.targets import all_targets

TARGETS = all_targets()
TRIES = 150


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_decoder_refuses_changed_bytes_in_its_own_words(target: Target) -> None:
    for seed in target.seeds:
        target.decode(seed)
    for data in mutations(target.seeds, random.Random(1), TRIES):
        try:
            target.decode(data)
        except target.refusals:
            continue


def test_every_decoder_has_its_own_name() -> None:
    names = [target.name for target in TARGETS]
    assert len(set(names)) == len(names)
