"""What `darkbloom earnings` tells a person."""

from typing import Any

import pytest
from darkbloom_provider.cli.earnings import show, usd

SUMMARY: dict[str, Any] = {
    "lifetime_micro_usd": 12_345_678,
    "lifetime_jobs": 9,
    "last_24h_micro_usd": 5,
    "last_24h_jobs": 1,
    "available_balance_micro_usd": 1,
    "maturing_balance_micro_usd": 7,
    "machines": [{"name": "studio", "earnings_micro_usd": 3, "jobs": 9, "tokens": 44}],
}


def test_sums_machines_and_jobs_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    job = {"created_at": "2026-05-01T12:00:00Z", "model": "tiny", "amount_micro_usd": 100}
    show(SUMMARY, [job])
    told = capsys.readouterr().out
    for words in ("$12.345678", "9 jobs", "$0.000007", "studio", "44", "tiny", "$0.000100"):
        assert words in told
    show({}, [])
    assert "No jobs yet." in capsys.readouterr().out


def test_dollars_are_exact() -> None:
    assert [usd(n) for n in (0, 1, -1_500_000, None)] == [
        "$0.000000",
        "$0.000001",
        "-$1.500000",
        "$0.000000",
    ]
