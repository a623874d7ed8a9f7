"""What is noted of builds between two reports, and how it is written."""

import pytest
from darkbloom.registry.v1 import rollout_pb2
from darkbloom.router.v1.provider_link_pb2 import (
    LoadModelStatus,
    OperationStatus,
    PrefetchModelStatus,
)
from darkbloom_registry.rollouts import TTFT_BOUNDS_S as CONTRACT
from darkbloom_router import progress
from darkbloom_router.model_reports import message_of
from darkbloom_router.observations import (
    MAX_STATES,
    TTFT_BOUNDS_S,
    Observations,
    Progress,
    Stage,
)

FAILED = OperationStatus.OPERATION_STATUS_FAILED


def seen() -> Observations:
    made = Observations()
    made.catalog = {"org/one"}
    return made


def test_both_sides_of_the_contract_have_the_same_buckets() -> None:
    assert TTFT_BOUNDS_S == CONTRACT


def test_what_is_taken_is_forgotten() -> None:
    notes = seen()
    assert notes.take() is None
    notes.succeeded("org/one", 0.1)
    notes.succeeded("org/one", 0.11)
    notes.succeeded("org/one", 99.0)
    notes.failed("org/one")
    notes.load_failed("org/one")
    notes.untrusted(["org/one", "org/gone"])
    batch = notes.take()
    assert batch is not None
    assert notes.take() is None

    request = message_of(batch, "s", 7)
    (row,) = request.builds
    counts = row.counts
    assert (request.session, request.sequence, row.build) == ("s", 7, "org/one")
    assert (counts.successes, counts.failures, counts.load_failures, counts.untrusted) == (
        3,
        1,
        1,
        1,
    )
    assert list(counts.ttft_buckets) == [1, 1, 0, 0, 0, 0, 0, 0, 1]


def test_what_is_no_build_of_the_catalog_is_not_noted() -> None:
    notes = seen()
    notes.failed("made/up")
    notes.progress("p", "made/up", Progress(Stage.STARTED))
    assert notes.take() is None


@pytest.mark.parametrize(
    ("word", "told", "counted"),
    [
        ("corrupt", "corrupt", 1),
        ("disk_full", "disk_full", 0),
        ("say something long", "other", 0),
    ],
)
def test_only_words_against_the_build_count_against_it(word: str, told: str, counted: int) -> None:
    notes = seen()
    message = PrefetchModelStatus(model_id="org/one", status=FAILED, error=word)
    found = progress.of_fetch(message)
    assert found is not None
    notes.progress("p", "org/one", found)
    batch = notes.take()
    assert batch is not None
    assert batch.states["p", "org/one"].error == told
    assert sum(tally.load_failures for tally in batch.tallies.values()) == counted


def test_the_newest_word_of_a_machine_stays_and_machines_are_bounded() -> None:
    notes = seen()
    for number in range(MAX_STATES + 5):
        notes.progress(f"p{number}", "org/one", Progress(Stage.DOWNLOADING, 1, 2))
    notes.progress("p0", "org/one", Progress(Stage.VERIFIED, 2, 2))
    batch = notes.take()
    assert batch is not None
    assert len(batch.states) == MAX_STATES
    assert batch.states["p0", "org/one"].stage is Stage.VERIFIED
    stages = {row.stage for row in message_of(batch, "s", 1).states}
    assert stages == {rollout_pb2.MODEL_STAGE_DOWNLOADING, rollout_pb2.MODEL_STAGE_VERIFIED}


def test_a_load_that_fails_for_a_cause_of_the_machines_own_is_no_fault_of_the_build() -> None:
    own = progress.of_load(
        LoadModelStatus(model_id="b", status=FAILED, error="insufficient_memory")
    )
    bad = progress.of_load(LoadModelStatus(model_id="b", status=FAILED, error="what is this"))
    assert own == Progress(Stage.FAILED, error="insufficient_memory")
    assert bad == Progress(Stage.FAILED, error="load_failed")
    started = LoadModelStatus(model_id="b", status=OperationStatus.OPERATION_STATUS_STARTED)
    assert progress.of_load(started) is None
    assert progress.of_fetch(PrefetchModelStatus(model_id="b")) is None
