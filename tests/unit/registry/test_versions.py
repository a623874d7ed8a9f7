from datetime import UTC, datetime

import pytest
from darkbloom_registry.errors import VersionNotFoundError, VersionRetiredError
from darkbloom_registry.model import Build, Version, VersionState
from darkbloom_registry.versions import promote

from tests.unit.registry.test_facts import FACTS

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def version(name: str, state: VersionState, digest: str = "a") -> Version:
    return Version(
        version=name,
        state=state,
        aggregate_sha256=digest * 64,
        identity_sha256=digest * 64,
        total_size_bytes=1,
        file_count=1,
        register_time=NOW,
    )


def test_a_promotion_retains_the_version_before() -> None:
    states = promote((version("v1", VersionState.ACTIVE), version("v2", VersionState.READY)), "v2")
    assert [(v.version, v.state) for v in states] == [
        ("v1", VersionState.RETAINED),
        ("v2", VersionState.ACTIVE),
    ]


def test_a_retained_version_may_come_back() -> None:
    states = promote((version("v1", VersionState.RETAINED),), "v1")
    assert [v.state for v in states] == [VersionState.ACTIVE]


def test_promoting_the_active_version_changes_nothing() -> None:
    assert promote((version("v1", VersionState.ACTIVE),), "v1") == ()


def test_a_retired_or_unknown_version_is_never_promoted() -> None:
    versions = (version("v1", VersionState.RETIRED),)
    with pytest.raises(VersionRetiredError):
        promote(versions, "v1")
    with pytest.raises(VersionNotFoundError):
        promote(versions, "v2")


def test_active_and_retained_hashes_are_accepted_and_no_others() -> None:
    build = Build(
        facts=FACTS,
        create_time=NOW,
        versions=(
            version("v1", VersionState.RETAINED, "1"),
            version("v2", VersionState.RETIRED, "2"),
            version("v3", VersionState.ACTIVE, "3"),
            version("v4", VersionState.READY, "4"),
            version("v5", VersionState.RETAINED, "3"),
        ),
    )
    assert build.accepted_weight_hashes == ("3" * 64, "1" * 64)
