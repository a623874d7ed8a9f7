import grpc
import pytest
from darkbloom.common.v1.error_reason_pb2 import ErrorReason
from darkbloom_mesh import errors
from darkbloom_mesh.errors import InvalidArgumentError, MeshError, PreconditionError, from_rpc_error
from hypothesis import given
from hypothesis import strategies as st


def over_the_wire(error: MeshError) -> MeshError:
    return from_rpc_error(
        grpc.aio.AioRpcError(
            error.status,
            grpc.aio.Metadata(),
            grpc.aio.Metadata(*error.trailing_metadata()),
            error.message,
        )
    )


@pytest.mark.parametrize("kind", errors.TABLE)
def test_every_class_of_the_table_comes_back_as_itself(kind: type[MeshError]) -> None:
    back = over_the_wire(kind("went wrong"))
    assert type(back) is kind
    assert (back.message, back.reason) == ("went wrong", kind.reason)


@pytest.mark.parametrize("name", ErrorReason.keys())
def test_every_reason_survives_the_wire(name: str) -> None:
    error = PreconditionError("no", reason=ErrorReason.Value(name), metadata={"darkbloom-a": "1"})
    back = over_the_wire(error)
    assert back.reason == ErrorReason.Value(name)
    assert back.metadata == {"darkbloom-a": "1"}


def test_a_rooms_own_error_comes_back_as_its_class_of_the_table() -> None:
    class InsufficientFundsError(PreconditionError):
        reason = ErrorReason.ERROR_REASON_INSUFFICIENT_FUNDS

    back = over_the_wire(InsufficientFundsError("balance is below the hold"))
    assert type(back) is PreconditionError
    assert back.reason == ErrorReason.ERROR_REASON_INSUFFICIENT_FUNDS


def test_the_field_of_a_bad_argument_survives_the_wire() -> None:
    back = over_the_wire(InvalidArgumentError("too long", "page_size"))
    assert isinstance(back, InvalidArgumentError)
    assert back.field == "page_size"


def test_the_table_has_one_line_for_each_class() -> None:
    for kind in errors.TABLE:
        assert f"`{kind.__name__}` | {kind.status.name}" in (errors.__doc__ or "")


@pytest.mark.parametrize("status", [s for s in grpc.StatusCode if s is not grpc.StatusCode.OK])
def test_a_status_made_by_the_library_maps_and_loses_its_text(status: grpc.StatusCode) -> None:
    raw = grpc.aio.AioRpcError(status, None, None, "ipv4:10.0.0.1 said something")
    mapped = from_rpc_error(raw)
    assert "10.0.0.1" not in str(mapped)
    assert mapped.reason in (
        type(mapped).reason,
        ErrorReason.ERROR_REASON_UNSPECIFIED,
    )
    if status is grpc.StatusCode.UNAVAILABLE:
        assert type(mapped) is errors.UnavailableError


@given(st.text(), st.text(), st.sampled_from(list(grpc.StatusCode)))
def test_any_trailing_metadata_gives_some_mesh_error(
    reason: str, value: str, status: grpc.StatusCode
) -> None:
    metadata = grpc.aio.Metadata(("darkbloom-reason", reason), ("darkbloom-x", value))
    assert isinstance(from_rpc_error(grpc.aio.AioRpcError(status, None, metadata)), MeshError)


@given(st.text())
def test_metadata_values_are_always_printable(value: str) -> None:
    error = MeshError("x", metadata={"darkbloom-a": value})
    assert dict(error.trailing_metadata())["darkbloom-a"].isascii()
