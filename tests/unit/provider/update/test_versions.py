"""Which version is newer, which one keeps dying, and the way back."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from darkbloom_mesh.testing import FakeClock
from darkbloom_provider.service.errors import StillDrainingError
from darkbloom_provider.state import AgentState
from darkbloom_provider.update.auto import AutoUpdate
from darkbloom_provider.update.deaths import Deaths
from darkbloom_provider.update.quarantine import (
    MAX_DEATHS,
    STABLE_S,
    Health,
    note_death,
    note_stable,
    read_health,
)
from darkbloom_provider.update.results import UpdateError, UpdateResult
from darkbloom_provider.update.store import AppStore
from darkbloom_provider.update.updater import Checked
from darkbloom_provider.update.versions import newer, order

START = datetime(2026, 1, 1, tzinfo=UTC)


def test_versions_sort_as_semantic_versions_do():
    rising = ["1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-rc.2", "1.0.0-rc.11"]
    rising += ["1.0.0", "1.0.1", "1.2.0", "1.10.0", "2.0.0"]

    assert sorted(rising, key=order) == rising
    assert newer("1.0.0", than="1.0.0-rc.1")
    assert not newer("1.0.0", than="1.0.0")


@pytest.mark.parametrize(
    "text", ["", "1", "1.2", "v1.2.3", "1.2.3-", "1.2.3+x", "1.2.3\n", "٣.0.0"]
)
def test_what_is_no_version_is_never_newer(text):
    assert order(text) is None
    assert not newer(text, than="0.0.1")


def test_three_early_deaths_quarantine_a_version_and_long_lives_do_not_count():
    health = Health()
    for _ in range(MAX_DEATHS - 1):
        health = note_death(health, "1.1.0", STABLE_S - 1)
    health = note_death(health, "1.1.0", STABLE_S)
    assert health.quarantined == ()
    health = note_death(health, "1.1.0", 0)
    assert health.quarantined == ("1.1.0",)
    assert note_stable(health, "1.1.0") == Health()


def installed(tmp_path, *versions: str) -> AppStore:
    store = AppStore(tmp_path / "app")
    for version in versions:
        store.folder(version).mkdir(parents=True)
        store.activate(version)
    return store


def snapshot(version: str, ran_s: float) -> AgentState:
    return AgentState(
        pid=1,
        version=version,
        started_at=START.isoformat(),
        updated_at=(START + timedelta(seconds=ran_s)).isoformat(),
        coordinator="",
        connection="",
        engine="",
    )


def test_a_version_that_dies_three_times_is_taken_back_and_barred(tmp_path):
    store = installed(tmp_path, "1.0.0", "1.1.0")
    deaths = Deaths(store)

    assert deaths.died(snapshot("1.1.0", 20)) is None
    assert deaths.died(snapshot("1.0.0", 9000)) is None  # it died before it wrote anything
    assert store.current == "1.1.0"
    assert deaths.died(None) == "1.0.0"

    assert store.current == store.proven == "1.0.0"
    assert read_health(store.state).quarantined == ("1.1.0",)
    # The proven one may die as often as it likes: there is nothing to go back to.
    assert deaths.died(None) is None
    assert store.current == "1.0.0"


def test_a_version_that_ended_as_it_was_told_has_not_died(tmp_path):
    store = installed(tmp_path, "1.0.0", "1.1.0")
    ended = msgspec.structs.replace(snapshot("1.1.0", 20), connection="stopped")
    for _ in range(MAX_DEATHS):
        assert Deaths(store).died(ended) is None

    assert read_health(store.state) == Health()


def test_ten_minutes_prove_a_version_and_clear_away_the_others(tmp_path):
    store = installed(tmp_path, "1.0.0", "1.1.0")
    deaths = Deaths(store)
    deaths.died(None)

    deaths.alive(snapshot("1.1.0", 0), START + timedelta(seconds=STABLE_S - 1))
    assert store.proven == "1.0.0"
    deaths.alive(snapshot("1.1.0", 0), START + timedelta(seconds=STABLE_S))

    assert store.proven == store.current == "1.1.0"
    assert not store.folder("1.0.0").exists()
    assert read_health(store.state) == Health()


@pytest.mark.parametrize(
    "seen",
    [
        snapshot("1.0.0", 0),
        msgspec.structs.replace(snapshot("1.1.0", 0), connection="stopped"),
    ],
    ids=["the old process that still drains", "a process that has ended"],
)
def test_only_a_running_process_of_the_version_in_use_proves_it(tmp_path, seen):
    store = installed(tmp_path, "1.0.0", "1.1.0")

    Deaths(store).alive(seen, START + timedelta(days=1))

    assert (store.proven, store.current) == ("1.0.0", "1.1.0")
    assert store.folder("1.0.0").is_dir()


def test_nothing_is_cleared_away_while_an_update_is_under_way(tmp_path):
    store = installed(tmp_path, "1.0.0", "1.1.0")
    later = START + timedelta(days=1)
    with store.locked():
        (store.staging / "bundle").touch()
        Deaths(store).alive(snapshot("1.1.0", 0), later)
        assert (store.staging / "bundle").exists()
        assert store.proven == "1.0.0"
        assert store.folder("1.0.0").is_dir()
    Deaths(store).alive(snapshot("1.1.0", 0), later)

    assert store.proven == "1.1.0"
    assert not store.folder("1.0.0").exists()


def test_an_installation_of_another_kind_is_left_alone(tmp_path):
    store = AppStore(tmp_path / "app")
    Deaths(store).alive(snapshot("1.0.0", 0), START + timedelta(days=1))

    assert Deaths(store).died(None) is None
    assert not (tmp_path / "app").exists()


def test_one_update_at_a_time_and_what_a_killed_one_left_is_cleared(tmp_path):
    store = AppStore(tmp_path / "app")
    store.staging.mkdir(parents=True)
    (store.staging / "rest").write_text("x")
    with store.locked():
        assert list(store.staging.iterdir()) == []
        with pytest.raises(UpdateError) as caught, AppStore(tmp_path / "app").locked():
            pass
    assert caught.value.result is UpdateResult.BUSY


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "-x", "x" * 65])
def test_no_version_can_name_a_folder_elsewhere(tmp_path, name):
    with pytest.raises(UpdateError):
        AppStore(tmp_path).folder(name)


class Updater:
    """Answers and counts."""

    def __init__(self, result: UpdateResult) -> None:
        self.result = result
        self.installed: list[object] = []

    def check(self) -> Checked:
        release = object() if self.result is UpdateResult.AVAILABLE else None
        return Checked(result=self.result, current="1.0.0", release=release)

    def install(self, release: object) -> None:
        self.installed.append(release)


def auto(updater, clock, *, enabled=True, restart=lambda: None):
    return AutoUpdate(
        lambda: updater,
        restart,
        enabled=lambda: enabled,
        jitter_s=0,
        uniform=lambda: 0.5,
        clock=clock,
    )


async def test_an_update_comes_by_itself_and_restarts_the_agent():
    updater, restarts = Updater(UpdateResult.AVAILABLE), []
    look = auto(updater, FakeClock(), restart=lambda: restarts.append(1)).look()

    assert await look is UpdateResult.UPDATED
    assert len(updater.installed) == len(restarts) == 1


async def test_nothing_comes_where_the_owner_said_no_or_a_version_is_barred():
    assert await auto(Updater(UpdateResult.AVAILABLE), FakeClock(), enabled=False).look() is None
    barred = Updater(UpdateResult.QUARANTINED)
    assert await auto(barred, FakeClock()).look() is UpdateResult.QUARANTINED
    assert barred.installed == []


async def test_an_agent_that_is_busy_is_not_cut_off():
    def busy():
        raise StillDrainingError("still working")

    updater = Updater(UpdateResult.AVAILABLE)
    assert await auto(updater, FakeClock(), restart=busy).look() is UpdateResult.BUSY
