"""Operators, programmes and money that was paid in, for tests of billing's programmes."""

import itertools
import secrets
from dataclasses import dataclass
from typing import Any

from darkbloom.billing.v1 import operator_pb2
from darkbloom.billing.v1 import operator_service_pb2 as pb
from darkbloom.billing.v1 import programme_service_pb2 as programmes_pb
from darkbloom.billing.v1.operator_service_pb2_grpc import OperatorServiceStub
from darkbloom.billing.v1.programme_service_pb2_grpc import ProgrammeServiceStub
from darkbloom_billing.admin import operators
from darkbloom_billing.books import Books
from darkbloom_mesh.config import Secret

from tests.component.billing.world import World, open_database

_numbers = itertools.count(1)
CALL_S = 10


def name(prefix: str = "r") -> str:
    return f"{prefix}_{next(_numbers)}"


@dataclass
class Staff:
    """Two registered operators and their stubs over a world."""

    world: World
    alice: operator_pb2.Operator
    bob: operator_pb2.Operator
    operators: OperatorServiceStub
    programmes: ProgrammeServiceStub

    async def fund(self, budget: str, micros: int) -> None:
        """Fill a budget through the two-person rule, capital first."""
        for target in ("capital", budget):
            proposed = await self.operators.ProposeFunding(
                pb.ProposeFundingRequest(
                    operator=self.alice,
                    request_id=name("fund"),
                    budget=target,
                    amount_micros=micros,
                ),
                timeout=CALL_S,
            )
            await self.operators.ApproveFunding(
                pb.ApproveFundingRequest(operator=self.bob, funding_id=proposed.funding.funding_id),
                timeout=CALL_S,
            )

    async def deposit(self, account_id: str, micros: int) -> None:
        """Money that somebody paid in."""
        database = await open_database(self.world.url)
        try:
            await Books(database, self.world.clock).deposit(name("cs"), account_id, micros)
        finally:
            await database.close()

    async def invite(self, micros: int, **more: Any) -> str:
        request = pb.CreateInviteRequest(
            operator=self.alice, request_id=name("inv"), amount_micros=micros, **more
        )
        return (await self.operators.CreateInvite(request, timeout=CALL_S)).invite.code

    async def redeem(self, account_id: str, code: str) -> programmes_pb.RedeemInviteResponse:
        request = programmes_pb.RedeemInviteRequest(account_id=account_id, code=code)
        return await self.programmes.RedeemInvite(request, timeout=CALL_S)

    async def register(self, account_id: str, code: str) -> programmes_pb.RegisterReferralResponse:
        request = programmes_pb.RegisterReferralRequest(account_id=account_id, code=code)
        return await self.programmes.RegisterReferral(request, timeout=CALL_S)

    async def apply(self, account_id: str, code: str) -> programmes_pb.ApplyReferralResponse:
        request = programmes_pb.ApplyReferralRequest(account_id=account_id, code=code)
        return await self.programmes.ApplyReferral(request, timeout=CALL_S)

    async def referral(self, account_id: str) -> programmes_pb.GetReferralResponse:
        request = programmes_pb.GetReferralRequest(account_id=account_id)
        return await self.programmes.GetReferral(request, timeout=CALL_S)

    async def view(self, account_id: str) -> operator_pb2.AccountView:
        request = pb.GetAccountViewRequest(account_id=account_id)
        return (await self.operators.GetAccountView(request, timeout=CALL_S)).account

    async def actions(self, subject: str = "") -> list[operator_pb2.OperatorAction]:
        request = pb.ListActionsRequest(subject=subject)
        return list((await self.operators.ListActions(request, timeout=CALL_S)).actions)


async def staff(world: World) -> Staff:
    """Register two operators and dial."""
    tokens = {}
    for person in ("alice", "bob"):
        tokens[person] = f"{operators.TOKEN_PREFIX}{secrets.token_hex(8)}"
        await operators.register(Secret(world.url), person, tokens[person], now=world.clock.now())
    return Staff(
        world=world,
        alice=operator_pb2.Operator(token=tokens["alice"]),
        bob=operator_pb2.Operator(token=tokens["bob"]),
        operators=OperatorServiceStub(world.channel),
        programmes=ProgrammeServiceStub(world.channel),
    )
