"""API keys (http-api §12). Only a login manages keys: a leaked key must not multiply."""

import hashlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

from darkbloom.billing.v1.account_pb2 import ApiKey
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import InvalidArgumentError, MeshError, NotFoundError
from fastapi import APIRouter, Request

from darkbloom_gateway.billing_identity import IdentityClient
from darkbloom_gateway.errors import ApiError, forbidden, not_found, unavailable
from darkbloom_gateway.model import Caller, Refusal
from darkbloom_gateway.routes.key_fields import read_key, read_settings, refused, write_key
from darkbloom_gateway.routes.plane import ControlPlane, Reply, reply

KEY_PREFIX = "sk-db-"
NO_STORE = {"cache-control": "no-store"}
"""For answers that carry a secret."""
_SECRET_BYTES = 32
_SHOWN = 4
_MAX_SECRET = 512
T = TypeVar("T")


def make_router(
    plane: ControlPlane,
    identity: IdentityClient,
    *,
    clock: Clock,
    entropy: Callable[[int], bytes],
) -> APIRouter:
    """Return the routes.

    Args:
        plane: who asks, limits.
        identity: keys.
        clock: time.
        entropy: randomness of secrets.
    """
    router = APIRouter()

    @router.get("/v1/keys")
    async def list_keys(request: Request) -> Reply:
        """List the account's keys."""
        caller = await plane.login(request)
        keys = await asked(identity.keys(caller.account_id))
        return reply({"object": "list", "data": [write_key(key) for key in keys]})

    @router.post("/v1/keys")
    async def create_key(request: Request) -> Reply:
        """Create a key; its secret is shown this once."""
        caller = await plane.login(request)
        key, named = read_key(await read_settings(request), clock)
        if "disabled" in named:
            raise refused("a new key is enabled", "disabled")
        await plane.financial(caller)
        key.account_id = caller.account_id
        secret, made = await _mint(identity, key, entropy)
        return reply({"key": secret, "data": write_key(made)}, headers=NO_STORE)

    _add_single(router, plane, identity, clock=clock, entropy=entropy)
    _add_older(router, plane, identity, entropy=entropy)
    return router


def _add_single(
    router: APIRouter,
    plane: ControlPlane,
    identity: IdentityClient,
    *,
    clock: Clock,
    entropy: Callable[[int], bytes],
) -> None:
    @router.get("/v1/keys/{key_id}")
    async def get_key(request: Request, key_id: str) -> Reply:
        """Return one key."""
        caller = await plane.login(request)
        return reply(write_key(await asked(identity.key(caller.account_id, key_id))))

    @router.patch("/v1/keys/{key_id}")
    async def update_key(request: Request, key_id: str) -> Reply:
        """Change what is given; `null` clears."""
        caller = await plane.login(request)
        key, named = read_key(await read_settings(request), clock)
        await plane.financial(caller, revokes=named == ["disabled"] and key.disabled)
        changed = await asked(identity.update_key(caller.account_id, key_id, key, named))
        return reply(write_key(changed))

    @router.delete("/v1/keys/{key_id}")
    async def delete_key(request: Request, key_id: str) -> Reply:
        """Revoke a key, in every gateway at once."""
        caller = await plane.login(request)
        await plane.financial(caller, revokes=True)
        await asked(identity.delete_key(caller.account_id, key_id=key_id))
        return reply({"status": "revoked"})

    @router.post("/v1/keys/{key_id}/rotate")
    async def rotate_key(request: Request, key_id: str) -> Reply:
        """Give a key a new secret; the old one is dead, everything else stays."""
        caller = await plane.login(request)
        await plane.financial(caller)
        secret = new_secret(entropy)
        rotated = await asked(
            identity.rotate_key(caller.account_id, key_id, hash_of(secret), label_of(secret))
        )
        return reply({"key": secret, "data": write_key(rotated)}, headers=NO_STORE)

    @router.get("/v1/key")
    async def get_own_key(request: Request) -> Reply:
        """Return the calling key's own record."""
        caller = await plane.caller(request)
        if caller.key is None:
            raise not_found("this request was not made with an api key")
        return reply(write_key(await asked(identity.key(caller.account_id, caller.key.key_id))))


def _add_older(
    router: APIRouter,
    plane: ControlPlane,
    identity: IdentityClient,
    *,
    entropy: Callable[[int], bytes],
) -> None:
    @router.post("/v1/auth/keys")
    async def mint_key(request: Request) -> Reply:
        """Create a key, as older clients do."""
        caller = await plane.login(request)
        await plane.financial(caller)
        keys = await asked(identity.keys(caller.account_id))
        active = [key for key in keys if not key.disabled]
        settings = ApiKey(
            account_id=caller.account_id,
            self_route_only=bool(active) and all(key.self_route_only for key in active),
        )
        secret, _ = await _mint(identity, settings, entropy)
        return reply({"api_key": secret, "account_id": caller.account_id}, headers=NO_STORE)

    @router.delete("/v1/auth/keys")
    async def revoke_key(request: Request) -> Reply:
        """Revoke the key whose secret is given, as older clients do."""
        caller = await plane.login(request)
        secret = (await read_settings(request)).get("key")
        if not isinstance(secret, str) or not 0 < len(secret) <= _MAX_SECRET:
            raise refused("key must be the secret of an api key", "key")
        await plane.financial(caller, revokes=True)
        try:
            await identity.delete_key(caller.account_id, key_hash=hash_of(secret))
        except NotFoundError:
            raise await _not_mine(plane, caller, hash_of(secret)) from None
        except MeshError as error:
            raise away(error) from None
        return reply({"status": "revoked"})


def new_secret(entropy: Callable[[int], bytes]) -> str:
    """Return the secret of a new key."""
    return KEY_PREFIX + entropy(_SECRET_BYTES).hex()


def hash_of(secret: str) -> bytes:
    """Return what is stored of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def label_of(secret: str) -> str:
    """Return what its owner tells a key by: prefix, first four and last four."""
    body = secret.removeprefix(KEY_PREFIX)
    return f"{KEY_PREFIX}{body[:_SHOWN]}…{body[-_SHOWN:]}"


async def asked(call: Awaitable[T]) -> T:
    """Await billing; what it refuses becomes what the consumer is told.

    Raises:
        ApiError: 404, 400 or 503.
    """
    try:
        return await call
    except NotFoundError:
        raise not_found("there is no such key") from None
    except InvalidArgumentError:
        raise refused("the request is not valid") from None
    except MeshError as error:
        raise away(error) from None


def away(error: MeshError) -> ApiError:
    """Return the 503 of a room that does not answer."""
    return error if isinstance(error, ApiError) else unavailable()


async def _mint(
    identity: IdentityClient, key: ApiKey, entropy: Callable[[int], bytes]
) -> tuple[str, ApiKey]:
    """Return a new secret, and the key with these settings that it is of."""
    secret = new_secret(entropy)
    key.label = label_of(secret)
    try:
        return secret, await identity.create_key(key, hash_of(secret))
    except InvalidArgumentError as error:
        full = error.field == "account_id"
        raise refused(error.message if full else "the request is not valid") from None
    except MeshError as error:
        raise away(error) from None


async def _not_mine(plane: ControlPlane, caller: Caller, key_hash: bytes) -> ApiError:
    """Return 403 where the secret is another account's key, else 404: whoever knows it may know."""
    try:
        record, _ = await plane.billing.resolve_key(key_hash)
    except MeshError as error:
        return away(error)
    if isinstance(record, Refusal) or record.account_id == caller.account_id:
        return not_found("there is no such key")
    return forbidden("this key belongs to another account")
