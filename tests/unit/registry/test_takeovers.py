"""A name takes a build's id over, and lets go of it in one order."""

import dataclasses
from datetime import UTC, datetime

import pytest
from darkbloom_mesh.errors import InvalidArgumentError
from darkbloom_registry.aliases import check_alias, check_marketplace_alias
from darkbloom_registry.errors import NameTakenError, TakeoverEarlyError, TakeoverLiveError
from darkbloom_registry.model import Alias, Build, BuildFacts, BuildStatus, MarketplaceAlias
from darkbloom_registry.names.takeovers import (
    check_end,
    check_owner,
    check_retirement,
    check_return,
)
from darkbloom_registry.progress.readers import Holding, Reader

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAME, NEW = "small", "org/new"
TAKEN = Alias(
    alias_id=NAME,
    display_name=NAME,
    desired_build=NEW,
    previous_build=NAME,
    active=True,
    traffic_percent=None,
    takeover=True,
)
LEFT = dataclasses.replace(TAKEN, previous_build="", takeover=False)
FOR_MARKETPLACES = MarketplaceAlias(
    alias_id="market",
    display_name="",
    source_model=NAME,
    marketplace_slug="",
    hugging_face_id="",
    active=True,
)


def build(status: BuildStatus) -> Build:
    facts = BuildFacts(
        id=NAME,
        display_name=NAME,
        family="f",
        architecture="a",
        quantization="q",
        max_context_length=1,
        max_output_length=1,
        min_ram_gb=1,
        capabilities=(),
        required_provider_capabilities=(),
        status=status,
        description="",
        model_type="text",
        hugging_face_id="",
        deprecation_date="",
        runtime_parameters_json="",
    )
    return Build(facts=facts, create_time=NOW, versions=())


def router(*holdings: Holding, silent: bool = False) -> Reader:
    return Reader(
        session="s",
        room="router",
        replica="r-0",
        generation=1,
        confirm_time=NOW,
        holdings=holdings,
        silent=silent,
    )


def test_only_a_takeover_has_the_build_of_its_own_name_behind_it() -> None:
    assert check_alias(TAKEN) == TAKEN
    for changes in ({"previous_build": "org/else"}, {"previous_build": ""}, {"takeover": False}):
        with pytest.raises(InvalidArgumentError) as caught:
            check_alias(dataclasses.replace(TAKEN, **changes))
        assert caught.value.field == "alias.previous_build"


def test_a_takeover_that_would_go_back_to_itself_is_told_what_to_do() -> None:
    back = dataclasses.replace(TAKEN, desired_build=NAME, previous_build=NEW)
    with pytest.raises(InvalidArgumentError, match="a copy of the build, registered under another"):
        check_alias(back)


LIVE, DEAD = build(BuildStatus.BETA), build(BuildStatus.DEPRECATED)


@pytest.mark.parametrize(
    ("wanted", "current", "owner", "refusal"),
    [
        (LEFT, None, None, None),
        (TAKEN, None, LIVE, None),
        (LEFT, None, LIVE, NameTakenError),
        (LEFT, None, DEAD, NameTakenError),
        (LEFT, TAKEN, LIVE, TakeoverLiveError),
        (LEFT, TAKEN, DEAD, None),
        (LEFT, LEFT, DEAD, None),
        (TAKEN, TAKEN, DEAD, None),
    ],
    ids=["free", "take", "not said", "dead", "early", "in order", "after", "stay"],
)
def test_a_builds_id_is_taken_over_expressly_and_let_go_of_last(
    wanted: Alias, current: Alias | None, owner: Build | None, refusal: type[Exception] | None
) -> None:
    if refusal is None:
        check_owner(wanted, current, owner)
        return
    with pytest.raises(refusal, match="takeover"):
        check_owner(wanted, current, owner)


def test_a_name_that_took_a_served_build_over_stays_until_that_is_deprecated() -> None:
    with pytest.raises(TakeoverLiveError, match="then deprecate it, then the name may go"):
        check_end(TAKEN, LIVE)
    for current, owner in (
        (None, LIVE),
        (TAKEN, DEAD),
        (TAKEN, None),
        (LEFT, None),
        (dataclasses.replace(TAKEN, active=False), LIVE),
    ):
        check_end(current, owner)


def test_a_build_whose_id_is_a_name_for_good_is_not_served_again() -> None:
    check_return(None)
    check_return(TAKEN)
    with pytest.raises(NameTakenError):
        check_return(LEFT)


HALF = router(Holding(build=NEW, wished=4, current=3), Holding(build=NAME, holding=4))
IN_MEMORY = router(Holding(build=NEW, wished=4, current=4), Holding(build=NAME, warm=1))
DONE = router(Holding(build=NEW, wished=4, current=4), Holding(build=NAME, holding=4))
BEHIND = dataclasses.replace(DONE, generation=0)
GATEWAY = dataclasses.replace(router(), room="gateway", silent=True)


@pytest.mark.parametrize(
    ("alias", "readers", "left", "refusal"),
    [
        (None, [HALF], 0, ""),
        (LEFT, [HALF], 0, ""),
        (TAKEN, [], 0, "no router is known: .* `leave_behind` of 1 or more"),
        (TAKEN, [GATEWAY], 0, "no router is known"),
        (TAKEN, [], 1, ""),
        (TAKEN, [DONE, GATEWAY], 0, ""),
        (TAKEN, [HALF], 0, "1 of 4 machines do not have org/new yet"),
        (TAKEN, [HALF], 1, ""),
        (TAKEN, [DONE, IN_MEMORY], 0, "1 machines still have it in memory"),
        (TAKEN, [IN_MEMORY], 1, ""),
        (TAKEN, [router(silent=True)], 9, "no router speaks"),
        (TAKEN, [DONE, BEHIND], 9, "a router does not go by the newest catalog"),
        (dataclasses.replace(TAKEN, traffic_percent=50), [DONE], 0, "end the split first"),
    ],
    ids=[
        "no name",
        "left",
        "nobody",
        "no router",
        "nobody let",
        "done",
        "half",
        "half let",
        "warm",
        "warm let",
        "mute",
        "late",
        "split",
    ],
)
def test_a_build_that_was_taken_over_goes_once_nobody_needs_it(
    alias: Alias | None, readers: list[Reader], left: int, refusal: str
) -> None:
    if not refusal:
        check_retirement(alias, readers, 1, left)
        return
    with pytest.raises(TakeoverEarlyError, match=refusal):
        check_retirement(alias, readers, 1, left)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("alias_id", "a/b"),
        ("display_name", "x" * 257),
        ("source_model", ""),
        ("source_model", "market"),
        ("marketplace_slug", "x" * 257),
        ("hugging_face_id", "a\0b"),
    ],
)
def test_a_wrong_name_for_marketplaces_is_refused_by_field(field: str, value: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        check_marketplace_alias(dataclasses.replace(FOR_MARKETPLACES, **{field: value}))
    assert caught.value.field == f"alias.{field}"


def test_the_id_is_the_default_display_name_at_marketplaces_too() -> None:
    assert check_marketplace_alias(FOR_MARKETPLACES).display_name == "market"
