"""What a provider is told to hold."""

from darkbloom_router.catalog import Desired, in_share
from darkbloom_router.catalog import desired_models as wanted
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


KEYS = [number.to_bytes(4) for number in range(2000)]


def desired_models(catalog: Catalog, held: list[str]) -> list[Desired]:
    return wanted(catalog, held, lambda _alias: True)


def moving(percent: int, name: str = "name") -> Alias:
    return Alias(alias=name, desired="org/new", previous="org/old", percent=percent)


def test_a_machine_outside_the_share_is_told_of_the_build_that_the_name_comes_from() -> None:
    (found,) = wanted(CATALOG, ["org/old"], lambda _alias: False)
    assert (found.alias, found.desired, found.previous) == ("name", "org/old", "")
    assert found.weight_hash == "hash of org/old"


def test_a_share_grows_with_its_percent_and_nobody_leaves_it() -> None:
    shares = [
        {key for key in KEYS if in_share(moving(percent), key, KEYS)} for percent in (1, 10, 50)
    ]
    assert shares[0] < shares[1] < shares[2]
    assert 5 < len(shares[0]) < 60
    assert 100 < len(shares[1]) < 300
    assert all(in_share(moving(100), key, KEYS) for key in KEYS)
    assert not any(in_share(moving(0), key, KEYS) for key in KEYS)


def test_one_machine_at_least_begins_and_other_names_begin_elsewhere() -> None:
    few = KEYS[:5]
    (first,) = [key for key in few if in_share(moving(1), key, few)]
    begun = {key for name in "abcdefgh" for key in few if in_share(moving(1, name), key, few)}
    assert first in few
    assert len(begun) > 1


def test_a_name_without_another_build_is_everybodys() -> None:
    assert in_share(Alias(alias="n", desired="org/new", percent=1), KEYS[0], KEYS)


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
