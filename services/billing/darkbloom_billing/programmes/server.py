"""Programmes on the wire: translate, delegate, translate back."""

from darkbloom.billing.v1 import programme_service_pb2 as pb
from darkbloom.billing.v1.programme_service_pb2_grpc import ProgrammeServiceServicer
from darkbloom_mesh.interceptors import Context

from darkbloom_billing import convert
from darkbloom_billing.programmes.invites import Invites
from darkbloom_billing.programmes.referrals import Referrals


class ProgrammeServer(ProgrammeServiceServicer):
    """Invites and referrals; holds no resource of its own."""

    def __init__(self, invites: Invites, referrals: Referrals) -> None:
        self._invites = invites
        self._referrals = referrals

    async def RedeemInvite(
        self, request: pb.RedeemInviteRequest, context: Context
    ) -> pb.RedeemInviteResponse:
        """Pay an invite to an account."""
        paid = await self._invites.redeem(_account(request.account_id), request.code)
        return pb.RedeemInviteResponse(
            credited_micros=paid.credited_micros, balance_micros=paid.balance_micros
        )

    async def RegisterReferral(
        self, request: pb.RegisterReferralRequest, context: Context
    ) -> pb.RegisterReferralResponse:
        """Give an account its code."""
        code = await self._referrals.register(_account(request.account_id), request.code)
        return pb.RegisterReferralResponse(
            code=code, share_percent=self._referrals.caps.share_percent
        )

    async def ApplyReferral(
        self, request: pb.ApplyReferralRequest, context: Context
    ) -> pb.ApplyReferralResponse:
        """Name the referrer of an account."""
        code = await self._referrals.apply(_account(request.account_id), request.code)
        return pb.ApplyReferralResponse(code=code)

    async def GetReferral(
        self, request: pb.GetReferralRequest, context: Context
    ) -> pb.GetReferralResponse:
        """Return an account's side of the programme."""
        view = await self._referrals.view(_account(request.account_id))
        return pb.GetReferralResponse(
            code=view.code,
            share_percent=self._referrals.caps.share_percent,
            referred_by=view.referred_by,
            referred_count=view.referred_count,
            qualifying_micros=view.qualifying_micros,
            reward_micros=view.reward_micros,
            maturing_micros=view.maturing_micros,
            next_mature_time=(
                convert.timestamp(view.next_mature_at) if view.next_mature_at else None
            ),
        )


def _account(value: str) -> str:
    return convert.token(value, "account_id")
