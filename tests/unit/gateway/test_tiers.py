import pytest
from darkbloom_gateway.buckets import Dimension, Rate
from darkbloom_gateway.errors import ApiError
from darkbloom_gateway.model import KeyRecord
from darkbloom_gateway.tiers import USUAL_OUTPUT, Tier, Tiers

ACCOUNT = Tier(Rate(20, 120), Rate(83_333, 1_000_000), Rate(8_333, 64_000))
SERVICE = Tier(None, Rate(833_333, 5_000_000), Rate(83_333, 512_000))
TIERS = Tiers(account=ACCOUNT, service=SERVICE)


def claimed(key: KeyRecord, tiers: Tiers = TIERS, *, bound: int = 4000, asked: bool = True) -> int:
    charge = tiers.claim(key, prompt_estimate=10, output_bound=bound, asked=asked)
    assert charge is not None
    return charge.amounts[Dimension.OUTPUT_TOKENS]


def test_a_key_narrows_its_account_and_comes_first() -> None:
    key = KeyRecord("k", "a", rpm_limit=60, otpm_limit=90_000)

    charge = TIERS.claim(key, prompt_estimate=10, output_bound=4000, asked=True)

    assert charge is not None
    assert [meter.owner for meter in charge.meters] == ["key", "account"]
    assert charge.meters[0].rates == (Rate(1.0, 60), None, Rate(1500.0, 90_000))
    assert charge.meters[1].rates == ACCOUNT.rates
    assert charge.amounts == (1, 10, 4000)


def test_a_service_account_has_its_own_tier_and_the_operator_none() -> None:
    charge = TIERS.claim(
        KeyRecord("k", "a", account_role="service"), prompt_estimate=1, output_bound=1, asked=True
    )
    assert charge is not None
    assert [meter.rates for meter in charge.meters] == [SERVICE.rates]
    admin = KeyRecord("", "admin", rpm_limit=1)
    assert TIERS.claim(admin, prompt_estimate=10**9, output_bound=10**9, asked=True) is None


@pytest.mark.parametrize(
    ("bound", "claim"), [(100, 100), (1000, 512), (4000, 1000), (20_000, 5000), (65_536, 8192)]
)
def test_a_service_account_may_claim_a_quarter(bound: int, claim: int) -> None:
    tier = Tier(None, None, Rate(83_333, 512_000), estimates_output=True)
    key = KeyRecord("k", "a", account_role="service")

    assert claimed(key, Tiers(account=ACCOUNT, service=tier), bound=bound) == claim


def test_a_bound_that_nobody_named_is_claimed_in_part() -> None:
    assert claimed(KeyRecord("k", "a"), bound=65_536, asked=False) == USUAL_OUTPUT
    assert claimed(KeyRecord("k", "a"), bound=9, asked=False) == 9
    assert claimed(KeyRecord("k", "a", otpm_limit=50), bound=65_536, asked=False) == 50


@pytest.mark.parametrize(
    ("key", "prompt", "bound", "status", "words"),
    [
        (KeyRecord("k", "a"), 1_000_001, 1, 413, "1000001 input tokens"),
        (KeyRecord("k", "a", itpm_limit=9), 10, 1, 413, "of this key is 9 at once"),
        (KeyRecord("k", "a"), 1, 64_001, 400, "64001 output tokens"),
        (KeyRecord("k", "a", otpm_limit=9), 1, 10, 400, "of this key is 9 at once"),
        (KeyRecord("k", "a", rpm_limit=0), 1, 1, 400, "1 requests"),
    ],
)
def test_more_than_a_full_bucket_is_refused_by_name(
    key: KeyRecord, prompt: int, bound: int, status: int, words: str
) -> None:
    with pytest.raises(ApiError) as caught:
        TIERS.claim(key, prompt_estimate=prompt, output_bound=bound, asked=True)

    assert caught.value.http_status == status
    assert words in caught.value.message
    assert caught.value.retry_after_s is None


def test_a_tier_without_limits_claims_nothing() -> None:
    nothing = Tier(None, None, None)
    tiers = Tiers(account=nothing, service=nothing)

    assert tiers.claim(KeyRecord("k", "a"), prompt_estimate=1, output_bound=1, asked=True) is None


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (KeyRecord("k", "a", rpm_limit=3), "4 requests"),
        (KeyRecord("k", "a", itpm_limit=39), "40 input tokens"),
        (KeyRecord("k", "a", otpm_limit=399), "400 output tokens"),
    ],
)
def test_choices_that_a_full_bucket_cannot_hold_together_are_refused(
    key: KeyRecord, words: str
) -> None:
    def claim(choices: int) -> object:
        return TIERS.claim(key, prompt_estimate=10, output_bound=100, asked=True, choices=choices)

    assert claim(3)
    with pytest.raises(ApiError, match=words):
        claim(4)


def test_choices_without_a_named_bound_share_a_small_bucket() -> None:
    charge = TIERS.claim(
        KeyRecord("k", "a", otpm_limit=50),
        prompt_estimate=10,
        output_bound=65_536,
        asked=False,
        choices=4,
    )

    assert charge is not None
    assert charge.amounts[Dimension.OUTPUT_TOKENS] == 12
