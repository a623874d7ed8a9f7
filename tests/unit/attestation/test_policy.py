import pytest
from darkbloom_attestation import policy
from darkbloom_attestation.model import Standing
from darkbloom_edge.verdict import trust_level_rank
from hypothesis import given
from hypothesis import strategies as st

LEVELS = st.sampled_from(["none", "self_signed", "hardware"])
BELOW_HARDWARE = st.sampled_from(["none", "self_signed"])


@given(LEVELS, st.booleans())
def test_nothing_that_is_judged_here_proves_more_than_self_signed(registered, clean) -> None:
    level = policy.proven_level(registered, posture_clean=clean)
    assert trust_level_rank(level) <= trust_level_rank("self_signed")


def test_bad_posture_caps_the_level() -> None:
    assert policy.proven_level("self_signed", posture_clean=True) == "self_signed"
    assert policy.proven_level("self_signed", posture_clean=False) == "none"
    assert policy.proven_level("none", posture_clean=True) == "none"


@given(BELOW_HARDWARE, st.text(), st.booleans(), st.booleans())
def test_only_hardware_is_admitted_to_the_public(level, owner, development, verified) -> None:
    admission = policy.admit(
        level, development=development, owner_account_id=owner, runtime_verified=verified
    )
    assert admission != "public"


@given(LEVELS, st.text(), st.booleans())
def test_production_never_admits_as_development(level, owner, verified) -> None:
    admission = policy.admit(
        level, development=False, owner_account_id=owner, runtime_verified=verified
    )
    assert admission != "development"


@given(LEVELS, st.text(), st.booleans())
def test_unknown_code_is_admitted_nowhere(level, owner, development) -> None:
    admission = policy.admit(
        level, development=development, owner_account_id=owner, runtime_verified=False
    )
    assert admission is None


@pytest.mark.parametrize(("owner", "admission"), [("acct_1", "owner"), ("", None)])
def test_in_production_a_linked_owner_may_use_his_own(owner: str, admission: str | None) -> None:
    found = policy.admit("none", development=False, owner_account_id=owner, runtime_verified=True)
    assert found == admission


def test_three_failures_in_a_row_untrust_for_good() -> None:
    standing = Standing()
    for expected in ("", "", "signature_failed"):
        standing = policy.after_failure(standing, "signature_failed", untrust=False)
        assert standing.untrusted == expected
    assert policy.after_pass(standing).untrusted == "signature_failed"


def test_a_pass_between_forgets_the_strikes() -> None:
    standing = Standing()
    for _ in range(4):
        standing = policy.after_failure(standing, "stale", untrust=False)
        standing = policy.after_failure(standing, "stale", untrust=False)
        standing = policy.after_pass(standing)
    assert standing == Standing()


def test_three_timeouts_suspend_until_the_next_pass_and_six_close() -> None:
    standing = Standing()
    seen = []
    for _ in range(6):
        standing = policy.after_timeout(standing)
        seen.append((policy.is_suspended(standing), policy.must_close(standing)))
    assert seen == [(False, False)] * 2 + [(True, False)] * 3 + [(True, True)]
    assert not policy.is_suspended(policy.after_pass(standing))


def test_the_first_reason_of_an_untrust_stays() -> None:
    standing = policy.after_failure(Standing(), "weight_hash_mismatch", untrust=True)
    assert policy.after_violation(standing, "credit").untrusted == "weight_hash_mismatch"
    assert policy.after_violation(Standing(), "credit").untrusted == "violation_credit"
