import dataclasses

import pytest
from darkbloom_mesh.errors import InvalidArgumentError
from darkbloom_registry.aliases import check_alias, succeed
from darkbloom_registry.model import Alias

ALIAS = Alias(
    alias_id="small",
    display_name="",
    desired_build="org/one",
    previous_build="",
    active=True,
    traffic_percent=None,
)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("alias_id", ""),
        ("alias_id", "a/b"),
        ("alias_id", "x" * 129),
        ("display_name", "x" * 257),
        ("desired_build", ""),
        ("desired_build", "small"),
        ("previous_build", "org/one"),
        ("traffic_percent", -1),
        ("traffic_percent", 101),
    ],
)
def test_a_wrong_field_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        check_alias(dataclasses.replace(ALIAS, **{field: value}))
    assert caught.value.field == f"alias.{field}"


def test_the_id_is_the_default_display_name() -> None:
    assert check_alias(ALIAS).display_name == "small"


def test_builds_rotated_out_accumulate() -> None:
    one = succeed(ALIAS, None)
    two = succeed(
        dataclasses.replace(ALIAS, desired_build="org/two", previous_build="org/one"), one
    )
    three = succeed(dataclasses.replace(ALIAS, desired_build="org/three"), two)

    assert (one.retired_builds, two.retired_builds) == ((), ())
    assert three.retired_builds == ("org/two", "org/one")


def test_a_build_that_comes_back_is_not_retired_any_more() -> None:
    moved = succeed(dataclasses.replace(ALIAS, desired_build="org/two"), succeed(ALIAS, None))
    back = succeed(ALIAS, moved)
    assert (moved.retired_builds, back.retired_builds) == (("org/one",), ("org/two",))


def test_the_memory_is_not_for_the_caller_to_write() -> None:
    forged = dataclasses.replace(ALIAS, retired_builds=("org/else",))
    assert succeed(forged, None).retired_builds == ()


def test_the_same_alias_again_is_the_same() -> None:
    once = succeed(ALIAS, None)
    assert succeed(ALIAS, once) == once
