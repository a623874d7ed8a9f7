"""Each drill is a test; `make check` plays the light ones, DARKBLOOM_DRILLS=all plays all."""

import os
from pathlib import Path

import pytest

from tests.drills.catalogue import every_drill
from tests.drills.drill import Drill
from tests.drills.running import played
from tests.drills.stage import Stage

ALL = os.environ.get("DARKBLOOM_DRILLS") == "all"  # noqa: TID251 - which, not what they do


def one(drill: Drill) -> object:
    marks = [pytest.mark.mesh, pytest.mark.timeout(drill.limit_s + 60)]
    if not (ALL or drill.light):
        marks.append(pytest.mark.skip(reason="a long drill: make drills"))
    return pytest.param(drill, id=drill.name, marks=marks)


@pytest.mark.parametrize("drill", [one(drill) for drill in every_drill().values()])
async def test_a_drill_loses_what_it_says_and_nothing_else(drill: Drill, tmp_path: Path) -> None:
    if missing := drill.missing():
        pytest.skip(missing)
    outcome = await played(drill, Stage(home=tmp_path, progress=print))
    assert drill.judged(outcome) == [], drill.result(outcome)
