"""What `darkbloom earnings` tells a person."""

from typing import Any

import pytest
from darkbloom_provider.cli.earnings import Found, show, usd

SUMMARY: dict[str, Any] = {
    "lifetime_micro_usd": 12_345_678,
    "lifetime_jobs": 9,
    "last_24h_micro_usd": 5,
    "last_24h_jobs": 1,
    "available_balance_micro_usd": 1,
    "maturing_balance_micro_usd": 7,
    "machines": [{"name": "studio", "earnings_micro_usd": 3, "jobs": 9, "tokens": 44}],
}
WORK = [
    {"day": "2026-05-01", "model": "tiny", "earnings_micro_usd": 100, "jobs": 2},
    {"day": "2026-05-01", "model": "large", "earnings_micro_usd": 30, "jobs": 1},
    {"day": "2026-05-02", "model": "tiny", "earnings_micro_usd": 7, "jobs": 1},
]


def test_sums_days_models_machines_and_jobs_are_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    job = {"created_at": "2026-05-01T12:00:00Z", "model": "[b]tiny", "amount_micro_usd": 100}
    show(Found(summary=SUMMARY, work=WORK, jobs=[job], days=7))
    told = capsys.readouterr().out
    for words in ("$12.345678", "9 jobs", "$0.000007", "studio", "44", "[b]tiny", "$0.000100"):
        assert words in told
    lines = [" ".join(line.split()) for line in told.splitlines()]
    assert "2026-05-01 $0.000130 3" in lines
    assert "tiny $0.000107 3" in lines
    assert max(map(len, told.splitlines())) <= 80


def test_an_account_without_work_is_told_where_to_look(capsys: pytest.CaptureFixture[str]) -> None:
    show(Found(summary={}, work=[], jobs=[], days=7))
    assert "No jobs yet. `darkbloom doctor`" in capsys.readouterr().out


def test_dollars_are_exact() -> None:
    assert [usd(n) for n in (0, 1, -1_500_000, None, True)] == [
        "$0.000000",
        "$0.000001",
        "-$1.500000",
        "$0.000000",
        "$0.000000",
    ]
