"""Settlements: who is charged and paid how much, and what a forger can and cannot do."""

import asyncio
from datetime import timedelta
from typing import Any

import grpc
import pytest
from darkbloom.billing.v1 import account_service_pb2 as accounts_pb
from darkbloom.billing.v1 import ledger_pb2
from darkbloom_edge.ids import id_text
from darkbloom_edge.signatures import Ed25519Signer, P256Signer, to_base64

from tests.component.billing.test_holds import credit
from tests.component.billing.world import (
    CONSUMER,
    PROVIDER,
    World,
    attempt_id,
    owner,
    request_id,
    world,
)

SETTLED, RELEASED, REPLAYED, LATE, REJECTED, UNKNOWN = range(1, 7)
CHARGE = 40 * 10 + 20 * 20
HELD = 2_000


async def held(w: World, **more: Any) -> str:
    order = w.order(**more)
    (result,) = await w.hold(order)
    assert result.HasField("hold")
    return order.request_id


async def test_a_settlement_charges_the_consumer_and_pays_the_provider_the_same(url: str) -> None:
    async with world(url) as w:
        await w.people(10_000)
        name = await held(w)
        (result,) = await w.settle(w.settlement(name))

        assert result.status == SETTLED
        assert (result.charge_micros, result.provider_credit_micros) == (CHARGE, CHARGE)
        assert (result.prompt_tokens, result.completion_tokens) == (40, 20)
        assert await w.balance(CONSUMER) == (10_000 - CHARGE, 0, 0)
        assert await w.balance(PROVIDER) == (0, 0, 0)
        assert await w.maturing(PROVIDER) == CHARGE
        await w.sound()


async def test_a_replay_returns_the_stored_numbers_and_moves_nothing(url: str) -> None:
    async with world(url) as w:
        await w.people(10_000)
        name = await held(w)
        await w.settle(w.settlement(name))
        # A router that has forgotten what was opened is sent the terminal again.
        results = await w.settle(*(w.settlement(name, opened=(0, n)) for n in range(3)))

        assert [result.status for result in results] == [REPLAYED] * 3
        assert {result.charge_micros for result in results} == {CHARGE}
        assert await w.maturing(PROVIDER) == CHARGE
        await w.sound()


async def test_another_end_after_the_end_is_late_and_moves_nothing(url: str) -> None:
    async with world(url) as w:
        await w.people(10_000)
        settled, released = await held(w), await held(w)
        await w.settle(w.settlement(settled))
        await w.release(released)

        dearer = w.settlement(settled, terminal=w.terminal(settled, completion_tokens=50))
        results = await w.settle(dearer, w.settlement(released))
        (late,) = await w.release(settled)
        assert [item.status for item in (*results, late)] == [LATE] * 3
        assert await w.maturing(PROVIDER) == CHARGE
        await w.sound()


async def test_a_break_settles_what_was_opened_and_a_later_terminal_is_late(url: str) -> None:
    async with world(url) as w:
        await w.people(10_000)
        name = await held(w)
        (broken,) = await w.settle(w.settlement(name, terminal=None, opened=(40, 5)))
        (late,) = await w.settle(w.settlement(name))

        assert (broken.status, broken.charge_micros) == (SETTLED, 500)
        assert (late.status, late.charge_micros) == (LATE, 0)
        usage = await w.accounts.ListUsage(
            accounts_pb.ListUsageRequest(account_id=CONSUMER), timeout=30
        )
        assert [row.outcome for row in usage.usage] == ["broken"]
        await w.sound()


async def test_nothing_opened_releases_the_whole_hold(url: str) -> None:
    async with world(url) as w:
        await w.people(10_000)
        name = await held(w)
        (result,) = await w.settle(w.settlement(name, opened=(40, 0)))
        assert (result.status, result.charge_micros) == (RELEASED, 0)
        (again,) = await w.release(name)

        assert again.status == REPLAYED
        assert await w.balance(CONSUMER) == (10_000, 0, 0)
        await w.sound()


async def test_inflated_counts_are_cut_to_what_the_edge_opened_and_to_the_bounds(url: str) -> None:
    async with world(url) as w:
        await w.people(10_000)
        more = await held(w)
        (result,) = await w.settle(
            w.settlement(more, terminal=w.terminal(more, prompt_tokens=90, completion_tokens=50))
        )
        assert result.charge_micros == CHARGE

        opened = await held(w)
        (result,) = await w.settle(
            w.settlement(opened, terminal=None, opened=(2_000_000_000, 2_000_000_000))
        )
        assert result.charge_micros == HELD
        await w.sound()


async def test_a_small_answer_costs_the_minimum(url: str) -> None:
    async with world(url) as w:
        await w.people(10_000)
        name = await held(w)
        (result,) = await w.settle(w.settlement(name, opened=(1, 1)))
        assert result.charge_micros == 100


def forgeries(w: World, name: str) -> list[tuple[str, ledger_pb2.Settlement]]:
    """What a router that was broken into may try, and the word that answers it."""
    stranger, mallory = P256Signer.generate(), Ed25519Signer.generate()
    later = w.clock.now() + timedelta(minutes=10)
    before = w.clock.now() - timedelta(minutes=30)
    other = w.terminal(request_id())
    cut = w.verdict()[1]
    cut.document = cut.document.replace(
        w.machine.public_text.encode(), stranger.public_text.encode()
    )
    unsigned = w.terminal(name)
    unsigned.signature = b""
    return [
        ("verdict_signature", w.settlement(name, verdict=w.verdict(signer=mallory)[1])),
        ("verdict_signature", w.settlement(name, verdict=cut)),
        ("verdict_signature", w.settlement(name, verdict=type(cut)())),
        ("verdict_expired", w.settlement(name, verdict=w.verdict(issued=before)[1])),
        ("verdict_expired", w.settlement(name, verdict=w.verdict(issued=later)[1])),
        ("unlinked", w.settlement(name, verdict=w.verdict(machine=stranger)[1])),
        ("terminal_signature", w.settlement(name, terminal=w.terminal(name, machine=stranger))),
        ("terminal_signature", w.settlement(name, terminal=unsigned)),
        ("terminal_signature", w.settlement(name, terminal=w.verdict()[1])),
        ("ids", w.settlement(name, terminal=other)),
        ("ids", w.settlement(name, attempt_id=attempt_id(9))),
        ("ids", w.settlement(name, attempt_id="nonsense")),
        ("ids", w.settlement("nonsense", terminal=other)),
        ("ids", w.settlement(name, terminal=w.terminal(name, build="dear"))),
        ("ids", w.settlement(name, terminal=w.terminal(name, encryption_key=to_base64(b"x" * 32)))),
        (
            "ids",
            w.settlement(name, terminal=w.terminal(name, verdict_id=id_text("ver", b"x" * 16))),
        ),
        ("bounds", w.settlement(name, terminal=w.terminal(name, completion_tokens=51))),
        ("bounds", w.settlement(name, terminal=w.terminal(name, prompt_tokens=101))),
        ("price", w.settlement(name, price_id="price_invented")),
        ("admission", w.settlement(name, verdict=w.verdict(admission="owner")[1])),
    ]


async def test_every_forgery_is_rejected_and_the_hold_stands(url: str) -> None:
    async with world(url) as w:
        await w.people(10_000)
        name = await held(w)
        tried = forgeries(w, name)
        results = await w.settle(*(forged for _, forged in tried))

        assert [result.rejection for result in results] == [word for word, _ in tried]
        assert {result.status for result in results} == {REJECTED}
        assert await w.balance(CONSUMER) == (10_000 - HELD, 0, HELD)
        (honest,) = await w.settle(w.settlement(name))
        assert honest.status == SETTLED
        await w.sound()


async def test_a_router_cannot_pay_its_own_machine_for_the_work_of_another(url: str) -> None:
    async with world(url) as w:
        await w.people(10_000)
        thief = P256Signer.generate()
        await w.account("acct_thief")
        await w.link(thief, "acct_thief")
        name = await held(w)
        # Its own verdict with the honest terminal, and the honest verdict with its own terminal.
        results = await w.settle(
            w.settlement(name, verdict=w.verdict(machine=thief)[1]),
            w.settlement(name, terminal=w.terminal(name, machine=thief)),
        )
        assert [result.rejection for result in results] == ["terminal_signature"] * 2
        assert await w.maturing("acct_thief") == 0


async def test_a_development_verdict_moves_no_money_in_production(url: str, tmp_path: Any) -> None:
    token = tmp_path / "token"
    token.write_text("t" * 40)
    async with world(url) as w:
        await w.people(10_000)
        name = await held(w)
    async with world(url, environment="production", mesh_token_file=token) as production:
        production.machine = w.machine
        (result,) = await production.settle(production.settlement(name))
        assert (result.status, result.rejection) == (REJECTED, "admission")


async def test_an_owners_own_machine_costs_nothing_and_earns_nothing(url: str) -> None:
    async with world(url) as w:
        await w.people(10_000)
        own = P256Signer.generate()
        await w.link(own, CONSUMER)
        name = await held(w)
        (result,) = await w.settle(
            w.settlement(
                name,
                verdict=w.verdict(machine=own, admission="owner")[1],
                terminal=w.terminal(name, machine=own),
            )
        )
        assert (result.status, result.charge_micros, result.provider_credit_micros) == (
            SETTLED,
            0,
            0,
        )
        assert await w.balance(CONSUMER) == (10_000, 0, 0)
        await w.sound()


async def fingerprints(w: World, *accounts: str) -> None:
    async with owner(w.url) as db:
        for account in accounts:
            await db.execute(
                "INSERT INTO billing.fingerprint VALUES ($1, 'card', $2)", account, b"c" * 32
            )


async def test_promotional_money_never_pays_a_relation_of_the_payer(url: str) -> None:
    async with world(url) as w:
        await w.people(10_000)
        await fingerprints(w, CONSUMER, PROVIDER)
        name = await held(w)
        (result,) = await w.settle(w.settlement(name))
        assert (result.status, result.charge_micros, result.provider_credit_micros) == (
            SETTLED,
            0,
            0,
        )
        assert result.completion_tokens == 20
        assert await w.balance(CONSUMER) == (10_000, 0, 0)
        assert await w.maturing(PROVIDER) == 0
        usage = await w.accounts.ListUsage(
            accounts_pb.ListUsageRequest(account_id=CONSUMER), timeout=30
        )
        assert [row.charge_micros for row in usage.usage] == [0]
        (again,) = await w.settle(w.settlement(name))
        assert (again.status, again.charge_micros) == (REPLAYED, 0)
        await w.sound()


async def test_bought_money_pays_a_relation_of_the_payer(url: str) -> None:
    async with world(url) as w:
        await w.people(0)
        await credit(w, "user_credit", 10_000)
        await fingerprints(w, CONSUMER, PROVIDER)
        (result,) = await w.settle(w.settlement(await held(w)))
        assert result.charge_micros == CHARGE
        assert await w.maturing(PROVIDER) == CHARGE
        await w.sound()


async def test_an_account_that_closed_its_wallet_is_not_paid_and_fails_nobody_else(
    url: str,
) -> None:
    async with world(url) as w:
        await w.people(10_000)
        other = P256Signer.generate()
        await w.account("acct_other")
        await w.link(other, "acct_other")
        async with owner(url) as db:
            await db.execute(
                "UPDATE ledger.account SET closed = true WHERE path = 'user:acct_other:maturing'"
            )
        first, second = await held(w), await held(w)
        results = await w.settle(
            w.settlement(
                first,
                verdict=w.verdict(machine=other)[1],
                terminal=w.terminal(first, machine=other),
            ),
            w.settlement(second),
        )
        assert [result.status for result in results] == [REJECTED, SETTLED]
        assert results[0].rejection == "unlinked"
        await w.sound()


async def test_a_price_change_during_the_request_changes_nothing(url: str) -> None:
    async with world(url) as w:
        await w.people(10_000)
        name = await held(w)
        await w.price("dearer", 90_000_000, 90_000_000)
        (result,) = await w.settle(w.settlement(name))
        assert result.charge_micros == CHARGE


async def test_the_winners_row_is_used_where_it_was_held_or_is_covered(url: str) -> None:
    async with world(url) as w:
        await w.people(50_000)
        cheaper = await w.price("cheaper", 1_000_000, 1_000_000)
        await w.clock.advance(1)
        dear = await w.price("dear", 20_000_000, 20_000_000)
        await w.clock.advance(1)
        covered, uncovered = await held(w), await held(w)
        dearest = await w.price("dearest", 90_000_000, 90_000_000)
        results = await w.settle(
            w.settlement(covered, price_id=cheaper.price_id, opened=(40, 20)),
            w.settlement(uncovered, price_id=dearest.price_id),
        )
        assert [result.status for result in results] == [SETTLED, REJECTED]
        assert results[0].charge_micros == 100
        (result,) = await w.settle(w.settlement(uncovered, price_id=dear.price_id))
        assert result.charge_micros == 60 * 20
        await w.sound()


async def test_a_verdict_may_expire_while_the_answer_runs(url: str) -> None:
    async with world(url) as w:
        await w.people(10_000)
        name = await held(w)
        settlement = w.settlement(name)
        await w.clock.advance(14 * 60 + 50)
        (result,) = await w.settle(settlement)
        assert result.status == SETTLED


async def test_settle_and_release_race_to_one_winner(url: str) -> None:
    async with world(url) as w:
        await w.people(1_000_000)
        names = [await held(w) for _ in range(20)]

        async def both(name: str) -> tuple[int, int]:
            settled, released = await asyncio.gather(w.settle(w.settlement(name)), w.release(name))
            return settled[0].status, released[0].status

        pairs = await asyncio.gather(*(both(name) for name in names))
        assert set(pairs) <= {(SETTLED, LATE), (LATE, RELEASED)}
        paid = sum(pair == (SETTLED, LATE) for pair in pairs)
        assert await w.balance(CONSUMER) == (1_000_000 - paid * CHARGE, 0, 0)
        assert await w.maturing(PROVIDER) == paid * CHARGE
        await w.sound()


async def test_an_unknown_request_is_unknown(url: str) -> None:
    async with world(url) as w:
        await w.people()
        (settled,) = await w.settle(w.settlement(request_id()))
        (released,) = await w.release(request_id())
        assert (settled.status, released.status) == (UNKNOWN, UNKNOWN)


async def test_usage_and_earnings_name_the_request_and_page_newest_first(url: str) -> None:
    async with world(url) as w:
        await w.people(100_000)
        key = await w.key(b"secret")
        names = []
        for _ in range(5):
            names.append(await held(w, key_id=key))
            await w.settle(w.settlement(names[-1]))
            await w.clock.advance(1)

        seen, token = [], ""
        while True:
            response = await w.accounts.ListUsage(
                accounts_pb.ListUsageRequest(
                    account_id=CONSUMER, page={"page_size": 2, "page_token": token}
                ),
                timeout=30,
            )
            seen += response.usage
            token = response.next_page_token
            if not token:
                break
        assert [row.request_id for row in seen] == names[::-1]
        assert {(row.model, row.key_id, row.charge_micros) for row in seen} == {
            ("alias", key, CHARGE)
        }
        earned = await w.accounts.ListEarnings(
            accounts_pb.ListEarningsRequest(account_id=PROVIDER), timeout=30
        )
        assert [row.request_id for row in earned.earnings] == names[::-1]
        assert earned.earnings[0].identity_key == w.machine.public_text


async def test_keys_unknown_while_attestation_is_away_make_the_call_repeatable(url: str) -> None:
    async with world(url) as w:
        await w.people(10_000)
        name = await held(w)
        w.attestation.away = True
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await w.settle(w.settlement(name))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE

        w.attestation.away = False
        (result,) = await w.settle(w.settlement(name))
        assert result.status == SETTLED


async def test_pinned_verdict_keys_need_no_attestation(url: str) -> None:
    signer = Ed25519Signer.generate()
    async with world(url, verdict_keys=(to_base64(signer.public),)) as w:
        w.attestation.away = True
        w.verdicts = signer
        await w.people(10_000)
        name = await held(w)
        (result,) = await w.settle(w.settlement(name))
        assert result.status == SETTLED


async def test_a_retired_key_signs_nothing_new(url: str) -> None:
    async with world(url) as w:
        await w.people(10_000)
        retired = w.attestation.verdict_keys[0].retire_time
        retired.FromDatetime(w.clock.now() - timedelta(minutes=10))
        name = await held(w)
        (result,) = await w.settle(w.settlement(name))
        assert result.rejection == "verdict_signature"


async def test_a_router_that_hides_cached_tokens_raises_no_charge(url: str) -> None:
    async with world(url) as w:
        await w.people()
        await w.price("dear", 1_000_000_000, 1_000_000, cache_read_micros=0)
        name = await held(w)
        terminal = w.terminal(name, cached_tokens=30)
        (ended,) = await w.settle(w.settlement(name, terminal=terminal))
        assert ended.charge_micros == 10 * 1000 + 20
        await w.sound()
