"""`darkbloom earnings`, against a gateway that answers as ours does."""

import json
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from darkbloom_edge.signatures import to_base64
from darkbloom_provider import identity
from darkbloom_provider.account import Login, write_login

from tests.fakes.gateway import ACCOUNT, TOKEN, FakeGateway, error

SUMMARY = {
    "account_id": ACCOUNT,
    "lifetime_micro_usd": 1_500_000,
    "lifetime_jobs": 3,
    "withdrawable_balance_micro_usd": 250_000,
    "machines": [{"name": "studio", "earnings_micro_usd": 1_500_000, "jobs": 3, "tokens": 90}],
}
WORK = [{"day": "2026-05-01", "model": "tiny", "earnings_micro_usd": 100, "jobs": 2}]
JOBS = [{"created_at": "2026-05-01T12:00:00Z", "model": "tiny", "amount_micro_usd": 50}]
EX_USAGE = 64


@pytest.fixture
def gateway(home) -> Iterator[FakeGateway]:
    with FakeGateway().serving() as found:
        write_login(home.login, Login(gateway=found.url, account_id=ACCOUNT, token=TOKEN))
        yield found


def tell(gateway: FakeGateway, *, days: int = 7, limit: int = 50, machine: str = "") -> None:
    """Prepare the three answers of one run."""
    tail = f"&machine={quote(machine, safe='')}" if machine else ""
    gateway.answers |= {
        "GET /v1/provider/earnings-summary": [(200, SUMMARY)],
        f"GET /v1/me/insights?days={days}{tail}": [(200, {"days": days, "rows": WORK})],
        f"GET /v1/me/earnings?limit={limit}{tail}": [(200, {"earnings": JOBS})],
    }


def test_totals_days_models_and_jobs_are_shown(cli, gateway):
    tell(gateway)
    code, out, err = cli("earnings")
    assert code == 0, err
    for words in ("$1.500000", "3 jobs", "Withdrawable", "$0.250000", "2026-05-01", "studio"):
        assert words in out
    assert "\x1b" not in out
    assert "│" not in out


def test_a_program_gets_everything_of_this_machine(cli, home, gateway):
    key = to_base64(identity.load_or_create(home.identity_key).public)
    tell(gateway, days=30, limit=5, machine=key)
    code, out, err = cli("earnings", "--json", "--node", "--days", "30", "--limit", "5")
    assert code == 0, err
    said = json.loads(out)
    assert said["summary"] == SUMMARY
    assert said["by_day"] == [{"day": "2026-05-01", "earnings_micro_usd": 100, "jobs": 2}]
    assert said["by_model"] == [{"model": "tiny", "earnings_micro_usd": 100, "jobs": 2}]
    assert said["earnings"] == JOBS


def test_without_a_login_the_way_to_one_is_named(cli):
    code, _, err = cli("earnings")
    assert code == 1
    assert "run darkbloom login" in err


def test_a_login_that_counts_no_more_and_a_strange_answer_are_plain_errors(cli, gateway):
    gateway.answers["GET /v1/provider/earnings-summary"] = [error(401, "authentication_error")]
    assert "run darkbloom login" in cli("earnings")[2]
    tell(gateway)
    gateway.answers["GET /v1/me/insights?days=7"] = [(200, {"rows": 3})]
    code, _, err = cli("earnings")
    assert code == 1
    assert "not understood" in err


@pytest.mark.parametrize("flags", [("--days", "8"), ("--limit", "0"), ("--limit", "1001")])
def test_what_cannot_be_asked_is_refused(cli, flags):
    assert cli("earnings", *flags)[0] == EX_USAGE
