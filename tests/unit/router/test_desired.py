"""What a provider is told to hold."""

from darkbloom_router.catalog import desired_models
from darkbloom_router.model import Alias, Build, Catalog

CATALOG = Catalog(
    builds={
        name: Build(
            build=name,
            accepted_hashes=frozenset({f"hash of {name}"}),
            version="v2",
            weight_hash=f"hash of {name}",
        )
        for name in ("org/old", "org/new", "org/alone", "org/other")
    },
    aliases=(
        Alias(alias="name", desired="org/new", previous="org/old"),
        Alias(alias="gone", desired="org/missing"),
    ),
)


def test_whoever_holds_a_member_of_a_name_is_told_of_its_desired_build() -> None:
    for held in (["org/old"], ["org/new"], ["org/old", "org/new"]):
        (found,) = desired_models(CATALOG, held)
        assert (found.alias, found.desired, found.previous) == ("name", "org/new", "org/old")
        assert (found.version, found.weight_hash) == ("v2", "hash of org/new")


def test_a_build_that_no_name_covers_goes_by_its_own() -> None:
    (found,) = desired_models(CATALOG, ["org/alone", "org/unknown"])

    assert (found.alias, found.desired, found.previous) == ("org/alone", "org/alone", "")
    assert found.weight_hash == "hash of org/alone"


def test_a_desired_build_that_is_not_published_has_no_version() -> None:
    (found,) = desired_models(CATALOG, ["org/missing"])

    assert (found.version, found.weight_hash) == ("", "")


def test_whoever_holds_nothing_is_told_nothing() -> None:
    assert desired_models(CATALOG, []) == []
