import pytest
from darkbloom.common.v1 import page_pb2
from darkbloom.registry.v1 import catalog_pb2
from darkbloom_mesh.errors import InvalidArgumentError
from darkbloom_registry import convert
from darkbloom_registry.model import BuildStatus
from hypothesis import given
from hypothesis import strategies as st


def test_a_new_build_is_beta_unless_said() -> None:
    assert convert.facts_from(catalog_pb2.Build(id="m")).status is BuildStatus.BETA


def test_a_status_of_the_future_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="status"):
        convert.facts_from(catalog_pb2.Build(id="m", status=99))


def test_an_absent_share_of_traffic_stays_absent() -> None:
    absent = convert.alias_from(catalog_pb2.Alias(alias_id="a"))
    zero = convert.alias_from(catalog_pb2.Alias(alias_id="a", traffic_percent=0))
    assert (absent.traffic_percent, zero.traffic_percent) == (None, 0)
    assert not convert.alias_to(absent).HasField("traffic_percent")
    assert convert.alias_to(zero).HasField("traffic_percent")


@given(st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"])))
def test_a_page_token_finds_its_place_again(last: str) -> None:
    page = page_pb2.PageRequest(page_token=convert.page_token(last))
    assert convert.page_from(page) == (last, 100)


@given(st.text(), st.integers(-(2**31), 2**31 - 1))
def test_any_page_is_read_or_refused(token: str, size: int) -> None:
    try:
        page = page_pb2.PageRequest(page_token=token, page_size=size)
    except (ValueError, UnicodeEncodeError):
        return
    try:
        _, bounded = convert.page_from(page)
    except InvalidArgumentError as error:
        assert error.field in {"page.page_token", "page.page_size"}  # noqa: PT017 - either is right
    else:
        assert 1 <= bounded <= 1000
