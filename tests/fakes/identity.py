"""A stand-in for billing's sign-in: tokens that a test has listed, and nothing else."""

from datetime import timedelta

from darkbloom.billing.v1 import identity_service_pb2 as pb
from darkbloom.billing.v1.identity_pb2 import Login
from darkbloom.billing.v1.identity_service_pb2_grpc import IdentityServiceServicer
from darkbloom.common.v1.error_reason_pb2 import ErrorReason
from darkbloom_mesh.clock import SystemClock
from darkbloom_mesh.errors import ForbiddenError, StoreUnavailableError, UnauthenticatedError
from darkbloom_mesh.serve import Context

LOGIN_TOKEN = "eyJhbGciOiJFUzI1NiJ9.e30.c2ln"


class FakeIdentity(IdentityServiceServicer):
    """Logins by token."""

    def __init__(self) -> None:
        self.logins: dict[str, Login] = {}
        self.closing: set[str] = set()
        self.down = False
        self.checks = 0
        self.deleted: list[str] = []

    def add_login(
        self, token: str = LOGIN_TOKEN, *, life_s: float = 3600, **changes: object
    ) -> Login:
        """List a token; later changes of the message are seen by the next check."""
        login = Login(**{"user_id": "user_1", "account_id": "acct_test", **changes})  # type: ignore[arg-type]
        login.expire_time.FromDatetime(SystemClock().now() + timedelta(seconds=life_s))
        self.logins[token] = login
        return login

    async def VerifyLogin(
        self, request: pb.VerifyLoginRequest, context: Context
    ) -> pb.VerifyLoginResponse:
        if self.down:
            raise StoreUnavailableError("store does not answer")
        self.checks += 1
        login = self.logins.get(request.token)
        if login is None:
            reason = ErrorReason.ERROR_REASON_LOGIN_INVALID
            raise UnauthenticatedError("login token is not valid", reason=reason)
        if login.account_id in self.closing:
            reason = ErrorReason.ERROR_REASON_ACCOUNT_PENDING_DELETION
            raise ForbiddenError("account is being deleted", reason=reason)
        return pb.VerifyLoginResponse(login=login, generation=1)

    async def DeleteKey(
        self, request: pb.DeleteKeyRequest, context: Context
    ) -> pb.DeleteKeyResponse:
        self.deleted.append(request.key_id)
        return pb.DeleteKeyResponse()
