"""Usage, statements, earnings and public figures, over the wire."""

import asyncio
from datetime import timedelta
from typing import Any

import grpc
import pytest
from darkbloom.billing.v1 import report_pb2
from darkbloom.billing.v1 import report_service_pb2 as pb
from darkbloom.common.v1 import error_reason_pb2 as reasons
from darkbloom.common.v1.page_pb2 import PageRequest
from darkbloom_billing.convert import timestamp
from darkbloom_edge.signatures import P256Signer
from darkbloom_mesh.errors import MeshError, from_rpc_error

from tests.component.billing.world import (
    BUILD,
    CONSUMER,
    PROVIDER,
    START,
    World,
    owner,
    request_id,
    world,
)

CHARGE = 40 * 10 + 20 * 20
EARNINGS, TOKENS = report_pb2.LEADERBOARD_METRIC_EARNINGS, report_pb2.LEADERBOARD_METRIC_TOKENS
DAY, WEEK, ALL = (
    report_pb2.FIGURE_WINDOW_24H,
    report_pb2.FIGURE_WINDOW_7D,
    report_pb2.FIGURE_WINDOW_ALL,
)


async def refused(call: Any) -> MeshError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value)


async def served(w: World, **order: Any) -> str:
    """One request from its hold to its payment."""
    (held,) = await w.hold(w.order(request_id(), **order))
    (result,) = await w.settle(w.settlement(held.request_id))
    assert result.charge_micros == CHARGE
    return held.request_id


async def usage(w: World, **more: Any) -> pb.SearchUsageResponse:
    wanted = {"filter": report_pb2.UsageFilter(**more.pop("filter", {})), **more}
    return await w.reports.SearchUsage(
        pb.SearchUsageRequest(account_id=CONSUMER, **wanted), timeout=30
    )


async def entries(w: World, account_id: str, size: int = 0) -> list[report_pb2.StatementEntry]:
    """All pages of a statement."""
    found, token = [], ""
    while True:
        page = PageRequest(page_size=size, page_token=token)
        request = pb.ListStatementRequest(account_id=account_id, page=page)
        answer = await w.reports.ListStatement(request, timeout=30)
        found += answer.entries
        token = answer.next_page_token
        if not token:
            return found


async def summary(w: World, jobs: int) -> pb.GetEarningsSummaryResponse:
    """The provider's sums once everything was counted."""
    async with asyncio.timeout(30), owner(w.url) as connection:
        while await connection.fetchval("SELECT count(*) FROM billing.uncounted"):
            await connection.fetchval("SELECT billing.count_work(1000)")
    request = pb.GetEarningsSummaryRequest(account_id=PROVIDER)
    found = await w.reports.GetEarningsSummary(request, timeout=30)
    assert found.lifetime.jobs == jobs
    return found


async def test_usage_is_found_by_time_key_and_model_page_by_page(url: str) -> None:
    async with world(url) as w:
        await w.people()
        key = await w.key(b"secret")
        early = await served(w)
        await w.clock.advance(60)
        keyed = await served(w, key_id=key, requested_model="other")
        await w.clock.advance(60)
        last = await served(w)

        def ids(answer: pb.SearchUsageResponse) -> list[str]:
            return [row.request_id for row in answer.usage]

        assert ids(await usage(w)) == [last, keyed, early]
        assert ids(await usage(w, filter={"key_id": key})) == [keyed]
        assert ids(await usage(w, filter={"model": "other"})) == [keyed]
        assert ids(await usage(w, filter={"model": BUILD})) == [last, keyed, early]
        minute = timestamp(START + timedelta(seconds=60))
        assert ids(await usage(w, filter={"from_time": minute})) == [last, keyed]
        assert ids(await usage(w, filter={"to_time": minute})) == [early]

        first = await usage(w, page=PageRequest(page_size=2), count_limit=2)
        assert (ids(first), first.matches) == ([last, keyed], 2)
        page = PageRequest(page_size=2, page_token=first.next_page_token)
        second = await usage(w, page=page, count_limit=10)
        assert (ids(second), second.next_page_token, second.matches) == ([early], "", 3)
        error = await refused(usage(w, page=PageRequest(page_token="x")))
        assert error.reason == reasons.ERROR_REASON_INVALID_ARGUMENT


async def test_a_statement_shows_every_cent_holds_included(url: str) -> None:
    async with world(url) as w:
        await w.people(10_000)
        paid = await served(w)
        (open_hold,) = await w.hold(w.order(request_id()))
        (freed,) = await w.hold(w.order(request_id()))
        await w.release(freed.request_id)

        found = await entries(w, CONSUMER)
        assert [(row.type, row.amount_micros, row.settled_micros) for row in reversed(found)] == [
            ("admin_credit", 10_000, 0),
            ("charge", -2_000, 0),
            ("refund", 2_000 - CHARGE, CHARGE),
            ("charge", -2_000, 0),
            ("charge", -2_000, 0),
            ("refund", 2_000, 0),
        ]
        assert [row.reference for row in reversed(found)][1:4] == [
            paid,
            paid,
            open_hold.request_id,
        ]
        available, _, held = await w.balance(CONSUMER)
        assert sum(row.amount_micros for row in found) == available == 10_000 - CHARGE - 2_000
        assert (found[0].free_micros, found[0].held_micros) == (available, held)

        (payout,) = await entries(w, PROVIDER)
        assert (payout.type, payout.amount_micros, payout.reference) == ("payout", CHARGE, paid)
        assert [row.entry_id for row in await entries(w, CONSUMER, size=2)] == [
            row.entry_id for row in found
        ]
        assert len({row.entry_id for row in found}) == len(found)
        bad = PageRequest(page_token="cHJvbW86eA==")
        request = pb.ListStatementRequest(account_id=CONSUMER, page=bad)
        error = await refused(w.reports.ListStatement(request, timeout=30))
        assert error.reason == reasons.ERROR_REASON_INVALID_ARGUMENT


async def test_earnings_are_summed_by_machine_and_day(url: str) -> None:
    async with world(url) as w:
        await w.people()
        second = P256Signer.generate()
        await w.link(second, PROVIDER)
        await served(w)
        await served(w)
        name = request_id()
        await w.hold(w.order(name))
        await w.settle(
            w.settlement(
                name,
                verdict=w.verdict(machine=second)[1],
                terminal=w.terminal(name, machine=second),
            )
        )
        found = await summary(w, 3)
        assert (found.lifetime.work_micros, found.lifetime.tokens) == (3 * CHARGE, 180)
        assert found.last_24h == found.last_7d == found.lifetime
        assert {machine.identity_key: machine.work.jobs for machine in found.machines} == {
            w.machine.public: 2,
            second.public: 1,
        }
        request = pb.ListInsightsRequest(account_id=PROVIDER, days=7, identity_key=second.public)
        (row,) = (await w.reports.ListInsights(request, timeout=30)).rows
        assert (row.day, row.build, row.work.jobs) == ("2026-05-01", BUILD, 1)

        filtered = report_pb2.EarningsFilter(identity_key=second.public)
        answer = await w.reports.SearchEarnings(
            pb.SearchEarningsRequest(account_id=PROVIDER, filter=filtered, count_limit=9),
            timeout=30,
        )
        assert [(row.request_id, row.machine) for row in answer.earnings] == [(name, "mac")]
        assert answer.matches == 1


async def test_each_job_is_counted_once_whoever_counts(url: str) -> None:
    async with world(url) as w:
        await w.people()
        for _ in range(5):
            await served(w)
        async with owner(url) as one, owner(url) as other:
            transaction = one.transaction()
            await transaction.start()
            await one.fetchval("SELECT billing.count_work(3)")
            assert await other.fetchval("SELECT billing.count_work(9)") == 0
            await transaction.rollback()
        found = await summary(w, 5)
        assert (found.lifetime.jobs, found.lifetime.work_micros) == (5, 5 * CHARGE)


async def test_boards_and_totals_are_computed_before_anybody_asks(url: str) -> None:
    async with world(url) as w:
        await w.people()
        await served(w)
        await summary(w, 1)

        async def board(metric: int = EARNINGS, window: int = DAY) -> Any:
            request = pb.GetLeaderboardRequest(metric=metric, window=window, limit=10)  # type: ignore[arg-type]
            return await w.reports.GetLeaderboard(request, timeout=30)

        async with asyncio.timeout(30):
            while not (await board()).entries:
                await w.clock.advance(61)
        (entry,) = (await board()).entries
        assert (entry.rank, entry.work.work_micros, entry.work.jobs) == (1, CHARGE, 1)
        assert PROVIDER not in entry.name
        request = pb.GetNetworkTotalsRequest(window=DAY)
        totals = await w.reports.GetNetworkTotals(request, timeout=30)
        assert (totals.work.work_micros, totals.active_accounts) == (CHARGE, 1)
        assert (totals.prompt_tokens, totals.completion_tokens) == (40, 20)

        async def name(choice: int, name: str = "", account_id: str = PROVIDER) -> str:
            request = pb.SetPublicNameRequest(
                account_id=account_id,
                choice=choice,  # type: ignore[arg-type]
                name=name,
            )
            return (await w.reports.SetPublicName(request, timeout=30)).name

        assert await name(report_pb2.PUBLIC_NAME_CHOICE_PSEUDONYM) == entry.name
        assert await name(report_pb2.PUBLIC_NAME_CHOICE_CHOSEN, "Busy_Mac") == "Busy_Mac"
        error = await refused(name(report_pb2.PUBLIC_NAME_CHOICE_CHOSEN, "busy-mac", CONSUMER))
        assert error.reason == reasons.ERROR_REASON_IDEMPOTENCY_CONFLICT
        error = await refused(name(report_pb2.PUBLIC_NAME_CHOICE_CHOSEN, "quiet-fox-0001"))
        assert error.metadata["darkbloom-field"] == "name"
        await w.clock.advance(61)
        async with asyncio.timeout(30):
            while (await board()).entries[0].name != "Busy_Mac":
                await w.clock.advance(61)
        await name(report_pb2.PUBLIC_NAME_CHOICE_HIDDEN)
        async with asyncio.timeout(30):
            while (await board()).entries:
                await w.clock.advance(61)
        totals = await w.reports.GetNetworkTotals(request, timeout=30)
        assert totals.work.jobs == 1


async def test_a_dossier_has_facts_and_no_secret(url: str) -> None:
    async with world(url) as w:
        await w.people()
        key = await w.key(b"secret")
        request = pb.GetDossierRequest(account_id=CONSUMER)
        found = await w.reports.GetDossier(request, timeout=30)
        assert [row.key_id for row in found.keys] == [key]
        request = pb.GetDossierRequest(account_id=PROVIDER)
        (machine,) = (await w.reports.GetDossier(request, timeout=30)).machines
        assert machine.identity_key == w.machine.public
        request = pb.GetDossierRequest(account_id="nobody")
        error = await refused(w.reports.GetDossier(request, timeout=30))
        assert error.reason == reasons.ERROR_REASON_NOT_FOUND
