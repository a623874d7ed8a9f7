"""Prices, payments, earnings, public figures and the export, over HTTP."""

import csv
import io
import json
import zipfile
from functools import partial
from typing import Any

import pytest
from darkbloom.billing.v1.payment_service_pb2_grpc import add_PaymentServiceServicer_to_server
from darkbloom_edge.signatures import to_base64
from darkbloom_mesh.errors import ConflictError, MeshError, OverloadedError

from tests.component.gateway.harness import BEARER, Harness, gateway
from tests.component.gateway.neighbours import BUILD, PRICE
from tests.fakes.identity import LOGIN_TOKEN
from tests.fakes.payments import FakePayments
from tests.fakes.reports import MACHINE, PAGES

LOGIN = {"authorization": f"Bearer {LOGIN_TOKEN}"}
INVALID = "invalid_request_error"
READS = (
    "/v1/payments/balance",
    "/v1/payments/usage",
    "/v1/payments/ledger",
    "/v1/pricing/own",
    "/v1/provider/account-earnings",
    "/v1/me/earnings",
    "/v1/me/insights",
    "/v1/provider/earnings-summary",
    "/v1/me/public-name",
)


def error(response: Any) -> tuple[int, str, str, str | None]:
    body = response.json()["error"]
    assert response.headers["content-type"] == "application/json"
    return response.status_code, body["type"], body["code"], body.get("param")


async def test_nobody_reads_money_without_a_credential(mesh: Harness) -> None:
    for path in (*READS, "/v1/me/export"):
        response = await mesh.http.get(path)
        assert error(response)[:2] == (401, "authentication_error")


async def test_reads_are_503_while_billing_is_away(valkey_url: str) -> None:
    async with gateway(valkey_url) as mesh:
        mesh.billing.reports.down = True
        for path in READS[:3] + READS[4:]:
            response = await mesh.http.get(path, headers=BEARER)
            assert error(response)[:2] == (503, "service_unavailable")
            assert response.headers["retry-after"]


async def test_a_balance_says_what_each_wallet_has(mesh: Harness) -> None:
    response = await mesh.http.get("/v1/payments/balance", headers=BEARER)
    assert response.json() == {
        "balance_micro_usd": 1_234_567,
        "balance_usd": "1.234567",
        "withdrawable_micro_usd": 5,
        "withdrawable_usd": "0.000005",
        "promo_micro_usd": 1_000_000,
        "purchased_micro_usd": 234_562,
        "earned_micro_usd": 5,
        "held_micro_usd": 0,
        "maturing_micro_usd": 7,
        "disputed_micro_usd": 0,
        "debt_micro_usd": 0,
        "frozen": False,
    }


async def test_usage_comes_in_pages_and_by_filter(mesh: Harness) -> None:
    first = (await mesh.http.get("/v1/payments/usage?limit=1", headers=BEARER)).json()
    second = await mesh.http.get(
        f"/v1/payments/usage?page_token={first['next_page_token']}", headers=BEARER
    )
    assert [row["job_id"] for row in first["usage"] + second.json()["usage"]] == ["att_0", "att_1"]
    assert first["usage"][0]["timestamp"] == "2026-05-01T12:00:00.000000Z"

    await mesh.http.get(
        "/v1/payments/usage?from=2026-05-01&to=2026-05-02T00:00:00%2B02:00&key_id=k&model=m",
        headers=BEARER,
    )
    wanted = mesh.billing.reports.asked[-1].filter
    assert wanted.from_time.ToJsonString() == "2026-05-01T00:00:00Z"
    assert wanted.to_time.ToJsonString() == "2026-05-01T22:00:00Z"
    assert (wanted.key_id, wanted.model) == ("k", "m")


async def test_a_bad_filter_is_named(mesh: Harness) -> None:
    for query, param in (
        ("limit=0", "limit"),
        ("limit=canary", "limit"),
        ("from=canary", "from"),
        ("to=2026-05-01T00:00:00", "to"),
        ("from=9999-99-99", "from"),
        ("format=canary", "format"),
        ("page_token=canary", "page_token"),
    ):
        response = await mesh.http.get(f"/v1/payments/usage?{query}", headers=BEARER)
        assert error(response) == (400, INVALID, INVALID, param)
        assert "canary" not in response.text


async def test_csv_streams_every_page_and_runs_no_formula(valkey_url: str) -> None:
    async with gateway(valkey_url) as mesh:
        mesh.billing.reports.model = "=1+1"
        for path, accept in (
            ("/v1/payments/usage?format=csv", "application/json"),
            ("/v1/payments/usage", "text/csv;q=0.9, */*"),
            ("/v1/me/earnings?format=csv", "*/*"),
        ):
            response = await mesh.http.get(path, headers={**BEARER, "accept": accept})
            assert response.headers["content-type"] == "text/csv; charset=utf-8"
            head, *rows = list(csv.reader(io.StringIO(response.text)))
            assert len(rows) == PAGES
            assert rows[0][head.index("model")] == "'=1+1"


async def test_a_csv_that_would_be_cut_off_is_refused(valkey_url: str) -> None:
    async with gateway(valkey_url) as mesh:
        mesh.billing.reports.matches = 10**9
        for path in ("/v1/payments/usage", "/v1/me/earnings"):
            response = await mesh.http.get(f"{path}?format=csv", headers=BEARER)
            assert error(response) == (400, INVALID, INVALID, "from")


async def test_a_ledger_lists_every_movement(mesh: Harness) -> None:
    response = (await mesh.http.get("/v1/payments/ledger?limit=1", headers=BEARER)).json()
    (entry,) = response["entries"]
    assert (entry["type"], entry["amount_micro_usd"], entry["id"]) == ("charge", -100, "0d")
    assert response["next_page_token"] == "1"
    wrong = await mesh.http.get("/v1/payments/ledger?page_token=x", headers=BEARER)
    assert error(wrong) == (400, INVALID, INVALID, "page_token")


async def test_prices_are_public_and_say_the_fallback(mesh: Harness) -> None:
    body = (await mesh.http.get("/v1/pricing")).json()
    assert [row["model"] for row in body["prices"]] == [BUILD, "tiny"]
    row = {name: value for name, value in body["prices"][0].items() if name != "model"}
    assert row == {
        "input_price": 50_000,
        "output_price": 200_000,
        "cache_read_price": 25_000,
        "input_usd": "$0.0500",
        "output_usd": "$0.2000",
        "cache_read_usd": "$0.0250",
    }
    assert {f"fallback_{name}": value for name, value in row.items()} == {
        name: value for name, value in body.items() if name != "prices"
    }


async def test_a_provider_sets_and_takes_back_its_own_price(valkey_url: str) -> None:
    async with gateway(valkey_url) as mesh:
        body = {"model": "tiny", "input_price": 30_000, "output_price": 165_000}
        response = await mesh.http.put("/v1/pricing", headers=BEARER, json=body)
        assert response.json() == {
            "status": "updated",
            **body,
            "cache_read_price": 15_000,
            "input_usd": "$0.0300 per 1M tokens",
            "output_usd": "$0.1650 per 1M tokens",
            "cache_read_usd": "$0.0150 per 1M tokens",
        }
        (sent,) = mesh.billing.prices_set
        assert (sent.account_id, sent.build) == ("acct_test", BUILD)
        assert not sent.HasField("cache_read_micros")
        own = (await mesh.http.get("/v1/pricing/own", headers=BEARER)).json()["prices"]
        assert own[0]["input_price"] == PRICE.input_micros

        gone = {"headers": BEARER, "json": {"model": "tiny"}}
        response = await mesh.http.request("DELETE", "/v1/pricing", **gone)
        assert response.json() == {"status": "deleted", "model": "tiny"}
        response = await mesh.http.request("DELETE", "/v1/pricing", **gone)
        assert error(response) == (404, "not_found", "not_found", None)


async def test_a_bad_price_is_named(mesh: Harness) -> None:
    changes: list[tuple[dict[str, Any], tuple[Any, ...]]] = [
        ({"model": "no/such"}, (404, "model_not_found", "model_not_found", "model")),
        ({"model": None}, (400, INVALID, INVALID, "model")),
        ({"input_price": 0}, (400, INVALID, INVALID, "input_price")),
        ({"input_price": 1.5}, (400, INVALID, INVALID, "input_price")),
        ({"output_price": "1"}, (400, INVALID, INVALID, "output_price")),
        ({"cache_read_price": 30_001}, (400, INVALID, INVALID, "cache_read_price")),
        ({"input_price": 200_001}, (400, INVALID, "price_too_high", "input_price")),
    ]
    for change, expected in changes:
        body = {"model": "tiny", "input_price": 30_000, "output_price": 1, **change}
        response = await mesh.http.put("/v1/pricing", headers=BEARER, json=body)
        assert error(response) == expected
    assert response.json()["error"]["limit"] == 200_000


@pytest.mark.parametrize(
    ("refusal", "expected"),
    [
        (ConflictError("other contents"), (409, "conflict", "conflict", None)),
        (OverloadedError("too many"), (429, "rate_limit_exceeded", "rate_limit_exceeded", None)),
    ],
)
async def test_what_billing_says_of_a_price_is_told_exactly(
    mesh: Harness, refusal: MeshError, expected: tuple[Any, ...]
) -> None:
    mesh.billing.price_refusal = refusal
    body = {"model": "tiny", "input_price": 1, "output_price": 1}
    assert error(await mesh.http.put("/v1/pricing", headers=BEARER, json=body)) == expected


async def test_a_malformed_idempotency_key_is_400(mesh: Harness) -> None:
    body = {"model": "tiny", "input_price": 1, "output_price": 1}
    headers = {**BEARER, "idempotency-key": "a b"}
    response = await mesh.http.put("/v1/pricing", headers=headers, json=body)
    assert error(response) == (400, INVALID, INVALID, None)


async def test_only_an_administrator_sets_the_platforms_price(mesh: Harness) -> None:
    body = {"model": "new/build", "input_price": 100, "output_price": 100}
    refused = await mesh.http.put("/v1/admin/pricing", headers=BEARER, json=body)
    assert error(refused)[:2] == (403, "forbidden")
    assert not mesh.billing.prices_set


async def test_account_earnings_have_rows_and_sums(mesh: Harness) -> None:
    response = await mesh.http.get("/v1/provider/account-earnings?limit=9999", headers=BEARER)
    body = response.json()
    assert body["account_id"] == "acct_test"
    assert (body["total_micro_usd"], body["total_usd"], body["count"]) == (800, "0.000800", 2)
    assert (body["recent_count"], body["history_limit"]) == (1, 50)
    assert body["available_balance_micro_usd"] == 1_234_567
    assert body["withdrawable_balance_usd"] == "0.000005"
    assert body["maturing_balance_micro_usd"] == 7


async def test_earnings_are_asked_by_machine(mesh: Harness) -> None:
    key = to_base64(MACHINE)
    response = await mesh.http.get("/v1/me/earnings", params={"machine": key}, headers=BEARER)
    assert response.json()["earnings"][0]["machine_key"] == key
    assert mesh.billing.reports.asked[-1].filter.identity_key == MACHINE
    wrong = await mesh.http.get("/v1/me/earnings?machine=canary", headers=BEARER)
    assert error(wrong) == (400, INVALID, INVALID, "machine")


async def test_insights_cover_some_days(mesh: Harness) -> None:
    response = await mesh.http.get("/v1/me/insights?days=30", headers=BEARER)
    (row,) = response.json()["rows"]
    assert (row["day"], row["earnings_micro_usd"], row["jobs"]) == ("2026-05-01", 1_000, 2)
    assert mesh.billing.reports.asked[-1].days == 30
    as_csv = await mesh.http.get("/v1/me/insights?format=csv", headers=BEARER)
    assert as_csv.text.splitlines()[1] == "2026-05-01,tiny,,800,200,60,2"
    wrong = await mesh.http.get("/v1/me/insights?days=8", headers=BEARER)
    assert error(wrong) == (400, INVALID, INVALID, "days")


async def test_a_summary_counts_machines_that_are_and_are_not_there(mesh: Harness) -> None:
    mesh.billing.identity.add_login()
    body = (await mesh.http.get("/v1/me/summary", headers=LOGIN)).json()
    assert (body["lifetime_micro_usd"], body["last_7d_jobs"]) == (1_000, 2)
    assert body["payout_ready"] is False
    assert body["counts"]["total"] == 1
    assert body["counts"]["offline"] + body["counts"]["online"] == 1
    assert body["machines"][0]["name"] == "mac"


async def test_a_summary_is_for_a_person_and_its_sums_for_machines_too(mesh: Harness) -> None:
    refused = await mesh.http.get("/v1/me/summary", headers=BEARER)
    assert error(refused)[:2] == (403, "forbidden")
    sums = (await mesh.http.get("/v1/provider/earnings-summary", headers=BEARER)).json()
    assert (sums["lifetime_micro_usd"], sums["last_7d_jobs"]) == (1_000, 2)
    assert "counts" not in sums


async def test_a_board_is_read_once_for_everybody(valkey_url: str) -> None:
    async with gateway(valkey_url) as mesh:
        first = (await mesh.http.get("/v1/leaderboard?metric=tokens&window=1d&limit=2")).json()
        assert (first["metric"], first["window"]) == ("tokens", "24h")
        assert [entry["rank"] for entry in first["entries"]] == [1, 2]
        assert first["entries"][0]["pseudonym"] == "name-1"
        assert first["entries"][0]["reward_earnings_micro_usd"] == 200
        for query in ("", "&limit=canary", "&limit=201", "&limit=0"):
            path = f"/v1/leaderboard?metric=tokens&window=24h{query}"
            assert len((await mesh.http.get(path)).json()["entries"]) == 50
        assert len(mesh.billing.reports.asked) == 1


async def test_an_unknown_figure_is_400(mesh: Harness) -> None:
    for path, param in (
        ("/v1/leaderboard?metric=canary", "metric"),
        ("/v1/leaderboard?window=canary", "window"),
        ("/v1/network/totals?window=canary", "window"),
    ):
        assert error(await mesh.http.get(path)) == (400, INVALID, INVALID, param)


async def test_figures_are_503_until_they_are_computed(valkey_url: str) -> None:
    async with gateway(valkey_url) as mesh:
        mesh.billing.reports.computed = False
        for path in ("/v1/leaderboard", "/v1/network/totals", "/v1/stats"):
            response = await mesh.http.get(path)
            assert error(response)[:2] == (503, "service_unavailable")
        mesh.billing.reports.computed = True
        totals = (await mesh.http.get("/v1/network/totals?window=lifetime")).json()
        assert (totals["window"], totals["active_accounts"], totals["jobs"]) == ("all", 1, 2)
        stats = (await mesh.http.get("/v1/stats")).json()
        assert (stats["total_requests"], stats["avg_tokens_per_request"]) == (2, 30)
        assert stats["time_series"][0]["requests"] == 2


async def test_a_public_name_is_chosen_by_a_person(valkey_url: str) -> None:
    async with gateway(valkey_url) as mesh:
        mesh.billing.identity.add_login(account_id="acct_named")
        path = "/v1/me/public-name"
        assert (await mesh.http.get(path, headers=LOGIN)).json()["choice"] == "pseudonym"
        refused = await mesh.http.put(path, headers=BEARER, json={"choice": "hidden"})
        assert error(refused)[:2] == (403, "forbidden")
        for body, expected in (
            ({"choice": "loud"}, (400, INVALID, INVALID, "choice")),
            ({"choice": "chosen"}, (400, INVALID, INVALID, "name")),
            ({"choice": "chosen", "name": "no!"}, (400, INVALID, INVALID, "name")),
            ({"choice": "chosen", "name": "taken"}, (409, "conflict", "conflict", "name")),
        ):
            assert error(await mesh.http.put(path, headers=LOGIN, json=body)) == expected
        chosen = {"choice": "chosen", "name": "mine"}
        assert (await mesh.http.put(path, headers=LOGIN, json=chosen)).json() == chosen


async def test_an_export_holds_every_table_and_no_secret(valkey_url: str) -> None:
    payments = FakePayments(withdrawals=3)
    async with gateway(valkey_url, partial(add_PaymentServiceServicer_to_server, payments)) as mesh:
        mesh.billing.identity.add_login(email="me@example.com", account_id="acct_export")
        refused = await mesh.http.get("/v1/me/export", headers=BEARER)
        assert error(refused)[:2] == (403, "forbidden")
        response = await mesh.http.get("/v1/me/export", headers=LOGIN)
        assert response.headers["content-type"] == "application/zip"
        archive = zipfile.ZipFile(io.BytesIO(response.content))
        assert archive.testzip() is None
        assert set(archive.namelist()) == {
            "profile.json",
            "keys.json",
            "usage.csv",
            "ledger.csv",
            "earnings.csv",
            "withdrawals.csv",
            "manifest.json",
        }
        assert json.loads(archive.read("profile.json"))["email"] == "me@example.com"
        assert len(archive.read("usage.csv").splitlines()) == PAGES + 1
        with io.TextIOWrapper(archive.open("withdrawals.csv")) as table:
            withdrawals = list(csv.DictReader(table))
        assert [(row["id"], row["status"]) for row in withdrawals] == [
            ("wd_0", "paid"),
            ("wd_1", "manual_reconciliation_required"),
            ("wd_2", "manual_reconciliation_required"),
        ]
        first = withdrawals[0]
        assert (first["amount_micro_usd"], first["fee_micro_usd"]) == ("5000000", "500000")
        assert (first["method"], first["transfer_id"]) == ("instant", "tr_0")
        assert first["created_at"].startswith("2027-01-15T08:00:00")
        manifest = json.loads(archive.read("manifest.json"))
        assert manifest["tables"]["ledger"] == {"rows": PAGES, "cut_off": False}


async def test_an_export_without_payouts_has_no_withdrawals(valkey_url: str) -> None:
    payments = FakePayments(withdrawals=3, payouts=False)
    async with gateway(valkey_url, partial(add_PaymentServiceServicer_to_server, payments)) as mesh:
        mesh.billing.identity.add_login(account_id="acct_export")
        response = await mesh.http.get("/v1/me/export", headers=LOGIN)
        archive = zipfile.ZipFile(io.BytesIO(response.content))
        assert len(archive.read("withdrawals.csv").splitlines()) == 1


async def test_an_export_that_cannot_be_whole_is_503_and_no_archive(valkey_url: str) -> None:
    async with gateway(valkey_url) as mesh:
        mesh.billing.identity.add_login(account_id="acct_export")
        response = await mesh.http.get("/v1/me/export", headers=LOGIN)
        assert (response.status_code, error(response)[1]) == (503, "service_unavailable")
