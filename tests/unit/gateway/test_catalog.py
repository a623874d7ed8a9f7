import pytest
from darkbloom_gateway.catalog import Alias, Build, Catalog, MarketplaceAlias
from darkbloom_gateway.errors import ApiError


def catalog(*builds: str, **aliases: tuple[str, str]) -> Catalog:
    return Catalog(
        1,
        {name: Build(name) for name in builds},
        {name: Alias(name, "", *pair, active=True) for name, pair in aliases.items()},
    )


ACCOUNTS = [f"acct_{number}" for number in range(2000)]


def moving(percent: int) -> Catalog:
    alias = Alias("name", "", "org/new", "org/old", active=True, percent=percent)
    builds = {build: Build(build) for build in ("org/new", "org/old")}
    return Catalog(1, builds, {"name": alias})


def on_new(percent: int) -> set[str]:
    catalog = moving(percent)
    return {
        account
        for account in ACCOUNTS
        if catalog.resolve("name", account).build.build_id == "org/new"
    }


def test_a_rollout_keeps_each_account_on_its_side_and_takes_more_with_each_step() -> None:
    assert on_new(0) == set()
    assert 5 < len(on_new(1)) < 60
    assert on_new(1) < on_new(10) < on_new(50)
    assert on_new(100) == set(ACCOUNTS)


def test_who_is_outside_never_falls_on_the_new_build_and_who_is_inside_may_fall_back() -> None:
    catalog, inside = moving(50), on_new(50)
    for account in ACCOUNTS[:50]:
        found = catalog.resolve("name", account)
        if account in inside:
            assert (found.build.build_id, found.fallback_build) == ("org/new", "org/old")
        else:
            assert (found.build.build_id, found.fallback_build) == ("org/old", "")


def test_where_only_one_build_is_left_everybody_gets_it() -> None:
    alias = Alias("name", "", "org/new", "org/gone", active=True, percent=1)
    catalog = Catalog(1, {"org/new": Build("org/new")}, {"name": alias})
    found = {catalog.resolve("name", account).build.build_id for account in ACCOUNTS[:50]}
    assert found == {"org/new"}


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


def with_marketplace(source: str, shelf: Catalog) -> Catalog:
    followed = MarketplaceAlias("free", "Free", source, "org/free", "org/card")
    return Catalog(
        1, shelf.builds, {row.alias_id: row for row in shelf.aliases()}, {"free": followed}
    )


def test_a_name_for_marketplaces_stands_for_what_it_follows_and_hides_nothing() -> None:
    plain = catalog("new", "old", "alone", m=("new", "old"))
    shelf = with_marketplace("m", plain)
    found = shelf.resolve("free")

    assert (found.name, found.display_name) == ("free", "Free")
    assert (found.build.build_id, found.fallback_build) == ("new", "old")
    assert (found.marketplace_slug, found.hugging_face_id) == ("org/free", "org/card")
    assert shelf.listed(include_builds=True) == plain.listed(include_builds=True)
    assert with_marketplace("alone", plain).listed() == plain.listed()
    assert [row.name for row in shelf.for_marketplaces()] == ["free"]


def test_a_name_for_marketplaces_takes_each_account_to_the_side_of_what_it_follows() -> None:
    plain = moving(50)
    shelf = with_marketplace("name", plain)
    for account in ACCOUNTS[:50]:
        assert shelf.resolve("free", account).build == plain.resolve("name", account).build


def test_a_name_for_marketplaces_whose_model_is_gone_is_neither_shown_nor_served() -> None:
    for source, plain in (("m", catalog("x", m=("new", "old"))), ("gone", catalog("x"))):
        shelf = with_marketplace(source, plain)
        assert shelf.for_marketplaces() == []
        with pytest.raises(ApiError) as caught:
            shelf.resolve("free")
        assert caught.value.http_status == 503


def test_a_name_that_took_a_builds_id_over_means_the_other_build() -> None:
    shelf = catalog("small", "new", small=("new", "small"))
    found = shelf.resolve("small")

    assert (found.build.build_id, found.fallback_build) == ("new", "small")
    assert [row.name for row in shelf.listed()] == ["small"]
