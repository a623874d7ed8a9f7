"""Billing's programmes and operators' commands, as the routes call them."""

from dataclasses import dataclass
from datetime import datetime

import grpc
from darkbloom.billing.v1 import operator_pb2
from darkbloom.billing.v1 import operator_service_pb2 as operators_pb
from darkbloom.billing.v1 import programme_service_pb2 as programmes_pb
from darkbloom.billing.v1.operator_service_pb2_grpc import OperatorServiceStub
from darkbloom.billing.v1.programme_service_pb2_grpc import ProgrammeServiceStub
from google.protobuf.timestamp_pb2 import Timestamp

from darkbloom_gateway.clients import answer

_LIST_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Write:
    """Who writes, and the id that makes a repetition the same write."""

    operator: str
    request_id: str


@dataclass(frozen=True, slots=True)
class NewInvite:
    """An invite that an operator asks for; an empty code is made up."""

    code: str
    amount_micros: int
    max_uses: int
    expires_at: datetime | None


class ProgrammesClient:
    """Invites and referrals over one channel."""

    def __init__(self, channel: grpc.aio.Channel, *, timeout_s: float) -> None:
        self._stub: ProgrammeServiceStub = ProgrammeServiceStub(channel)
        self._timeout_s = timeout_s

    async def redeem(self, account_id: str, code: str) -> tuple[int, int]:
        """Use an invite; return what it paid and the balance, in micro-USD."""
        request = programmes_pb.RedeemInviteRequest(account_id=account_id, code=code)
        paid = await answer(self._stub.RedeemInvite(request, timeout=self._timeout_s))
        return paid.credited_micros, paid.balance_micros

    async def register(self, account_id: str, code: str) -> tuple[str, int]:
        """Choose a referral code; return the account's code and the share in percent."""
        request = programmes_pb.RegisterReferralRequest(account_id=account_id, code=code)
        kept = await answer(self._stub.RegisterReferral(request, timeout=self._timeout_s))
        return kept.code, kept.share_percent

    async def apply(self, account_id: str, code: str) -> str:
        """Name the referrer; return the code as it is kept."""
        request = programmes_pb.ApplyReferralRequest(account_id=account_id, code=code)
        return (await answer(self._stub.ApplyReferral(request, timeout=self._timeout_s))).code

    async def referral(self, account_id: str) -> programmes_pb.GetReferralResponse:
        """Return an account's side of the programme."""
        request = programmes_pb.GetReferralRequest(account_id=account_id)
        return await answer(self._stub.GetReferral(request, timeout=self._timeout_s))


class OperatorsClient:
    """Operators' commands over one channel; the login was checked before."""

    def __init__(self, channel: grpc.aio.Channel, *, timeout_s: float) -> None:
        self._stub: OperatorServiceStub = OperatorServiceStub(channel)
        self._timeout_s = timeout_s

    async def account(self, *, account_id: str = "", email: str = "") -> operator_pb2.AccountView:
        """Return an account by id or by e-mail."""
        request = operators_pb.GetAccountViewRequest(account_id=account_id, email=email)
        return (await answer(self._stub.GetAccountView(request, timeout=self._timeout_s))).account

    async def change(
        self,
        write: Write,
        account_id: str,
        *,
        role: str | None = None,
        fee_percent: int | None = None,
    ) -> operator_pb2.AccountView:
        """Change role or fee of an account; None keeps it, -1 is the platform's fee."""
        request = operators_pb.UpdateAccountRequest(
            operator=_who(write),
            request_id=write.request_id,
            account_id=account_id,
            role=role,
            platform_fee_percent=fee_percent,
        )
        return (await answer(self._stub.UpdateAccount(request, timeout=self._timeout_s))).account

    async def credit(
        self, write: Write, account_id: str, amount_micros: int, note: str, *, reward: bool
    ) -> operators_pb.CreditAccountResponse:
        """Put money on an account."""
        request = operators_pb.CreditAccountRequest(
            operator=_who(write),
            request_id=write.request_id,
            account_id=account_id,
            kind=(operators_pb.CREDIT_KIND_REWARD if reward else operators_pb.CREDIT_KIND_PROMO),
            amount_micros=amount_micros,
            note=note,
        )
        return await answer(self._stub.CreditAccount(request, timeout=self._timeout_s))

    async def set_price(
        self, write: Write, build: str, inp: int, out: int, cache_read: int | None
    ) -> operators_pb.SetPlatformPriceResponse:
        """Set the platform's price of a build."""
        request = operators_pb.SetPlatformPriceRequest(
            operator=_who(write),
            request_id=write.request_id,
            build=build,
            input_micros=inp,
            output_micros=out,
            cache_read_micros=cache_read,
        )
        return await answer(self._stub.SetPlatformPrice(request, timeout=self._timeout_s))

    async def create_invite(self, write: Write, new: NewInvite) -> operator_pb2.Invite:
        """Make an invite."""
        request = operators_pb.CreateInviteRequest(
            operator=_who(write),
            request_id=write.request_id,
            code=new.code,
            amount_micros=new.amount_micros,
            max_uses=new.max_uses,
            expire_time=_stamp(new.expires_at) if new.expires_at else None,
        )
        return (await answer(self._stub.CreateInvite(request, timeout=self._timeout_s))).invite

    async def invites(self, page_token: str) -> operators_pb.ListInvitesResponse:
        """Return a page of invites, newest first."""
        request = operators_pb.ListInvitesRequest()
        request.page.page_size = _LIST_PAGE
        request.page.page_token = page_token
        return await answer(self._stub.ListInvites(request, timeout=self._timeout_s))

    async def deactivate_invite(self, write: Write, code: str) -> operator_pb2.Invite:
        """Stop an invite."""
        request = operators_pb.DeactivateInviteRequest(
            operator=_who(write), request_id=write.request_id, code=code
        )
        return (await answer(self._stub.DeactivateInvite(request, timeout=self._timeout_s))).invite


def _who(write: Write) -> operator_pb2.Operator:
    return operator_pb2.Operator(name=write.operator)


def _stamp(at: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(at)
    return stamp
