from datetime import UTC, datetime

from darkbloom_attestation.model import CodeRelease, Measured
from darkbloom_attestation.runtime import check_runtime
from darkbloom_edge.release import code_release_id


def measured(python: str = "p1", runtime: str = "r1", **templates: str) -> Measured:
    return Measured(python_hash=python, runtime_hash=runtime, template_hashes=templates)


def blessed(one: Measured) -> CodeRelease:
    return CodeRelease(
        code_release=code_release_id(one.runtime_hash),
        version="1",
        platform="any",
        measured=one,
        development=False,
        active=True,
        create_time=datetime(2026, 1, 1, tzinfo=UTC),
    )


def components(one: Measured, *releases: Measured) -> list[str]:
    return [finding.component for finding in check_runtime(one, map(blessed, releases))]


def test_an_empty_set_blesses_nothing() -> None:
    assert components(measured()) == ["runtime_hash", "python_hash"]


def test_what_was_not_measured_is_never_blessed() -> None:
    assert components(measured("", ""), measured("", "")) == ["runtime_hash", "python_hash"]


def test_the_blessed_set_is_the_union_of_the_releases() -> None:
    assert components(measured("p1", "r2"), measured("p1", "r1"), measured("p2", "r2")) == []


def test_each_template_needs_a_blessed_hash_of_its_own_name() -> None:
    releases = (measured(chat="c1", tools="t1"), measured(chat="c2"))
    assert components(measured(chat="c2", tools="t1"), *releases) == []
    assert components(measured(chat="t1"), *releases) == ["template:chat"]
    assert components(measured(other="c1"), *releases) == ["template:other"]


def test_a_finding_says_what_was_expected() -> None:
    (finding,) = check_runtime(
        measured(runtime="r9"), [blessed(measured(runtime=f"r{number}")) for number in range(6)]
    )
    assert finding.expected == "r0,r1,r2,r3 and 2 more"
    assert finding.got == "r9"
