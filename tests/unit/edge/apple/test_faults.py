"""The vocabulary is closed: each reason has a test that brings it about."""

from pathlib import Path

from darkbloom_edge.apple import AppleFault, AppleRejected


def test_each_reason_is_tried_by_a_test_of_this_folder() -> None:
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert [fault for fault in AppleFault if f"AppleFault.{fault.name}" not in tests] == []


def test_a_refusal_names_its_reason_and_shows_no_bytes() -> None:
    error = AppleRejected(AppleFault.NONCE, "missing")
    assert str(error) == "apple evidence rejected, nonce: missing"
    assert error.reason == "nonce"
