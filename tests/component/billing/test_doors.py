"""What the mesh token alone must not do, and what one request id must not hide."""

import asyncio
from typing import Any

import grpc
import pytest
from darkbloom.billing.v1 import account_service_pb2 as accounts_pb
from darkbloom.billing.v1 import identity_service_pb2 as identity_pb
from darkbloom.billing.v1 import operator_service_pb2 as pb
from darkbloom.billing.v1 import price_service_pb2 as prices_pb
from darkbloom.billing.v1.identity_service_pb2_grpc import IdentityServiceStub
from darkbloom_billing.identity.model import Claims, User
from darkbloom_gateway.model import Caller
from darkbloom_mesh.errors import ConflictError, NotFoundError

from tests.component.billing.operating import CALL_S, Staff, staff
from tests.component.billing.test_operators import credit, fault, refusal
from tests.component.billing.world import BUILD, CONSUMER, PROVIDER, START, owner, world

_USER = "INSERT INTO billing.app_user VALUES ($1, 'i', $1, $2, 'ann@example.com', $3, now())"


async def test_in_production_nobody_pays_links_or_prices_by_the_mesh_token(
    url: str, tmp_path: Any
) -> None:
    token = tmp_path / "token"
    token.write_text("t" * 40)
    async with world(url, environment="production", mesh_token_file=token) as w:
        await w.account(CONSUMER)
        grant = accounts_pb.GrantRequest(request_id="g", account_id=CONSUMER, amount_micros=1)
        link = accounts_pb.LinkProviderRequest(
            identity_key=w.machine.public, account_id=CONSUMER, name="mac"
        )
        price = prices_pb.SetPriceRequest(
            request_id="p", build=BUILD, input_micros=1, output_micros=1
        )
        for call in (
            w.accounts.Grant(grant, timeout=CALL_S),
            w.accounts.LinkProvider(link, timeout=CALL_S),
            w.prices.SetPrice(price, timeout=CALL_S),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        # One's own price is a matter of its account.
        price.account_id = CONSUMER
        assert (await w.prices.SetPrice(price, timeout=CALL_S)).price.build == BUILD


def change(s: Staff, request_id: str, account_id: str = CONSUMER, **values: Any) -> Any:
    request = pb.UpdateAccountRequest(
        operator=s.alice, request_id=request_id, account_id=account_id, **values
    )
    return s.operators.UpdateAccount(request, timeout=CALL_S)


async def test_no_change_hides_behind_the_row_of_another(url: str) -> None:
    async with world(url) as w:
        s = await staff(w)
        await w.account(CONSUMER)
        await w.account(PROVIDER)
        await change(s, "r1", role="service")
        for account, values in ((CONSUMER, {"frozen": True}), (PROVIDER, {"role": "service"})):
            assert isinstance(await fault(change(s, "r1", account, **values)), ConflictError)
        assert (await s.view(CONSUMER)).frozen is False
        assert (await s.view(PROVIDER)).role == ""
        assert len(await s.actions(PROVIDER)) == 0

        await change(s, "r1", role="service")
        await change(s, "r2", role="")
        # A late repeat of the first does not undo the second.
        await change(s, "r1", role="service")
        assert (await s.view(CONSUMER)).role == ""
        assert [row.request_id for row in await s.actions(CONSUMER)] == ["r2", "r1"]


async def test_a_request_id_stops_one_invite_only(url: str) -> None:
    async with world(url) as w:
        s = await staff(w)
        first, second = await s.invite(100), await s.invite(100)

        def stop(code: str) -> Any:
            request = pb.DeactivateInviteRequest(operator=s.alice, request_id="stop", code=code)
            return s.operators.DeactivateInvite(request, timeout=CALL_S)

        await stop(first)
        assert isinstance(await fault(stop(second)), ConflictError)
        page = await s.operators.ListInvites(pb.ListInvitesRequest(), timeout=CALL_S)
        assert {row.code: row.active for row in page.invites} == {first: False, second: True}

        def make(code: str) -> Any:
            request = pb.CreateInviteRequest(
                operator=s.alice, request_id="make", amount_micros=5, code=code
            )
            return s.operators.CreateInvite(request, timeout=CALL_S)

        assert (await make("FIRST")).invite.code == "FIRST"
        assert (await make("FIRST")).invite.code == "FIRST"
        assert isinstance(await fault(make("OTHER")), ConflictError)


async def test_an_account_that_closes_gets_no_credit(url: str) -> None:
    async with world(url) as w:
        s = await staff(w)
        await w.account(CONSUMER)
        await s.fund("promo", 1_000)
        closing = identity_pb.CloseAccountRequest(account_id=CONSUMER)
        await IdentityServiceStub(w.channel).CloseAccount(closing, timeout=CALL_S)
        assert await refusal(credit(s, CONSUMER, 100)) == "account_closing"
        assert (await s.view(CONSUMER)).promo_micros == 0
        assert await s.actions(CONSUMER) == []


async def test_parallel_redemptions_of_one_account_answer_one_success(url: str) -> None:
    async with world(url) as w:
        s = await staff(w)
        await w.account(CONSUMER)
        await s.fund("invite", 1_000)
        code = await s.invite(100, max_uses=10)
        answers = await asyncio.gather(
            *(s.redeem(CONSUMER, code) for _ in range(8)), return_exceptions=True
        )
        assert sum(not isinstance(answer, BaseException) for answer in answers) == 1
        assert (await s.view(CONSUMER)).promo_micros == 100


async def test_an_address_without_proof_collects_nothing(url: str) -> None:
    async with world(url) as w:
        s = await staff(w)
        for account in ("acct_thief", "acct_ann", "acct_second"):
            await w.account(account)

        def view() -> Any:
            request = pb.GetAccountViewRequest(email="Ann@example.com")
            return s.operators.GetAccountView(request, timeout=CALL_S)

        async with owner(url) as db:
            await db.execute(_USER, "user_0", "acct_thief", False)
            assert isinstance(await fault(view()), NotFoundError)
            await db.execute(_USER, "user_1", "acct_ann", True)
            assert (await view()).account.account_id == "acct_ann"
            await db.execute(_USER, "user_2", "acct_second", True)
            assert isinstance(await fault(view()), ConflictError)


def test_nobodys_address_is_in_a_repr() -> None:
    address = "ann@example.com"
    shown = (
        Claims(issuer="i", subject="s", email=address, name=address, expires_at=START),
        User(
            user_id="user_1",
            account_id="acct_1",
            account_role="",
            email=address,
            email_verified=True,
            display_name=address,
            closing=False,
            created_at=START,
        ),
        Caller("acct_1", email=address),
    )
    assert not any(address in repr(value) for value in shown)
