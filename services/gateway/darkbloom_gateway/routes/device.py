"""Device-code login for providers (http-api §13, RFC 8628).

A form is answered as RFC 8628 says, JSON as the product always did. Both see the same codes.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar
from urllib.parse import parse_qsl

from darkbloom.billing.v1.identity_pb2 import DeviceCodeState
from darkbloom.billing.v1.identity_service_pb2 import PollDeviceCodeResponse
from darkbloom.common.v1.error_reason_pb2 import ErrorReason
from darkbloom_mesh.errors import InvalidArgumentError, MeshError, NotFoundError
from fastapi import APIRouter, Request

from darkbloom_gateway import convert
from darkbloom_gateway.billing_identity import IdentityClient
from darkbloom_gateway.errors import ApiError, ClientGoneError, rate_limited
from darkbloom_gateway.routes.bodies import MAX_BODY, parse_object, read_object, rfc3339
from darkbloom_gateway.routes.keys import away
from darkbloom_gateway.routes.plane import ControlPlane, Reply, reply
from darkbloom_gateway.wire import read_body

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:device_code"
_FORM = "application/x-www-form-urlencoded"
_IDLE_S = 10.0
_MAX_FIELDS = 20
_RETRY_KEY = "darkbloom-retry-after-s"
_MAX_TEXT = 256
_BAD, _BUSY, _SERVER_FAULT = 400, 429, 500
_NO_STORE = {"cache-control": "no-store"}
T = TypeVar("T")
Unknown: TypeAlias = Callable[[], ApiError]
"""What a code that nobody knows is called in this place."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a machine sent, and in which of the two languages."""

    fields: Mapping[str, Any]
    rfc: bool

    def text(self, name: str) -> str:
        """Return a text field; empty where it is absent.

        Raises:
            ApiError: 400 for anything that is no text.
        """
        value = self.fields.get(name)
        if value is None:
            return ""
        if not isinstance(value, str) or len(value) > _MAX_TEXT or not value.isascii():
            raise _invalid(f"{name} must be a short text")
        return value


def make_router(
    plane: ControlPlane, identity: IdentityClient, *, verification_uri: str
) -> APIRouter:
    """Return the routes.

    Args:
        plane: who asks, limits.
        identity: codes.
        verification_uri: the page on which an owner types the code.
    """
    router = APIRouter()

    @router.post("/v1/device/code")
    async def create_code(request: Request) -> Reply:
        """Begin a device login."""
        sent = await _read(request)
        await plane.stranger(request)
        name = sent.fields.get("machine_name")
        made = await _answered(
            identity.create_device_code(
                name if isinstance(name, str) else "", plane.source(request)
            )
        )
        content = {
            "device_code": made.device_code,
            "user_code": made.user_code,
            "verification_uri": verification_uri,
            "verification_uri_complete": f"{verification_uri}?user_code={made.user_code}",
            "expires_in": made.lifetime.seconds,
            "interval": made.interval.seconds,
        }
        return reply(content, headers=_NO_STORE)

    @router.post("/v1/device/token")
    async def poll_code(request: Request) -> Reply:
        """Ask whether the owner has approved; the token comes once."""
        sent = await _read(request)
        try:
            await plane.stranger(request)
            polled = await _poll(identity, sent)
        except ApiError as error:
            if sent.rfc and error.http_status < _SERVER_FAULT:
                return _rfc_error(error)
            raise
        return _polled(polled, rfc=sent.rfc)

    _add_owner_routes(router, plane, identity)
    return router


def _add_owner_routes(router: APIRouter, plane: ControlPlane, identity: IdentityClient) -> None:
    @router.get("/v1/device/code")
    async def look_at_code(request: Request, user_code: str = "") -> Reply:
        """Show an owner which machine a code is of."""
        caller = await plane.login(request)
        if not 0 < len(user_code) <= _MAX_TEXT:
            raise _invalid("user_code is missing")
        found = await _answered(
            identity.device_code(user_code, caller.account_id), unknown=_invalid_code
        )
        return reply(
            {
                "user_code": found.user_code,
                "machine_name": found.machine_name,
                "status": _word(found.state),
                "created_at": rfc3339(convert.instant(found.create_time)),
                "expires_at": rfc3339(convert.instant(found.expire_time)),
            }
        )

    @router.post("/v1/device/approve")
    async def decide_on_code(request: Request) -> Reply:
        """Approve the machine that shows this code, or refuse it."""
        caller = await plane.login(request)
        sent = await _read(request)
        user_code, approve = sent.text("user_code"), sent.fields.get("approve", True)
        if not user_code:
            raise _invalid("user_code is missing")
        if not isinstance(approve, bool):
            raise _invalid("approve must be true or false")
        await plane.financial(caller, revokes=not approve)
        decided = await _answered(
            identity.decide_device_code(user_code, caller.account_id, approve=approve),
            unknown=_invalid_code,
        )
        machine = decided.machine_name or "the machine"
        said = "may now earn for this account" if approve else "was refused"
        return reply(
            {
                "status": "approved" if approve else "denied",
                "message": f"{machine} {said}",
                "machine_name": decided.machine_name,
            }
        )


async def _poll(identity: IdentityClient, sent: Asked) -> PollDeviceCodeResponse:
    if sent.rfc and sent.text("grant_type") != GRANT_TYPE:
        raise ApiError(400, "unsupported_grant_type", "this grant type is not supported")
    code = sent.text("device_code")
    if not code:
        raise _invalid("device_code is missing")
    polled = await _answered(identity.poll_device_code(code), unknown=_invalid_grant)
    if polled.state == DeviceCodeState.DEVICE_CODE_STATE_DENIED:
        raise ApiError(403, "access_denied", "the owner has refused this machine")
    return polled


def _polled(polled: PollDeviceCodeResponse, *, rfc: bool) -> Reply:
    if not polled.token:
        if rfc:
            return reply({"error": "authorization_pending"}, 400, _NO_STORE)
        return reply({"status": "authorization_pending"}, headers=_NO_STORE)
    if rfc:
        content = {"access_token": polled.token, "token_type": "Bearer"}
    else:
        content = {"status": "authorized", "token": polled.token}
    return reply({**content, "account_id": polled.account_id}, headers=_NO_STORE)


async def _read(request: Request) -> Asked:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != _FORM:
        try:
            return Asked(await read_object(request, empty=True), rfc=False)
        except ApiError as error:
            raise _invalid(error.message) if error.http_status == _BAD else error from None
    try:
        raw = await read_body(request.scope, request.receive, limit=MAX_BODY, idle_s=_IDLE_S)
        if raw.lstrip().startswith(b"{"):
            # curl calls every body a form; the first character of one is never a bare brace.
            return Asked(parse_object(raw), rfc=False)
        pairs = parse_qsl(raw.decode("ascii"), max_num_fields=_MAX_FIELDS)
    except ApiError as error:
        raise _invalid(error.message) if error.http_status == _BAD else error from None
    except (ClientGoneError, ValueError):
        raise _invalid("the body is not a form") from None
    return Asked(dict(pairs), rfc=True)


async def _answered(call: Awaitable[T], unknown: Unknown | None = None) -> T:
    """Await billing; what it refuses becomes what the caller is told."""
    try:
        return await call
    except MeshError as error:
        raise _told(error, unknown) from None


def _told(error: MeshError, unknown: Unknown | None) -> ApiError:
    polls = unknown is _invalid_grant
    if error.reason == ErrorReason.ERROR_REASON_SLOW_DOWN:
        wait_s = float(error.metadata.get(_RETRY_KEY, "5"))
        if polls:
            return ApiError(429, "slow_down", "poll less often", retry_after_s=wait_s)
        return rate_limited(wait_s)
    if error.reason == ErrorReason.ERROR_REASON_CODE_EXPIRED:
        kind = "expired_token" if polls else "expired_code"
        return ApiError(410, kind, "this code has expired")
    if error.reason == ErrorReason.ERROR_REASON_CODE_USED:
        return ApiError(409, "already_used", "this code was decided on before")
    if isinstance(error, NotFoundError | InvalidArgumentError) and unknown is not None:
        return unknown()
    return away(error)


def _invalid(message: str) -> ApiError:
    return ApiError(400, "invalid_request", message)


def _invalid_grant() -> ApiError:
    return ApiError(404, "invalid_grant", "this device code is not known, or its token was given")


def _invalid_code() -> ApiError:
    return ApiError(404, "invalid_code", "this code is not known")


def _rfc_error(error: ApiError) -> Reply:
    """Return an error as RFC 6749 §5.2 wants it."""
    kind = "slow_down" if error.http_status == _BUSY else error.kind
    return reply({"error": kind, "error_description": error.message}, 400, _NO_STORE)


def _word(state: DeviceCodeState.ValueType) -> str:
    return DeviceCodeState.Name(state).removeprefix("DEVICE_CODE_STATE_").lower()
