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
from darkbloom_router.model import Alias, Build, Catalog
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
    made.turn(catalog(10))
    return made


def catalog(percent: int, generation: int = 4) -> Catalog:
    """A name on its way to `org/one`."""
    name = Alias(alias="name", desired="org/one", previous="org/before", percent=percent)
    build = Build(build="org/one", accepted_hashes=frozenset())
    return Catalog(generation=generation, builds={"org/one": build}, aliases=(name,))


def says(
    notes: Observations,
    session: str,
    progress: Progress,
    build: str = "org/one",
    *,
    machine: bytes = b"p",
    believed: bool = True,
) -> None:
    notes.progress(session, build, progress, machine=machine, believed=believed)


def load_failures(notes: Observations) -> int:
    batch = notes.take()
    return sum(tally.load_failures for tally in batch.tallies.values()) if batch else 0


CORRUPT = Progress(Stage.FAILED, error="corrupt")


def test_a_machine_that_is_not_believed_is_shown_but_counts_for_nothing() -> None:
    notes = seen()
    says(notes, "p", CORRUPT, believed=False)
    batch = notes.take()
    assert batch is not None
    assert batch.states["p", "org/one"].error == "corrupt"
    assert not batch.tallies


@pytest.mark.parametrize("stage", [Stage.STARTED, Stage.DOWNLOADING])
def test_a_stranger_takes_none_of_the_fleets_downloads(stage: Stage) -> None:
    notes = seen()
    says(notes, "p", Progress(stage, 1, 2), believed=False)
    assert notes.take() is None
    says(notes, "p", Progress(stage, 1, 2), believed=True)
    batch = notes.take()
    assert batch is not None
    assert batch.states["p", "org/one"].stage is stage


def test_a_machine_has_one_voice_in_each_step_however_often_it_connects() -> None:
    notes = seen()
    for session in range(1000):
        says(notes, f"session {session}", CORRUPT)
    notes.load_failed("org/one", b"p")
    assert load_failures(notes) == 1
    # Reported or not; another catalog of the same step changes nothing.
    notes.turn(catalog(10, generation=5))
    says(notes, "p", CORRUPT)
    assert load_failures(notes) == 0
    says(notes, "q", CORRUPT, machine=b"q")
    assert load_failures(notes) == 1

    notes.turn(catalog(50, generation=6))
    says(notes, "p", CORRUPT)
    assert load_failures(notes) == 1


def test_a_machine_that_loses_its_trust_again_counts_once_in_a_step() -> None:
    notes = seen()
    for _ in range(3):
        notes.untrusted(["org/one"], b"p")
    notes.untrusted(["org/one"], b"q")
    batch = notes.take()
    assert batch is not None
    assert [tally.untrusted for tally in batch.tallies.values()] == [2]


def test_what_was_seen_names_the_catalog_by_which_it_was_seen() -> None:
    notes = seen()
    notes.failed("org/one")
    notes.turn(catalog(50, generation=5))
    notes.succeeded("org/one", 0.1)
    batch = notes.take()
    assert batch is not None
    rows = message_of(batch, "s", 1).builds
    assert [
        (row.catalog_generation, row.counts.failures, row.counts.successes) for row in rows
    ] == [(4, 1, 0), (5, 0, 1)]


def test_both_sides_of_the_contract_have_the_same_buckets() -> None:
    assert TTFT_BOUNDS_S == CONTRACT


def test_what_is_taken_is_forgotten() -> None:
    notes = seen()
    assert notes.take() is None
    notes.succeeded("org/one", 0.1)
    notes.succeeded("org/one", 0.11)
    notes.succeeded("org/one", 99.0)
    notes.failed("org/one")
    notes.load_failed("org/one", b"p")
    notes.untrusted(["org/one", "org/gone"], b"p")
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
    says(notes, "p", Progress(Stage.STARTED), "made/up")
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
    says(notes, "p", found)
    batch = notes.take()
    assert batch is not None
    assert batch.states["p", "org/one"].error == told
    assert sum(tally.load_failures for tally in batch.tallies.values()) == counted


def test_the_newest_word_of_a_machine_stays_and_machines_are_bounded() -> None:
    notes = seen()
    for number in range(MAX_STATES + 5):
        says(notes, f"p{number}", Progress(Stage.DOWNLOADING, 1, 2))
    says(notes, "p0", Progress(Stage.VERIFIED, 2, 2))
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
