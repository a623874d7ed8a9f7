import pytest
from darkbloom_gateway.catalog import Alias, Build, Catalog
from darkbloom_gateway.errors import ApiError


def catalog(*builds: str, **aliases: tuple[str, str]) -> Catalog:
    return Catalog(
        1,
        {name: Build(name) for name in builds},
        {name: Alias(name, "", *pair, active=True) for name, pair in aliases.items()},
    )


def test_an_alias_stands_for_its_desired_build_and_falls_back() -> None:
    found = catalog("new", "old", m=("new", "old")).resolve("m")

    assert (found.build.build_id, found.fallback_build) == ("new", "old")


def test_an_alias_whose_desired_build_is_gone_stands_for_the_previous_one() -> None:
    found = catalog("old", m=("new", "old")).resolve("m")

    assert (found.build.build_id, found.fallback_build) == ("old", "")


@pytest.mark.parametrize(("name", "status"), [("m", 503), ("nobody", 404)])
def test_names_without_a_build_are_told_apart(name: str, status: int) -> None:
    with pytest.raises(ApiError) as caught:
        catalog("x", m=("new", "old")).resolve(name)
    assert caught.value.http_status == status


def test_a_list_shows_aliases_and_builds_that_none_covers() -> None:
    shelf = catalog("a", "b", "c", m=("a", "b"), dead=("x", "y"))

    assert [row.name for row in shelf.listed()] == ["m", "c"]
    assert [row.name for row in shelf.listed(include_builds=True)] == ["m", "a", "b", "c"]
