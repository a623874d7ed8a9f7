"""Billing's identity service behind the gateway's port."""

import grpc
from darkbloom.billing.v1 import identity_service_pb2 as pb
from darkbloom.billing.v1.identity_service_pb2_grpc import IdentityServiceStub
from darkbloom_mesh.errors import MeshError

from darkbloom_gateway import convert
from darkbloom_gateway.clients import answer, refusal_of
from darkbloom_gateway.model import Caller, Refusal
from darkbloom_gateway.ports import Login


class IdentityClient:
    """Sign-in over one channel."""

    def __init__(self, channel: grpc.aio.Channel, *, timeout_s: float) -> None:
        self._stub: IdentityServiceStub = IdentityServiceStub(channel)
        self._timeout_s = timeout_s

    async def verify_login(self, token: str) -> tuple[Login | Refusal, int | None]:
        """See `ports.Identity`."""
        request = pb.VerifyLoginRequest(token=token)
        try:
            response = await answer(self._stub.VerifyLogin(request, timeout=self._timeout_s))
        except MeshError as error:
            return refusal_of(error), None
        login = response.login
        caller = Caller(
            account_id=login.account_id,
            user_id=login.user_id,
            email=login.email,
            role=login.account_role,
            is_admin=login.admin,
        )
        return Login(caller, convert.instant(login.expire_time)), response.generation
