"""The signed-in person, provider tokens, and what a provider token is good for."""

from collections.abc import Awaitable
from typing import Any, TypeVar

from darkbloom.common.v1.error_reason_pb2 import ErrorReason
from darkbloom_edge.errors import EdgeError
from darkbloom_edge.signatures import from_base64, parse_p256_public, to_base64
from darkbloom_mesh.errors import (
    ConflictError,
    InvalidArgumentError,
    MeshError,
    NotFoundError,
    PreconditionError,
)
from fastapi import APIRouter, Request

from darkbloom_gateway import convert
from darkbloom_gateway.billing_identity import IdentityClient
from darkbloom_gateway.errors import ApiError, bad_request, not_found, rate_limited
from darkbloom_gateway.model import ProviderToken
from darkbloom_gateway.routes.bodies import Body, read_object, rfc3339, text
from darkbloom_gateway.routes.keys import away
from darkbloom_gateway.routes.plane import ControlPlane, Reply, reply

_MAX_ENCODED = 256
_PROVIDER_ID = "prov_"
_URL_SAFE = str.maketrans("-_", "+/")
T = TypeVar("T")


def make_router(plane: ControlPlane, identity: IdentityClient) -> APIRouter:
    """Return the routes."""
    router = APIRouter()

    @router.get("/v1/me")
    async def get_me(request: Request) -> Reply:
        """Return the signed-in person and the account."""
        caller = await plane.login(request)
        found = await _answered(identity.profile(caller.user_id))
        return reply(
            {
                "user_id": found.user_id,
                "account_id": found.account_id,
                "email": found.email,
                "email_verified": found.email_verified,
                "display_name": found.display_name,
                "role": found.account_role,
                "admin": caller.is_admin,
                "created_at": rfc3339(convert.instant(found.create_time)),
            }
        )

    @router.delete("/v1/me")
    async def close_account(request: Request) -> Reply:
        """Close the account: every key, login and token of it ends at once."""
        caller = await plane.login(request)
        await plane.financial(caller, revokes=True)
        await _answered(identity.close_account(caller.account_id))
        return reply({"status": "pending_deletion"}, 202)

    @router.get("/v1/me/tokens")
    async def list_tokens(request: Request) -> Reply:
        """List the provider tokens of the account."""
        caller = await plane.login(request)
        tokens = await _answered(identity.provider_tokens(caller.account_id))
        return reply({"object": "list", "data": [_token(token) for token in tokens]})

    @router.delete("/v1/me/tokens/{token_id}")
    async def revoke_token(request: Request, token_id: str) -> Reply:
        """Revoke a provider token; the machines that it linked stay linked."""
        caller = await plane.login(request)
        await plane.financial(caller, revokes=True)
        # What cannot be a name is nobody's name.
        await _answered(
            identity.revoke_provider_token(caller.account_id, token_id), malformed=_nothing()
        )
        return reply({"status": "revoked"})

    @router.delete("/v1/me/providers/{machine:path}")
    async def unlink_machine(request: Request, machine: str) -> Reply:
        """Take a machine away from the account; what it was asked before is still paid."""
        caller = await plane.login(request)
        await plane.financial(caller, revokes=True)
        identity_key = await _machine(plane, machine)
        await _answered(
            identity.unlink_machine(caller.account_id, identity_key), missing=_no_machine()
        )
        return reply({"status": "unlinked"})

    @router.get("/v1/provider/token")
    async def get_own_token(request: Request) -> Reply:
        """Return the calling provider token's own record."""
        token = await plane.provider(request)
        return reply({**_token(token), "account_id": token.account_id})

    @router.delete("/v1/provider/token")
    async def revoke_own_token(request: Request) -> Reply:
        """Revoke the calling provider token."""
        token = await plane.provider(request)
        await _answered(identity.revoke_provider_token(token.account_id, token.token_id))
        return reply({"status": "revoked"})

    @router.post("/v1/provider/link/challenge")
    async def create_challenge(request: Request) -> Reply:
        """Return a nonce that the machine signs with its identity key."""
        token = await plane.provider(request)
        identity_key = _identity_key(await read_object(request))
        made = await _answered(identity.link_challenge(token.account_id, identity_key))
        return reply({"nonce": to_base64(made.nonce), "expires_in": made.lifetime.seconds})

    @router.post("/v1/provider/link")
    async def link_machine(request: Request) -> Reply:
        """Link the machine that proves its identity key to the token's account."""
        token = await plane.provider(request)
        body = await read_object(request)
        await _answered(
            identity.link_machine(
                token.account_id,
                _identity_key(body),
                _encoded(body, "nonce"),
                _encoded(body, "signature"),
                text(body, "machine_name", default=token.machine_name),
            )
        )
        return reply({"status": "linked", "account_id": token.account_id})

    return router


def _token(token: ProviderToken) -> dict[str, Any]:
    return {
        "id": token.token_id,
        "label": token.label,
        "machine_name": token.machine_name,
        "created_at": rfc3339(token.created_at),
    }


def _identity_key(body: Body) -> bytes:
    try:
        return parse_p256_public(text(body, "identity_key"))
    except EdgeError:
        raise bad_request(
            "identity_key must be a p-256 public key in base64", param="identity_key"
        ) from None


async def _machine(plane: ControlPlane, named: str) -> bytes:
    """Return the identity key that a path names: itself, or the id of a machine that is there.

    Raises:
        ApiError: 404, also for what cannot be a machine.
    """
    if named.startswith(_PROVIDER_ID):
        for row in await plane.machines.get():
            if row.provider_id == named:
                return row.identity_key
        raise _no_machine()
    try:
        return parse_p256_public(from_base64(named.translate(_URL_SAFE)))
    except EdgeError:
        raise _no_machine() from None


def _nothing() -> ApiError:
    return not_found("there is no such thing on this account")


def _no_machine() -> ApiError:
    return ApiError(404, "machine_not_found", "this account has no such machine")


def _encoded(body: Body, name: str) -> bytes:
    try:
        return from_base64(text(body, name, longest=_MAX_ENCODED), name)
    except EdgeError:
        raise bad_request(f"{name} must be base64", param=name) from None


async def _answered(
    call: Awaitable[T], *, missing: ApiError | None = None, malformed: ApiError | None = None
) -> T:
    try:
        return await call
    except NotFoundError:
        raise missing or _nothing() from None
    except InvalidArgumentError as error:
        raise malformed or bad_request("the request is not valid", param=error.field) from None
    except ConflictError:
        raise ApiError(409, "conflict", "this machine is linked to another account") from None
    except MeshError as error:
        raise _told(error) from None


def _told(error: MeshError) -> ApiError:
    if error.reason == ErrorReason.ERROR_REASON_SLOW_DOWN:
        return rate_limited(60)
    if isinstance(error, PreconditionError):
        return ApiError(
            400, "invalid_request", "the proof does not fit: begin again with a new nonce"
        )
    return away(error)
