"""What an operator sees: whole ids on any screen and in any pipe, dollars under their own name."""

import json
from typing import Any

import pytest
from darkbloom_billing.admin.cli.output import show

ACCOUNT = "acct_fd461b4242c93986bab7af146b6333a1"
COLUMNS = ("account_id", "promo_micros", "credit_micros", "earned_micros", "debt_micros", "role")
ROW = {
    "account_id": ACCOUNT,
    "promo_micros": 9_999_900,
    "credit_micros": 10_000_000,
    "earned_micros": 1,
    "debt_micros": 0,
    "role": "",
}
LIST: dict[str, Any] = {"accounts": [ROW], "next_page_token": "t" * 120}


@pytest.fixture
def width(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Set the width of the screen."""

    def become(columns: int, *, terminal: bool) -> None:
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("FORCE_COLOR" if terminal else "NO_COLOR", "1")
        monkeypatch.delenv("NO_COLOR" if terminal else "FORCE_COLOR", raising=False)
        monkeypatch.setenv("TERM", "xterm")

    return become


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("columns", [60, 80, 200])
def test_no_id_and_no_amount_is_ever_cut_off(
    width: Any, capsys: pytest.CaptureFixture[str], columns: int, *, terminal: bool
) -> None:
    width(columns, terminal=terminal)

    show(LIST, COLUMNS, rows="accounts", as_json=False)

    out = capsys.readouterr().out
    assert ACCOUNT in out
    assert all(amount in out for amount in ("$9.999900", "$10.000000", "$0.000001"))
    assert "…" not in out
    assert "_micros" not in out
    assert "t" * 120 in out


@pytest.mark.parametrize("terminal", [True, False])
def test_one_thing_is_shown_whole_on_any_screen_and_in_any_pipe(
    width: Any, capsys: pytest.CaptureFixture[str], *, terminal: bool
) -> None:
    width(80, terminal=terminal)
    rules = [{"rule": f"rule_number_{n}", "rows": n} for n in range(20)]

    show({"erasure": {"erasure_id": ACCOUNT, "rules": rules}}, (), as_json=False)

    out = capsys.readouterr().out
    assert "erasure_id" in out
    assert "…" not in out
    assert "rule_number_19" in "".join(out.replace("│", "").split())


def test_a_screen_is_never_wider_than_it_is(width: Any, capsys: pytest.CaptureFixture[str]) -> None:
    width(80, terminal=True)

    show({"accounts": [ROW]}, COLUMNS, rows="accounts", as_json=False)

    assert max(len(line) for line in capsys.readouterr().out.splitlines()) <= 80


def test_a_program_reads_the_names_and_numbers_of_the_contract(
    width: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    width(20, terminal=False)

    show(LIST, COLUMNS, rows="accounts", as_json=True)

    assert json.loads(capsys.readouterr().out) == LIST
